from __future__ import annotations

import random
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from kit.artifacts import elf, git, source
from kit.errors import ExitCode, KitError
from kit.observation import Observation

if TYPE_CHECKING:
    from pathlib import Path

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1612458\n"
BATCH = "cpp/tensorrt_llm/batch_manager"
AARCH64, X86_64 = 183, 62
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def object_file(machine: int, big: bool = False) -> bytes:
    head = b"\x7fELF\x02" + (b"\x02" if big else b"\x01") + b"\x01" + bytes(9)
    return head + struct.pack(">HH" if big else "<HH", 1, machine) + bytes(200)


def archive(*members: tuple[bytes, bytes]) -> bytes:
    content = b"!<arch>\n"
    for name, body in members:
        header = name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"644".ljust(8)
        content += header + str(len(body)).encode().ljust(10) + b"`\n" + body
        content += b"\n" * (len(body) % 2)
    return content


def tree(folder: Path) -> Path:
    files = {
        "tensorrt_llm/version.py": '# text\n__version__ = "0.16.0"\n',
        "setup.py": "setup(name='tensorrt_llm', version='0.1.0')\n",
        ".gitattributes": "*.a filter=lfs diff=lfs merge=lfs -text\n*.so filter=lfs -text\n*.md text\n",
        "examples/gpt/requirements.txt": "--extra-index-url https://x\ntensorrt_llm==0.16.0\nevaluate\n",
        "examples/llama/requirements.txt": "tensorrt_llm>=0.15.0.dev0  # more\n",
        "examples/mamba/requirements.txt": "transformers\n",
        f"{BATCH}/x86_64-linux-gnu/libb.a": POINTER.format("9" * 64),
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    library = folder / f"{BATCH}/aarch64-linux-gnu/libb.a"
    library.parent.mkdir(parents=True)
    library.write_bytes(archive((b"/", b"symbols"), (b"//", b"names"), (b"a.o/", object_file(183))))
    return folder


def run(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=me", "-c", "user.email=me@x", "-c", "protocol.file.allow=always"]
    done = subprocess.run(
        ["git", *who, "-c", "init.defaultBranch=main", *words],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder)},
    )
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    run(folder, "init", "-q")
    (folder / "a").write_text("a")
    run(folder, "add", "-A")
    run(folder, "commit", "-qm", "one")
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one submodule, as a recursive clone leaves it."""
    upstream = repository(tmp_path / "cutlass")
    folder = tree(tmp_path / "TensorRT-LLM")
    run(folder, "init", "-q")
    run(folder, "submodule", "--quiet", "add", str(upstream), "3rdparty/cutlass")
    run(folder, "add", "-A")
    run(folder, "commit", "-qm", "release")
    return folder


def test_tree_without_git(tmp_path: Path) -> None:
    found = source.look(tree(tmp_path))
    assert found.version == "0.16.0"
    assert found.version_where == f"{tmp_path}/tensorrt_llm/version.py"
    assert (found.commit, found.tags, found.submodules) == (None, (), ())
    assert found.missing == (
        source.MissingObject(f"{BATCH}/x86_64-linux-gnu/libb.a", "9" * 64, 1612458),
    )
    assert [(one.path, one.machine) for one in found.libraries] == [
        (f"{BATCH}/aarch64-linux-gnu/libb.a", "aarch64")
    ]
    assert [pin.requirement for pin in found.pins] == ["==0.16.0", ">=0.15.0.dev0"]
    assert found.observations == (
        Observation("tensorrt_llm", "0.16.0", found.version_where, "version.py"),
        Observation("commit", None, str(tmp_path), "git"),
        *(
            Observation("requires:tensorrt_llm", pin.requirement, pin.path, "requirements")
            for pin in found.pins
        ),
    )


def test_version_of_old_releases(tmp_path: Path) -> None:
    (tmp_path / "setup.py").write_text(
        "setup(\n    name='tensorrt_llm',\n    version='0.5.0',\n)\n"
    )
    found = source.look(tmp_path)
    assert (found.version, found.version_where) == ("0.5.0", f"{tmp_path}/setup.py")
    (tmp_path / "tensorrt_llm").mkdir()
    (tmp_path / "tensorrt_llm/__init__.py").write_text("__version__ = '0.5.1'\n")
    assert source.look(tmp_path).version == "0.5.1"
    (tmp_path / "tensorrt_llm/version.py").write_text("__version__ = compute()\n")
    (tmp_path / "tensorrt_llm/__init__.py").unlink()
    (tmp_path / "setup.py").unlink()
    found = source.look(tmp_path)
    assert (found.version, found.version_where) == (None, f"{tmp_path}/tensorrt_llm/version.py")


def test_examples_alone_are_enough(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/requirements.txt").write_text("tensorrt-llm == 0.20.0\n")
    found = source.look(tmp_path)
    assert (found.version, found.pins[0].requirement) == (None, "== 0.20.0")


def test_other_folders_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(KitError) as caught:
            source.look(folder)
        assert caught.value.exit_code == ExitCode.USAGE


@needs_git
@pytest.mark.parametrize("version", ["2", "4"])
def test_checkout(checkout: Path, version: str) -> None:
    run(checkout, "update-index", "--index-version", version)
    commit = run(checkout, "rev-parse", "HEAD")
    recorded = run(checkout / "3rdparty/cutlass", "rev-parse", "HEAD")
    found = source.look(checkout)
    assert found.commit == commit
    [submodule] = found.submodules
    assert (submodule.path, submodule.state) == ("3rdparty/cutlass", "present")
    assert submodule.recorded == submodule.commit == recorded
    assert submodule.is_at_recorded is True
    assert (
        Observation(
            "submodule:3rdparty/cutlass", recorded, f"{checkout}/3rdparty/cutlass", "present"
        )
        in found.observations
    )


@needs_git
def test_submodule_at_another_commit(checkout: Path) -> None:
    place = checkout / "3rdparty/cutlass"
    recorded = run(place, "rev-parse", "HEAD")
    (place / "b").write_text("b")
    run(place, "add", "-A")
    run(place, "commit", "-qm", "two")
    [submodule] = source.look(checkout).submodules
    assert (submodule.recorded, submodule.is_at_recorded) == (recorded, False)
    assert submodule.commit == run(place, "rev-parse", "HEAD")


@needs_git
def test_absent_and_unpacked_submodules(checkout: Path) -> None:
    recorded = run(checkout / "3rdparty/cutlass", "rev-parse", "HEAD")
    for content, state in (({}, "absent"), ({".git": ""}, "absent"), ({"a": "a"}, "unknown"),
                           ({".git": "", "a": "a"}, "unknown")):  # fmt: skip
        shutil.rmtree(checkout / "3rdparty/cutlass")
        (checkout / "3rdparty/cutlass").mkdir()
        for name, text in content.items():
            (checkout / "3rdparty/cutlass" / name).write_text(text)
        [submodule] = source.look(checkout).submodules
        assert (submodule.state, submodule.commit, submodule.is_at_recorded) == (state, None, None)
        assert submodule.recorded == recorded
    shutil.rmtree(checkout / "3rdparty")
    assert source.look(checkout).submodules[0].state == "absent"


@needs_git
@pytest.mark.parametrize("packed", [False, True])
def test_head_and_tags(checkout: Path, packed: bool) -> None:
    first = run(checkout, "rev-parse", "HEAD")
    run(checkout, "tag", "v0.16.0")
    run(checkout, "tag", "-a", "-m", "x", "annotated")
    run(checkout, "commit", "-q", "--allow-empty", "-m", "next")
    run(checkout, "tag", "later")
    if packed:
        run(checkout, "pack-refs", "--all")
    later = run(checkout, "rev-parse", "HEAD")
    assert source.look(checkout).tags == ("later",)
    run(checkout, "checkout", "-q", "--detach", "v0.16.0")
    found = source.look(checkout)
    assert (found.commit, found.tags) == (first, ("annotated", "v0.16.0"))
    run(checkout, "worktree", "add", "-q", str(checkout.parent / "wt"), "later")
    worktree = source.look(checkout.parent / "wt")
    assert (worktree.commit, worktree.tags) == (later, ("later",))
    assert worktree.submodules[0].state == "absent"
    assert worktree.submodules[0].recorded is not None


@needs_git
def test_index_with_extended_entries(checkout: Path) -> None:
    (checkout / "new").write_text("x")
    run(checkout, "add", "--intent-to-add", "new")
    recorded = run(checkout / "3rdparty/cutlass", "rev-parse", "HEAD")
    assert source.look(checkout).submodules[0].recorded == recorded


@needs_git
def test_repository_of_sha256(tmp_path: Path) -> None:
    run(tmp_path, "init", "-q", "--object-format=sha256")
    tree(tmp_path)
    run(tmp_path, "add", "-A")
    run(tmp_path, "commit", "-qm", "x")
    found = source.look(tmp_path)
    assert found.commit == run(tmp_path, "rev-parse", "HEAD")
    assert len(found.commit or "") == 64
    repository = git.repository(tmp_path)
    assert repository is not None
    assert git.submodules(repository) == {}


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("https://github.com/NVIDIA/cutlass.git", "public", None),
        ("https://me:token@github.com/x.git", "public", "https://github.com/x.git"),
        ("git@github.com:NVIDIA/cutlass.git", "ssh", None),
        (
            "ssh://git@gitlab-master.nvidia.com:12051/x.git",
            "ssh",
            "ssh://gitlab-master.nvidia.com:12051/x.git",
        ),
        ("https://gitlab-master.nvidia.com/x/y.git", "internal", None),
        ("http://10.1.2.3/x.git", "internal", None),
        ("http://build/x.git", "internal", None),
        ("/srv/git/x.git", "internal", None),
        ("../cutlass.git", "relative", None),
    ],
)
def test_urls_of_submodules(tmp_path: Path, url: str, kind: str, shown: str | None) -> None:
    tree(tmp_path)
    (tmp_path / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = 3rdparty/x\n\turl = {url}\n')
    [submodule] = source.look(tmp_path).submodules
    assert (submodule.url_kind, submodule.url) == (kind, shown or url)


def test_hostile_trees(tmp_path: Path) -> None:
    tree(tmp_path)
    settings = tmp_path / ".gitmodules"
    for path in ("../../etc", "/etc", "a/../../b"):
        settings.write_text(f'[submodule "x"]\npath = {path}\nurl = x\n')
        with pytest.raises(KitError, match="outside its folder") as caught:
            source.look(tmp_path)
        assert caught.value.exit_code == ExitCode.CONTENT
    settings.write_text('[submodule "x"]\npath = link\nurl = x\n')
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(KitError, match="a link stands there"):
        source.look(tmp_path)
    settings.write_text("x" * (2 << 20))
    with pytest.raises(KitError, match="expected at most"):
        source.look(tmp_path)
    settings.unlink()
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "examples/gpt/pipe.a").symlink_to("/dev/zero")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text("ref: refs/../../../etc/passwd\n")
    assert source.look(tmp_path).commit is None
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/a")
    (tmp_path / ".git/refs/heads").mkdir(parents=True)
    (tmp_path / ".git/refs/heads/a").write_text("ref: refs/heads/a")
    assert source.look(tmp_path).commit is None


@needs_git
def test_damaged_index_is_never_a_traceback(checkout: Path) -> None:
    dice = random.Random(5)
    index = checkout / ".git" / "index"
    for version in ("2", "4"):
        run(checkout, "update-index", "--index-version", version)
        whole = index.read_bytes()
        contents = [whole[:length] for length in range(0, len(whole), 10)]
        for _ in range(300):
            content = bytearray(whole)
            for _ in range(dice.randrange(1, 4)):
                content[dice.randrange(len(content))] = dice.randrange(256)
            contents.append(bytes(content))
        for content in contents:
            index.write_bytes(content)
            try:
                source.look(checkout)
            except KitError as error:
                assert error.exit_code == ExitCode.CONTENT  # noqa: PT017
        index.write_bytes(whole)


@pytest.mark.parametrize(
    ("content", "machine"),
    [
        (object_file(X86_64), "x86_64"),
        (object_file(AARCH64), "aarch64"),
        (object_file(21, big=True), "ppc64"),
        (object_file(9999), "ELF machine 9999"),
        (archive((b"/SYM64/", b"x" * 7), (b"a.o/", object_file(X86_64))), "x86_64"),
        (archive((b"a.o/", b"BC\xc0\xde" + bytes(40))), None),
        (archive(), None),
        (b"!<thin>\n", None),
        (b"!<arch>\n" + b"x" * 100, None),
        (object_file(X86_64)[:12], None),
        (b"", None),
    ],
)
def test_machine_of_a_library(tmp_path: Path, content: bytes, machine: str | None) -> None:
    path = tmp_path / "lib.a"
    path.write_bytes(content)
    assert elf.machine(path) == machine


def test_archive_without_an_object_ends(tmp_path: Path) -> None:
    path = tmp_path / "lib.a"
    path.write_bytes(archive(*[(b"/", b"")] * 100, (b"a.o/", object_file(X86_64))))
    assert elf.machine(path) is None


@pytest.mark.parametrize("name", ["feature/a#b", "fix-a,b=c", "über/x", "a(b)"])
def test_branches_of_all_names(tmp_path: Path, name: str) -> None:
    tree(tmp_path)
    branch = tmp_path / ".git" / "refs" / "heads" / name
    branch.parent.mkdir(parents=True)
    branch.write_text("a" * 40 + "\n")
    (tmp_path / ".git" / "HEAD").write_text(f"ref: refs/heads/{name}\n")
    assert source.look(tmp_path).commit == "a" * 40


@pytest.mark.parametrize("target", ["a\0b", "n" * 300, "/dev/zero", "."])
def test_git_data_in_impossible_places(tmp_path: Path, target: str) -> None:
    tree(tmp_path)
    (tmp_path / ".git").write_text(f"gitdir: {target}\n")
    assert source.look(tmp_path).commit is None
    (tmp_path / ".git").unlink()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("a" * 40)
    (tmp_path / ".git" / "commondir").write_text(target)
    found = source.look(tmp_path)
    assert (found.commit, found.tags) == ("a" * 40, ())


def test_submodule_at_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    (tree(tmp_path) / ".gitmodules").write_text(f'[submodule "a"]\npath = {"n" * 300}\n')
    with pytest.raises(KitError, match="too long") as caught:
        source.look(tmp_path)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_passwords_in_short_addresses_are_left_out(tmp_path: Path) -> None:
    settings = '[submodule "a"]\npath = a\nurl = me:secret@host:x.git\n'
    (tree(tmp_path) / ".gitmodules").write_text(settings)
    assert [one.url for one in source.look(tmp_path).submodules] == ["host:x.git"]


def test_a_file_that_has_gone_since_it_was_listed(tmp_path: Path) -> None:
    seen = source._Seen([], [], [])
    source._see(tmp_path, "gone.a", seen)
    assert (seen.missing, seen.libraries) == ([], [])
