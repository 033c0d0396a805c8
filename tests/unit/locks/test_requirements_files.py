"""Requirement files out of a tree, wheels out of archives, and what pip and placeholders say."""

import io
import tarfile
import zipfile

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks import archive, pip_messages
from kit.locks.archived_wheels import take_out
from kit.locks.lock import Input
from kit.locks.requirement_files import RequirementFiles
from kit.locks.stub_sdists import NVIDIA_INDEX, stub_index
from kit.store import Store


@pytest.fixture
def copied(tmp_path):
    """Copy the files of a tree; returns the indexes, and what was written by name."""

    def run(texts, *names):
        content = (
            b"".join(
                archive.header(path, "file", len(data)) + data + archive.padding(len(data))
                for path, data in sorted((p, t.encode()) for p, t in texts.items())
            )
            + archive.END
        )
        path = tmp_path / "tree.tar"
        path.write_bytes(content)
        store = Store(tmp_path / "store")
        digest = store.add_file(path)
        tree = Input("git", "llm", ".", "", "llm.tar", "https://x.example", digest, len(content))
        folder = tmp_path / "trees"
        indexes = RequirementFiles(store, [tree], folder, "small").copy(names)
        written = {
            place.relative_to(folder).as_posix(): place.read_text()
            for place in folder.rglob("*")
            if place.is_file()
        }
        return indexes, written

    return run


def test_indexes_are_taken_out_and_all_else_stays(copied):
    text = (
        "\ufeff# a comment\n"
        "--extra-index-url https://pypi.nvidia.com\n"
        "-i https://a.example/simple --extra-index-url=https://b.example --trusted-host b.example\n"
        "--no-index\n"
        "--pre\n"
        "  numpy<2 ; python_version < '3.12'   # why\n"
        "torch>=2.4.0a0,\\\n<=2.5.0a0  \n"
        "h5py==3.12.1 --hash=sha256:00 \\\n  --hash=sha256:11\n"
        "aiohttp[speedups]\n"
        "--only-binary :all:\n"
        "last \\\n# a comment ends it\n"
        "cuda-python\\"
    )
    indexes, written = copied({"requirements.txt": text}, "llm/requirements.txt")
    assert indexes == ["https://pypi.nvidia.com", "https://a.example/simple", "https://b.example"]
    assert written["llm/requirements.txt"].splitlines() == [
        "--pre",
        "numpy<2 ; python_version < '3.12'",
        "torch>=2.4.0a0,<=2.5.0a0",
        "h5py==3.12.1 --hash=sha256:00   --hash=sha256:11",
        "aiohttp[speedups]",
        "--only-binary :all:",
        "last",
        "cuda-python",
    ]


def test_includes_come_along_each_once(copied):
    texts = {
        "dev.txt": "-r sub/a.txt\n--constraint=c.txt\n",
        "sub/a.txt": "-r ../dev.txt\n-rb.txt\none\n",
        "sub/b.txt": "--index-url https://b.example\ntwo\n",
        "c.txt": "two<2\n",
        "unrelated.txt": "three\n",
    }
    indexes, written = copied(texts, "llm/dev.txt")
    assert indexes == ["https://b.example"]
    assert written == {
        "llm/dev.txt": "-r sub/a.txt\n--constraint c.txt\n",
        "llm/sub/a.txt": "-r ../dev.txt\n-r b.txt\none\n",
        "llm/sub/b.txt": "two\n",
        "llm/c.txt": "two<2\n",
    }


@pytest.mark.parametrize(
    "line",
    [
        "x @ https://x.example/x-1-py3-none-any.whl",
        "x[y]@git+https://x.example/x",
        "git+https://x.example/x@main#egg=x",
        "https://x.example/x.tar.gz",
        "./local",
        "../outside",
        "/absolute/x",
        ".",
        "wheels/x-1.0-py3-none-any.whl",
        "-e .",
        "--editable=./x",
        "-f https://x.example/links",
        "--find-links wheels",
        "--extra-index-url file:///srv/index",
        "--index-url https://me:secret@x.example/simple",
        "-i https://${TOKEN}@x.example/simple",
    ],
)
def test_what_no_index_has_cannot_be_pinned(copied, line):
    with pytest.raises(KitError, match=r"llm/r\.txt:2: .* cannot be pinned") as caught:
        copied({"r.txt": f"fine\n{line}\n"}, "llm/r.txt")
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        ("", "llm/requirement.txt", r"no file requirement\.txt; did you mean r"),
        ("", "other/r.txt", "no source 'other'; known: llm"),
        ("-r ../../r.txt\n", "llm/r.txt", r"llm/r\.txt:1: \.\./\.\./r\.txt is no file of llm"),
        ("-c https://x.example/c.txt\n", "llm/r.txt", "is no file of llm"),
        ("-r absent.txt\n", "llm/r.txt", "has no file absent.txt"),
        ("x\n-r 'open\n", "llm/r.txt", r"llm/r\.txt:2: .*quotes that do not end"),
    ],
)
def test_files_that_are_not_there(copied, text, name, problem):
    with pytest.raises(KitError, match=problem) as caught:
        copied({"r.txt": text, "requirements.txt": ""}, name)
    assert caught.value.exit_code == ExitCode.USAGE


