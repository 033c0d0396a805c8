"""The generated stacks: what is committed is what the tables say, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kit.data import digests, releases, sources, triton
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks import intent as intents
from kit.locks import lock as locks
from kit.stacks import documents, is_generated, partial, trtllm, writing
from kit.stacks import triton as containers
from kit.stacks.__main__ import main
from kit.stacks.stack import Stack
from kit.stacks.trtllm import SMALL_MODEL

if TYPE_CHECKING:
    from kit.locks.intent import Intent

FOLDER = Path(__file__).parents[3] / "lockfiles"
DOCUMENTS = documents()
RELEASES = trtllm.releases()
STACKS = sorted(name.removesuffix(".yaml") for name in DOCUMENTS if ".lock." not in name)


def intent_of(stack: str) -> Intent:
    return intents.load(FOLDER / f"{stack}.yaml")


def test_committed_is_generated() -> None:
    committed = {path.name for path in FOLDER.glob("*.yaml") if is_generated(path.name)}

    assert committed == set(DOCUMENTS)
    for name, text in DOCUMENTS.items():
        assert (FOLDER / name).read_text() == text, name


def test_a_stack_of_every_stable_release_and_of_every_known_container() -> None:
    known = [name for name in triton.containers() if name not in containers.left_out()]

    assert [name for name in STACKS if name.startswith("trtllm-")] == sorted(
        f"trtllm-{release}" for release in releases.versions()
    )
    assert [name for name in STACKS if name.startswith("triton-")] == sorted(
        f"triton-{month}" for month in known
    )
    assert set(containers.left_out()) == {"23.11", "24.03", "25.11"}


def test_the_same_bytes_each_time() -> None:
    assert documents() == DOCUMENTS


@pytest.mark.parametrize("stack", STACKS)
def test_what_is_read_is_what_was_meant(stack: str) -> None:
    name = stack.partition("-")[2]
    meant = trtllm.stack(name) if stack.startswith("trtllm") else containers.stack(name)

    assert intent_of(stack) == meant.intent


@pytest.mark.parametrize("stack", STACKS)
def test_a_lock_belongs_to_its_intent_and_is_not_whole(stack: str) -> None:
    intent = intent_of(stack)
    lock = locks.load(FOLDER / f"{stack}.lock.yaml")

    assert lock.intent == intent.digest
    assert lock.arguments == intent.arguments
    with pytest.raises(KitError) as caught:
        lock.require_resolved()
    assert caught.value.exit_code is ExitCode.CONTENT


@pytest.mark.parametrize("stack", STACKS)
def test_every_input_that_is_asked_for_is_locked_or_says_why_not(stack: str) -> None:
    intent = intent_of(stack)
    lock = locks.load(FOLDER / f"{stack}.lock.yaml")
    told = {(item.kind, item.group, item.name) for item in (*lock.inputs, *lock.unresolved)}

    assert {("oci", image.name, image.reference.partition("@")[0].rpartition(":")[0])
            for image in intent.images} <= told  # fmt: skip
    assert {("git", tree.name, ".") for tree in intent.sources} <= told
    assert {("lfs", tree.name, path) for tree in intent.sources for path in tree.lfs} <= told
    assert {("file", file.group, file.name) for file in intent.files} <= told
    assert {("file", gap.group, gap.name) for gap in intent.gaps} <= told
    for group in intent.apt.groups if intent.apt else ():
        assert {("deb", group.name, text.partition("=")[0]) for text in group.packages} <= told
    for wanted in intent.requirements.groups if intent.requirements else ():
        names = {name for kind, group, name in told if group == wanted.name}
        texts = (*wanted.packages, *wanted.files, *wanted.archives)
        assert {text.partition("==")[0] for text in texts} <= names
    assert all(gap.reason for gap in lock.unresolved)


@pytest.mark.parametrize("release", RELEASES)
def test_pins_are_those_of_the_tables(release: str) -> None:
    intent = intent_of(f"trtllm-{release}")
    arguments = dict(intent.arguments)
    base = releases.value(release, "base_image")

    assert intent.images[0].reference.startswith(f"{base['image']}:{base['tag']}")
    assert arguments["BASE_TAG"] == base["tag"]
    for name, field in {
        "TENSORRT_VERSION": "tensorrt",
        "CUDA_VERSION": "cuda",
        "CMAKE_VERSION": "cmake",
        "POLYGRAPHY_VERSION": "polygraphy",
    }.items():
        assert arguments.get(name) == releases.value(release, field), name
    assert arguments["GIT_COMMIT"] == intent.sources[0].commit == sources.commit(release)
    assert intent.apt is not None
    packages = dict(text.split("=") for text in intent.apt.groups[0].packages if "=" in text)
    pinned = {"cudnn": "CUDNN", "nccl": "NCCL", "cublas": "CUBLAS", "nvrtc": "NVRTC"}
    for package, field in sources.value(release, "cuda_packages").items():
        if field is None:
            assert package not in packages
        else:
            expected = releases.value(release, field)
            assert packages.pop(package) == arguments[f"{pinned[field]}_VERSION"] == expected
    assert not packages, "a version that no table has"


@pytest.mark.parametrize("release", RELEASES)
def test_python_packages_are_pinned_where_the_release_pins_them(release: str) -> None:
    intent = intent_of(f"trtllm-{release}")
    assert intent.requirements is not None
    devel, wheel, last = intent.requirements.groups
    mpi4py = releases.value(release, "mpi4py")["version"]

    assert f"polygraphy=={releases.value(release, 'polygraphy')}" in devel.packages
    assert (f"mpi4py=={mpi4py}" if mpi4py else "mpi4py") in devel.packages
    assert dict(intent.arguments).get("MPI4PY_VERSION") == mpi4py
    old = release in ("0.5.0", "0.6.0", "0.6.1")
    assert wheel.files == (f"trtllm/requirements{'' if old else '-dev'}.txt",)
    assert last.files[0] == "trtllm/requirements.txt"


@pytest.mark.parametrize("release", RELEASES)
def test_objects_of_git_lfs_are_locked_by_their_own_name(release: str) -> None:
    lock = locks.load(FOLDER / f"trtllm-{release}.lock.yaml")
    rows = sources.value(release, "lfs") or []

    found = {item.name: (item.sha256.hex, item.size) for item in lock.select(kind="lfs")}
    assert found == {row["path"]: (row["oid"], row["size"]) for row in rows}


def test_offline_options_of_the_wheel_build() -> None:
    arguments = {
        release: dict(intent_of(f"trtllm-{release}").arguments)["BUILD_WHEEL_ARGS"]
        for release in RELEASES
    }

    for release, text in arguments.items():
        assert "--trt_root /usr/local/tensorrt" in text
        assert "-D BUILD_TESTS=OFF" in text
        assert ("ENABLE_UCX=0" in text) is (not releases.between(release, None, "0.15.0"))
        # Given where the release's own build_wheel.py has it.
        assert "--no-venv" not in text
        assert ("--python_bindings" in text) is releases.between(release, "0.8.0", "0.21.0")


def test_architectures_only_where_they_are_known() -> None:
    assert dict(intent_of("trtllm-0.16.0").arguments)["CUDA_ARCHS"] == (
        "80-real;86-real;89-real;90-real"
    )
    assert "CUDA_ARCHS" not in dict(intent_of("trtllm-0.17.0").arguments)


def test_indexes_are_those_that_the_release_names() -> None:
    def indexes(release: str) -> tuple[str, ...]:
        requirements = intent_of(f"trtllm-{release}").requirements
        assert requirements is not None
        return requirements.indexes

    assert indexes("0.5.0") == ("https://pypi.ngc.nvidia.com",)
    assert "https://download.pytorch.org/whl/cu121" in indexes("0.7.1")
    assert indexes("0.11.0") == ("https://pypi.nvidia.com",)
    assert indexes("0.16.0") == ()


def test_a_commit_that_is_disputed_is_said_to_be() -> None:
    text = DOCUMENTS["trtllm-0.17.0.yaml"]
    lock = locks.load(FOLDER / "trtllm-0.17.0.lock.yaml")
    tree = next(gap for gap in lock.unresolved if gap.kind == "git" and gap.name == ".")

    for commit in ("71213f726620", "b7e277d10439", "350625cc1c07"):
        assert commit in text
        assert commit in tree.reason
    assert "disputed" not in DOCUMENTS["trtllm-0.16.0.lock.yaml"]
    assert "disputed" in DOCUMENTS["triton-25.08.lock.yaml"]


def test_what_cannot_be_named_is_a_gap() -> None:
    gaps = {gap.name for gap in intent_of("trtllm-1.2.1").gaps}
    trees = {tree.name for tree in intent_of("trtllm-1.2.1").sources}

    assert gaps == {"conan-packages", "cmake", "ucx", "nixl", "etcd", "deepgemm"}
    assert {"cutlass", "xgrammar", "nanobind", "deep_ep", "flashmla", "eigen", "json"} <= trees
    assert not gaps & trees
    assert not intent_of("trtllm-0.16.0").gaps


def test_templates_of_the_model_repository() -> None:
    old, new = intent_of("triton-24.12"), intent_of("triton-25.06")

    assert [tree.name for tree in old.sources] == ["tensorrtllm_backend"]
    assert [tree.name for tree in new.sources] == ["trtllm"]
    assert dict(new.arguments)["TEMPLATES"] == "trtllm/triton_backend/all_models"
    assert dict(old.arguments)["TRITON_VERSION"] == "2.53.0"
    assert intent_of("triton-25.02").sources[0].commit == "dc357949593b89426d5a9663f67bfeee547cd32f"
    assert "@sha256:b097871d05da" in intent_of("triton-26.07").images[0].reference


def test_a_gap_has_the_group_whose_files_a_script_reads() -> None:
    """Whoever fills it puts a file there, or says that it is not wanted."""
    folder = FOLDER.parent / "dockerfiles" / "trtllm" / "install"
    scripts = {path.stem: path.read_text() for path in folder.glob("*.sh")}
    for release in RELEASES:
        for gap in intent_of(f"trtllm-{release}").gaps:
            if gap.name == "conan-packages":
                assert f'"$inputs"/{gap.group}/*.tgz' in scripts["wheel"]
            elif gap.name == "cmake":
                assert gap.group == "devel"
                assert '"$devel"/cmake-' in scripts["devel"]
            else:
                assert "source named" in gap.reason or "take this gap out" in gap.reason


def test_a_container_is_not_held_against_what_is_disputed() -> None:
    rc, odd, plain = (
        dict(intent_of(f"triton-{name}").arguments) for name in ("26.03", "24.05", "26.04")
    )

    assert (rc["RELEASE"], rc["RELEASE_CANDIDATE"]) == ("1.2.0", "1.2.0rc8")
    assert "TENSORRT_VERSION" not in odd
    assert "10.0.1.6, the release" in " ".join(DOCUMENTS["triton-24.05.yaml"].split("\n# "))
    assert "RELEASE_CANDIDATE" not in plain
    assert plain["TENSORRT_VERSION"] == "10.14.1.48"


def test_no_digest_is_invented() -> None:
    """Every digest stands in a table or is that of a file here; an intent's is computed."""
    tables = sources.TABLE.read_text() + digests.TABLE.read_text()
    known = set(re.findall(r"\b[0-9a-f]{64}\b", tables))
    model = FOLDER.parent / str(SMALL_MODEL.directory)
    known |= {Digest.of_file(path).hex for path in model.rglob("*") if path.is_file()}
    for name, text in DOCUMENTS.items():
        told = re.sub(r"^intent: .*$", "", text, flags=re.MULTILINE)
        assert set(re.findall(r"\b[0-9a-f]{64}\b", told)) <= known, name


