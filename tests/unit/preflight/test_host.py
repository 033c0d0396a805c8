import json
from dataclasses import replace
from pathlib import Path

import pytest

from kit.data import releases
from kit.digest import Digest
from kit.errors import environment_error
from kit.host import engines, system
from kit.host.facts import Memory
from kit.locks.lock import Input
from kit.preflight import host, needs

GIB = 1 << 30


class Engine:
    """What the checks ask of an engine."""

    name = "podman"

    def __init__(self, problem=None):
        self.problem = problem

    def version(self):
        if self.problem:
            raise environment_error(self.problem, hint="podman info")
        return "4.3.1"


@pytest.fixture
def storage(monkeypatch, tmp_path):
    """An engine whose storage is where the test says."""

    def at(folder, driver="overlay", builder="buildah 1"):
        facts, _ = engines.parse_podman(
            {"host": {"security": {}, "ociRuntime": {}}, "store": {}, "version": {}}
        )
        facts = replace(facts, storage=driver, builder=builder)
        monkeypatch.setattr(engines, "podman", lambda: (facts, folder, None))

    return at


def blob(size, kind="oci"):
    digest = Digest.of_bytes(f"{size}{kind}".encode())
    return Input(kind, "base", "x", "", "x", "oci:nvcr.io/x/y", digest, size)


def states(project, intent, lock, engine, jobs=1):
    return {one.name: one for one in host.check(project, intent, lock, engine, jobs)}


def test_room_for_what_is_missing(project, intent_of, lock_of):
    intent = intent_of()
    assert host.kit_disk(project, lock_of(intent, blob(1000))).state == "ok"
    only = host.kit_disk(project, lock_of(intent, blob(1 << 60)))
    assert only.state == "failed"
    assert "KIT_HOME" in only.remedy


def test_the_base_image_has_to_fit(project, intent_of, lock_of, storage, tmp_path):
    storage(tmp_path / "graph")
    intent = intent_of(release="0.16.0")
    found = states(project, intent, lock_of(intent, blob(1 << 60)), Engine())
    assert found["engine disk"].state == "failed"
    assert "the disk of the kit too" in found["engine disk"].detail, "one disk for both"
    found = states(project, intent, lock_of(intent, blob(10)), Engine())
    assert found["engine disk"].state in ("ok", "warning")
    assert "upstream documents 63.0 GB" in found["engine disk"].detail
    intent = intent_of(release="0.5.0")
    found = states(project, intent, lock_of(intent, blob(10)), Engine())
    assert found["engine disk"].state == "unknown"
    assert "documents no disk space" in found["engine disk"].detail


def test_two_disks_are_told_apart(project, intent_of, lock_of, storage):
    storage(Path("/dev/shm"))
    found = states(project, intent_of(), lock_of(intent_of(), blob(10)), Engine())
    assert "the disk of the kit too" not in found["engine disk"].detail


def test_engines_that_are_not_able(project, intent_of, lock_of, storage, tmp_path):
    intent, lock = intent_of(), lock_of(intent_of())
    assert states(project, intent, lock, None)["engine"].state == "unknown"
    assert states(project, intent, lock, Engine("it is gone"))["engine"].state == "failed"
    storage(tmp_path, driver="vfs")
    assert states(project, intent, lock, Engine())["engine"].state == "warning"
    storage(tmp_path, builder=None)
    assert states(project, intent, lock, Engine())["engine"].state == "failed"
    storage(None)
    found = states(project, intent, lock, Engine())
    assert (found["engine"].state, found["engine disk"].state) == ("ok", "unknown")


@pytest.mark.parametrize(
    ("jobs", "limit", "state", "fitting"),
    [(4, None, "ok", None), (8, None, "warning", 5), (1, 2 * GIB, "warning", 1)],
)
def test_memory_for_the_compilers(
    monkeypatch, intent_of, lock_of, project, jobs, limit, state, fitting
):
    monkeypatch.setattr(
        system, "memory", lambda: Memory(32 * GIB, 22 * GIB, 0, limit, cgroup_version=2)
    )
    intent = intent_of(release="0.16.0")
    only = states(project, intent, lock_of(intent), None, jobs)["memory"]
    assert only.state == state
    assert fitting is None or f"--jobs {fitting}," in only.remedy


def test_no_compilers_no_memory(project, intent_of, lock_of):
    assert "memory" not in states(project, intent_of(), lock_of(intent_of()), None)


def test_every_release_has_a_row_with_a_source_or_a_reason():
    for release in releases.versions():
        for need in (needs.disk(release), needs.memory_per_job(release)):
            assert (need.bytes is None) == (need.source is None) == (need.hole is not None)
    assert needs.disk("9.9.9").hole
    assert json.loads(needs.TABLE.read_text())["schema"] == "kit.needs/1"