def tar(path, rows, mode="w:gz"):
    with tarfile.open(path, mode) as stream:
        for name, content in rows.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            stream.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_wheels_of_an_archive(tmp_path, mode):
    rows = {
        "./TensorRT-1/python/tensorrt-1-cp310-none-linux_x86_64.whl": b"ten",
        "./TensorRT-1/python/tensorrt-1-cp312-none-linux_x86_64.whl": b"twelve",
        "./TensorRT-1/python/tensorrt_lean-1-cp312-none-linux_x86_64.whl": b"lean",
        "./TensorRT-1/python/tensorrt-1-cp312-none-linux_x86_64.txt": b"text",
    }
    place = tar(tmp_path / "a.tar", rows, mode)
    found = take_out(place, "*/python/tensorrt-*-cp312-*", tmp_path / "out", "devel/a.tar")
    assert [(path.name, path.read_bytes()) for path in found] == [
        ("tensorrt-1-cp312-none-linux_x86_64.whl", b"twelve")
    ]
    with pytest.raises(KitError, match=r"devel/a\.tar: no member matches x; there are Tens") as e:
        take_out(place, "x", tmp_path / "out", "devel/a.tar")
    assert e.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("keep", [0, 10, 60, -1])
def test_a_damaged_archive(tmp_path, keep):
    place = tar(tmp_path / "a.tar.gz", {"a/x.whl": bytes(range(256)) * 200})
    content = place.read_bytes()
    cut = content[:keep] if keep >= 0 else content[:40] + b"\xff" * 20 + content[60:]
    place.write_bytes(cut)
    with pytest.raises(KitError, match="devel/a: damaged archive") as caught:
        take_out(place, "*", tmp_path / "out", "devel/a")
    assert caught.value.exit_code == ExitCode.CONTENT


PLACEHOLDER = b"""
This package can be installed as:
$ pip install --no-cache-dir --extra-index-url https://pypi.nvidia.example nvidia-ammo
"""


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            {"pyproject.toml": b'[build-system]\nbuild-backend = "nvidia_stub.buildapi"\n'},
            NVIDIA_INDEX,
        ),
        (
            {
                "x-1/pyproject.toml": b'[build-system]\nbuild-backend = "wheel_stub.buildapi"\n'
                b'[tool.wheel_stub]\nindex_url = "https://other.example/"\n'
            },
            "https://other.example",
        ),
        (
            {"x-1/ERROR.txt": PLACEHOLDER, "x-1/PACKAGE_NAME": b"nvidia-ammo"},
            "https://pypi.nvidia.example",
        ),
        ({"x-1/ERROR.txt": PLACEHOLDER}, None),
        ({"x-1/pyproject.toml": b'[build-system]\nbuild-backend = "hatchling.build"\n'}, None),
        ({"x-1/tests/pyproject.toml": b'build-backend = "nvidia_stub.buildapi"\n'}, None),
        ({"x-1/setup.py": b"build-backend = 'nvidia_stub'"}, None),
    ],
)
def test_placeholders_are_known_by_their_shape(tmp_path, rows, expected):
    assert stub_index(tar(tmp_path / "x-1.tar.gz", rows)) == expected
    with zipfile.ZipFile(tmp_path / "x-1.zip", "w") as stream:
        for name, content in rows.items():
            stream.writestr(name, content)
    assert stub_index(tmp_path / "x-1.zip") == expected


def test_what_is_no_archive_is_no_placeholder(tmp_path):
    (tmp_path / "x").write_bytes(b"nvidia_stub")
    assert stub_index(tmp_path / "x") is None


def said(text, tmp_path):
    return pip_messages.explained(
        text.splitlines(), "wheel", "base", "https://index.example/simple", tmp_path
    )


def test_pip_has_no_disk(tmp_path):
    error = said("x\nERROR: Could not install: [Errno 28] No space left on device\n", tmp_path)
    assert error.exit_code == ExitCode.ENVIRONMENT
    assert f"disk full while writing {tmp_path}" in str(error)
    assert "KIT_HOME" in str(error.hint)


def test_a_conflict_keeps_what_contradicts_what(tmp_path):
    error = said(
        "Collecting a\n"
        "ERROR: Cannot install a==1 and b==2 because these package versions have conflicting"
        " dependencies.\n\nThe conflict is caused by:\n    a 1 depends on c<2\n"
        "    b 2 depends on c>=2\n\nTo fix this you could try to:\n1. loosen\n"
        "ERROR: ResolutionImpossible: for help visit https://x.example\n",
        tmp_path,
    )
    assert str(error) == (
        "requirements: wheel: the pip of image base: Cannot install a==1 and b==2 because these "
        "package versions have conflicting dependencies.\n  | The conflict is caused by:\n"
        "  | a 1 depends on c<2\n  | b 2 depends on c>=2"
    )


def test_anything_else_shows_the_end(tmp_path):
    error = said("\n".join(f"line {n}" for n in range(40)) + "\n[notice] new pip\n", tmp_path)
    assert str(error).splitlines()[-1] == "  | line 39"
    assert "line 10" not in str(error)


def test_digests_name_the_place(tmp_path):
    """A tree that was not fetched says how."""
    tree = Input("git", "llm", ".", "", "llm.tar", "https://x.example", Digest("0" * 64), 1)
    files = RequirementFiles(Store(tmp_path / "store"), [tree], tmp_path / "out", "small")
    with pytest.raises(KitError) as caught:
        files.copy(["llm/r.txt"])
    assert caught.value.hint == "kit fetch small"
