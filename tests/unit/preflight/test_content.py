import pytest

from kit.data import releases, sources
from kit.digest import Digest
from kit.locks.intent import ImageReference
from kit.locks.lock import Input, Unresolved
from kit.preflight import content
from kit.store import Store
from tests.unit.preflight.conftest import git, lfs, source

RELEASE = "0.16.0"
COMMIT = releases.value(RELEASE, "commit")
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 12345\n"
)


@pytest.fixture
def whole(intent_of, lock_of):
    """An intent of a release, and the inputs of a lock that is right."""
    rows = sources.value(RELEASE, "lfs")
    wanted = [row for row in rows if "x86_64" in row["path"] and "pre_cxx11" not in row["path"]]
    intent = intent_of(
        release=RELEASE,
        sources=(source(commit=COMMIT, lfs=tuple(row["path"] for row in wanted)),),
    )
    inputs = [git(".", COMMIT)]
    inputs += [git(row["path"], row["commit"]) for row in releases.value(RELEASE, "submodules")]
    inputs += [lfs(row["path"], row["oid"], row["size"]) for row in wanted]
    return intent, inputs


def found(project, intent, lock, name):
    return [one for one in content.check(project, intent, lock) if one.name == name]


def test_a_release_as_the_tables_know_it(project, whole, lock_of):
    intent, inputs = whole
    lock = lock_of(intent, *inputs)
    states = {one.name: one.state for one in content.check(project, intent, lock)}
    assert states == {
        "lock": "ok",
        "platform": "ok",
        "inputs": "warning",
        "sources": "ok",
        "submodules": "ok",
        "git lfs": "ok",
    }


def test_every_input_that_is_left_out_is_found(project, whole, lock_of):
    intent, inputs = whole
    for left in inputs:
        lock = lock_of(intent, *[item for item in inputs if item is not left])
        failed = [one for one in content.check(project, intent, lock) if one.state == "failed"]
        assert len(failed) == 1, left
        assert failed[0].remedy == "kit lock small"


@pytest.mark.parametrize("kind", ["sources", "submodules", "git lfs"])
def test_every_input_that_is_another_is_found(project, whole, lock_of, kind):
    intent, inputs = whole
    wrong = {
        "sources": git(".", "1" * 40),
        "submodules": git("3rdparty/cutlass", "1" * 40),
        "git lfs": lfs(inputs[-1].name, inputs[-1].sha256.hex, 131),
    }[kind]
    others = [item for item in inputs if item.name != wrong.name]
    only = found(project, intent, lock_of(intent, *others, wrong), kind)
    assert [one.state for one in only if one.state != "ok"] == ["failed"]


def test_a_commit_that_no_table_has(project, intent_of, lock_of):
    intent = intent_of(release=RELEASE, sources=(source(lfs=("cpp/**",)),))
    lock = lock_of(intent, git(".", "0" * 40), lfs("cpp/x.a", "ab" * 32, 5000))
    assert {one.state for one in content.check(project, intent, lock)} == {"ok", "warning"}
    lock = lock_of(intent, git(".", "0" * 40))
    assert found(project, intent, lock, "git lfs")[0].state == "failed", "no object at all"


def test_what_no_table_says_is_unknown(project, intent_of, lock_of):
    commit = sources.commit("1.0.0")
    intent = intent_of(release="1.0.0", sources=(source(commit=commit, lfs=("**",)),))
    lock = lock_of(intent, git(".", commit), lfs("x.a", "ab" * 32, 5000))
    for name in ("submodules", "git lfs"):
        (only,) = found(project, intent, lock, name)
        assert only.state == "unknown"
        assert "read" in only.detail


def test_a_pointer_in_place_of_an_object(project, intent_of, lock_of):
    digest = Digest.of_bytes(POINTER)
    with Store(project.store).receive(digest, len(POINTER)) as reception:
        reception.write(POINTER)
        reception.finish()
    intent = intent_of(sources=(source(lfs=("**",)),))
    lock = lock_of(intent, git(".", "0" * 40), lfs("x.a", digest.hex, len(POINTER)))
    (only,) = found(project, intent, lock, "git lfs")
    assert only.state == "failed"
    assert "is a Git LFS pointer itself" in only.detail


def test_a_tree_with_pointers(tmp_path):
    (tmp_path / "cpp/lib").mkdir(parents=True)
    (tmp_path / ".git/lfs").mkdir(parents=True)
    for place in (".git/lfs/x", "cpp/lib/a.a", "cpp/b.lib"):
        (tmp_path / place).write_bytes(POINTER)
    (tmp_path / "cpp/long").write_bytes(POINTER + b"x" * 2000)
    (tmp_path / "cpp/loop").symlink_to("..")
    only = content.check_tree(tmp_path)
    assert only.state == "failed"
    assert only.detail.endswith(": cpp/b.lib, cpp/lib/a.a")
    assert content.check_tree(tmp_path, ["cpp/lib/*"]).detail.endswith(": cpp/lib/a.a")
    assert content.check_tree(tmp_path, ["windows/**"]).state == "ok"


def test_a_lock_that_does_not_pin_everything(project, intent_of, lock_of):
    intent = intent_of(sources=(source(),), images=(ImageReference("base", "nvcr.io/x/y:1"),))
    gap = Unresolved("wheel", "wheel", "build", "", "", "the base image's own pip decides")
    found = list(content.check(project, intent, lock_of(intent, unresolved=(gap,))))
    assert [one.name for one in found if one.state == "failed"] == ["lock"]
    assert "the base image's own pip decides" in found[0].detail
    assert found[0].remedy.startswith("kit lock small")


def test_a_lock_of_another_intent(project, intent_of, lock_of):
    lock = lock_of(intent_of(release="0.15.0"))
    assert next(content.check_lock(intent_of(release=RELEASE), lock)).state == "failed"


def test_the_platform_of_this_host(project, intent_of, lock_of, monkeypatch):
    intent = intent_of()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    (only,) = found(project, intent, lock_of(intent), "platform")
    assert (only.state, "linux/arm64" in only.detail) == ("failed", True)


@pytest.mark.parametrize("manifests", [0, 1, 2])
def test_a_base_image_has_one_manifest(project, intent_of, lock_of, manifests):
    def blob(number, *, manifest):
        digest = Digest.of_bytes(b"%d" % number)
        version = str(digest) if manifest else "sha256:" + "f" * 64
        file = f"blobs/sha256/{digest.hex}"
        return Input("oci", "base", "nvcr.io/x/y", version, file, "oci:nvcr.io/x/y", digest, 9)

    intent = intent_of(images=(ImageReference("base", "nvcr.io/x/y:1"),))
    blobs = [blob(number, manifest=number < manifests) for number in range(4)]
    (only,) = found(project, intent, lock_of(intent, *blobs), "base image")
    assert only.state == ("ok" if manifests == 1 else "failed")