def test_no_commit_is_invented() -> None:
    paths = (sources.TABLE, releases.TABLE, triton.TABLE)
    known = set(re.findall(r"\b[0-9a-f]{40}\b", "".join(path.read_text() for path in paths)))
    for name, text in DOCUMENTS.items():
        found = set(re.findall(r"(?:commit|version|COMMIT): \"([0-9a-f]{40})\"", text))
        assert found <= known, name
        assert found


def test_seconds_of_the_commit_or_of_the_upload() -> None:
    assert intent_of("trtllm-0.16.0").epoch == 1735027123
    assert intent_of("trtllm-1.2.1").epoch == 1776643200
    assert "2024-12-24T15:58:43+08:00" in DOCUMENTS["trtllm-0.16.0.yaml"]
    assert "day of the upload to PyPI, 2026-04-20" in DOCUMENTS["trtllm-1.2.1.yaml"]


def test_words_that_yaml_reads_as_something_else_are_quoted(tmp_path: Path) -> None:
    stack = trtllm.stack("0.16.0")
    odd = (("A", "1.20"), ("B", "no"), ("C", " x"), ("D", "a: b"), ("E", "0x1f"), ("F", "é # \\"))
    changed = writing.text(Stack(replace(stack.intent, arguments=odd), stack.remarks))
    (path := tmp_path / "trtllm-0.16.0.yaml").write_text(changed)

    assert intents.load(path).arguments == odd


@pytest.fixture
def written(tmp_path: Path) -> Path:
    assert main(["--folder", str(tmp_path)]) == 0
    return tmp_path


def test_check_is_clean_after_writing(written: Path) -> None:
    assert main(["--check", "--folder", str(written)]) == 0


def test_writing_again_writes_nothing(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.iterdir()}
    capsys.readouterr()

    main(["--folder", str(written)])

    assert {path: path.stat().st_mtime_ns for path in written.iterdir()} == before
    assert "0 of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("trtllm-0.16.0.yaml", "10.7.0.23", "10.7.0.24"),
        ("trtllm-0.5.0.yaml", "# The time", "# the time"),
        ("trtllm-0.9.0.lock.yaml", "size: 2797006", "size: 2797007"),
        ("triton-24.12.yaml", "submodules: false", "submodules: true"),
    ],
)
def test_check_finds_a_change(
    written: Path, name: str, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (written / name).read_text()
    assert old in text
    (written / name).write_text(text.replace(old, new))
    capsys.readouterr()

    with pytest.raises(KitError, match="1 of") as caught:
        main(["--check", "--folder", str(written)])

    assert caught.value.exit_code is ExitCode.CONTENT
    assert f"{name}: differs" in capsys.readouterr().out


def test_check_finds_what_is_missing(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (written / "trtllm-0.16.0.lock.yaml").unlink()

    with pytest.raises(KitError):
        main(["--check", "--folder", str(written)])

    assert "trtllm-0.16.0.lock.yaml: is missing" in capsys.readouterr().out


def test_a_stack_that_no_table_has_is_told_and_left(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = written / "trtllm-9.9.9.yaml"
    stranger.write_text("mine\n")

    assert main(["--check", "--folder", str(written)]) == 0

    assert "trtllm-9.9.9.yaml: no table has that stack" in capsys.readouterr().err
    assert stranger.read_text() == "mine\n"


def test_a_whole_lock_of_the_same_intent_is_kept(written: Path) -> None:
    """It was made where upstream could be reached: tables have nothing to say against it."""
    path = written / "trtllm-0.16.0.lock.yaml"
    intent = intents.load(written / "trtllm-0.16.0.yaml")
    whole = locks.Lock(intent.stack, intent.digest, partial.lock(intent).inputs, intent.arguments)
    path.write_text(whole.text())

    assert main(["--check", "--folder", str(written)]) == 0
    main(["--folder", str(written)])
    assert locks.load(path) == whole

    other = locks.Lock(intent.stack, Digest("0" * 64), (), intent.arguments)
    path.write_text(other.text())
    with pytest.raises(KitError):
        main(["--check", "--folder", str(written)])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="no such folder") as caught:
        main(["--folder", str(tmp_path / "nowhere")])

    assert caught.value.exit_code is ExitCode.USAGE
