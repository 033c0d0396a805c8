from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.compat import facts
from kit.compat.facts import REAL, REHEARSAL, EngineFacts, Facts, ImageFacts, of_engine
from kit.compat.rules import RULES
from kit.compat.verdict import Verdict, verify
from kit.data import releases
from kit.errors import ExitCode, KitError
from kit.files import write_json
from kit.images.build import built
from kit.images.oci import Layout
from kit.locks import lock as locks
from tests.unit.examples.local import ROOT, Site

if TYPE_CHECKING:
    from pathlib import Path

    from kit.project import Project

PLAN_HEAD = b"ftrt" + bytes(4) + bytes(16) + bytes([10, 7, 0, 23])


def rehearsal_head(release: str, rank: int, world_size: int) -> bytes:
    content = json.dumps({"release": release, "rank": rank, "world_size": world_size}).encode()
    return b"KIT-REHEARSAL\0\0\0" + struct.pack("<II", 1, len(content)) + content


def engine(
    folder: Path,
    *,
    version: str | None,
    world: tuple[int, int] = (1, 1),
    heads: list[bytes] | None = None,
) -> Path:
    """An engine directory of a release, with the given heads or as many plans as ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    if version is None:
        config: dict[str, Any] = {
            "builder_config": {"tensor_parallel": world[0], "pipeline_parallel": world[1]},
            "plugin_config": {},
        }
        names = "gpt_float16_tp2_rank{}.engine"
    else:
        mapping = {"tp_size": world[0], "pp_size": world[1]}
        config = {"version": version, "pretrained_config": {"mapping": mapping}, "build_config": {}}
        names = "rank{}.engine"
    (folder / "config.json").write_text(json.dumps(config))
    for rank, head in enumerate(heads if heads is not None else [PLAN_HEAD] * world[0] * world[1]):
        (folder / names.format(rank)).write_bytes(head + bytes(64))
    return folder


def image(**changes: Any) -> ImageFacts:
    content: dict[str, Any] = {
        "stack": "trtllm-0.16.0",
        "manifest_digest": f"sha256:{'a' * 64}",
        "lock": f"sha256:{'b' * 64}",
        "releases": ("0.16.0",),
        "backend": REAL,
        "tensorrt": "10.7.0",
    }
    return ImageFacts(**{**content, **changes})


def judge(**known: Any) -> Verdict:
    return Verdict(tuple(finding for rule in RULES for finding in rule.check(Facts(**known))))


def failing(verdict: Verdict) -> list[tuple[str, str]]:
    return [(f.rule, f.status) for f in verdict.findings if f.status != "ok"]


# --- engines ---------------------------------------------------------------------------------


def test_whole_engine_fits_its_release(tmp_path: Path) -> None:
    found = of_engine(engine(tmp_path, version="0.16.0", world=(2, 2)))
    assert (found.layout, found.release, found.world_size) == ("version", "0.16.0", 4)
    assert found.backend == REAL
    verdict = judge(release="0.16.0", engine=found, image=image())
    assert verdict.answer == "compatible", verdict.table()
    assert verdict.exit_code(strict=True) == ExitCode.OK


def test_wrong_release_is_named(tmp_path: Path) -> None:
    found = of_engine(engine(tmp_path, version="0.9.0"))
    verdict = judge(release="0.16.0", engine=found)
    assert verdict.answer == "incompatible"
    assert verdict.exit_code() == ExitCode.CONTENT
    assert "engine release: expected 0.16.0, found 0.9.0" in verdict.sentence()
    assert str(tmp_path / "config.json") in verdict.sentence()
    assert verdict.findings[0].hint == "kit example list"


@pytest.mark.parametrize("release", releases.versions())
def test_old_layout_is_never_compatible_with_certainty(tmp_path: Path, release: str) -> None:
    found = of_engine(engine(tmp_path, version=None))
    assert found.layout == "builder_config"
    verdict = judge(release=release, engine=found)
    old = releases.versions().index(release) <= releases.versions().index("0.8.0")
    assert verdict.answer == ("unknown" if old else "incompatible")
    assert verdict.exit_code(strict=True) == ExitCode.CONTENT
    assert verdict.exit_code() == (ExitCode.OK if old else ExitCode.CONTENT)


def test_engine_without_a_configuration_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "rank0.engine").write_bytes(PLAN_HEAD)
    found = of_engine(tmp_path)
    assert found.layout == "none"
    assert judge(release="0.16.0", engine=found).answer == "unknown"


@pytest.mark.parametrize("ranks", [[], [0], [0, 2], [1, 2], [0, 1, 2]])
def test_every_rank_has_its_file(tmp_path: Path, ranks: list[int]) -> None:
    folder = engine(tmp_path, version="0.16.0", world=(2, 1), heads=[])
    for rank in ranks:
        (folder / f"rank{rank}.engine").write_bytes(PLAN_HEAD)
    assert ("engine-ranks", "mismatch") in failing(judge(engine=of_engine(folder)))


def test_other_tensorrt_than_the_image_has(tmp_path: Path) -> None:
    found = of_engine(engine(tmp_path, version="0.16.0"))
    verdict = judge(engine=found, image=image(tensorrt="10.6.0"))
    assert failing(verdict) == [("engine-headers", "mismatch")]
    assert "expected TensorRT 10.6.0, found TensorRT 10.7.0.23" in verdict.sentence()
    assert judge(engine=found, image=image(tensorrt=None)).answer == "unknown"


def test_ranks_of_two_builds(tmp_path: Path) -> None:
    other = PLAN_HEAD[:24] + bytes([10, 6, 0, 1])
    found = of_engine(engine(tmp_path, version="0.16.0", world=(2, 1), heads=[PLAN_HEAD, other]))
    assert failing(judge(engine=found)) == [("engine-headers", "mismatch")]


@pytest.mark.parametrize("head", [b"", b"ftr", b"version https://git-lfs.github.com/spec/v1\n"])
def test_no_engine_at_all(tmp_path: Path, head: bytes) -> None:
    folder = engine(tmp_path, version="0.16.0", heads=[])
    (folder / "rank0.engine").write_bytes(head)
    assert failing(judge(engine=of_engine(folder))) == [("engine-headers", "mismatch")]


def test_plan_that_is_cut_short_is_unknown(tmp_path: Path) -> None:
    folder = engine(tmp_path, version="0.16.0", heads=[])
    (folder / "rank0.engine").write_bytes(PLAN_HEAD[:20])
    assert failing(judge(engine=of_engine(folder))) == [("engine-headers", "unknown")]


def test_head_of_a_real_plan(tmp_path: Path) -> None:
    # The first 28 bytes of a plan of TensorRT 8.6.0.12, built on an H200.
    head = bytes.fromhex("66747274000000000100000000000000fc2b1a0b000000000806000c")
    found = of_engine(engine(tmp_path, version="0.5.0", heads=[head]))
    assert (found.headers[0].backend, found.headers[0].version) == (REAL, "8.6.0.12")


@settings(max_examples=200, deadline=None)
@given(head=st.binary(max_size=80), magic=st.sampled_from([b"", b"ftrt", b"KIT-REHEARSAL\0\0\0"]))
def test_any_head_is_read_without_a_crash(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, magic: bytes
) -> None:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "rank0.engine").write_bytes(magic + head)
    verdict = judge(engine=of_engine(folder), release="0.16.0")
    assert verdict.answer in ("unknown", "incompatible")


# --- a rehearsal is never the real thing -----------------------------------------------------


def test_rehearsal_engine_in_a_real_image(tmp_path: Path) -> None:
    heads = [rehearsal_head("0.16.0", 0, 1)]
    found = of_engine(engine(tmp_path, version="0.16.0+rehearsal", heads=heads))
    verdict = judge(release="0.16.0", engine=found, image=image())
    assert failing(verdict) == [("engine-backend", "mismatch")]
    assert "expected TensorRT, found rehearsal" in verdict.sentence()
    assert judge(engine=found, image=image(backend=REHEARSAL)).answer == "compatible"


def test_real_engine_in_a_rehearsal_image(tmp_path: Path) -> None:
    found = of_engine(engine(tmp_path, version="0.16.0"))
    verdict = judge(engine=found, image=image(backend=REHEARSAL, tensorrt=None))
    assert ("engine-backend", "mismatch") in failing(verdict)


def test_label_alone_tells_a_rehearsal(tmp_path: Path) -> None:
    found = of_engine(engine(tmp_path, version="0.16.0+rehearsal"))
    assert found.backend == REHEARSAL
    assert judge(engine=found, image=image()).answer == "incompatible"


def test_header_alone_tells_a_rehearsal(tmp_path: Path) -> None:
    heads = [rehearsal_head("0.5.0", rank, 2) for rank in range(2)]
    found = of_engine(engine(tmp_path, version=None, world=(2, 1), heads=heads))
    assert (found.backend, found.release, found.version.version) == (
        REHEARSAL,
        "0.5.0",
        "0.5.0+rehearsal",
    )
    verdict = judge(release="0.5.0", engine=found)
    assert verdict.answer == "compatible"
    assert "expected TensorRT, found rehearsal" in verdict.sentence()


def test_swapped_rank_files(tmp_path: Path) -> None:
    heads = [rehearsal_head("0.16.0", rank, 2) for rank in (1, 0)]
    found = of_engine(engine(tmp_path, version="0.16.0+rehearsal", world=(2, 1), heads=heads))
    verdict = judge(engine=found)
    assert verdict.answer == "incompatible"
    assert "expected rank 0 of 2, found rank 1 of 2" in verdict.sentence()


def test_rehearsal_engine_without_a_configuration_is_unknown(tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / f"rank{rank}.engine").write_bytes(rehearsal_head("0.16.0", rank, 2))
    found = of_engine(tmp_path)
    verdict = judge(release="0.16.0", engine=found)
    assert verdict.answer == "unknown", verdict.table()
    assert not [f for f in verdict.findings if "None" in f"{f.expected} {f.found}" and f.expected]
    (tmp_path / "rank1.engine").write_bytes(rehearsal_head("0.16.0", 0, 2))
    verdict = judge(release="0.16.0", engine=of_engine(tmp_path))
    assert "expected rank 1, found rank 0 of 2" in verdict.sentence()


def test_header_that_nothing_can_be_held_against_is_unknown(tmp_path: Path) -> None:
    heads = [rehearsal_head("0.16.0", 0, 1)]
    found = of_engine(engine(tmp_path, version="", heads=heads))
    assert failing(judge(engine=found)) == [
        ("engine-backend", "warning"),
        ("engine-headers", "unknown"),
    ]


# --- images, locks, manifests ----------------------------------------------------------------


def test_image_without_the_release() -> None:
    verdict = judge(release="0.17.0", image=image())
    assert failing(verdict) == [("image-release", "mismatch")]
    assert judge(release="0.17.0", image=image(releases=())).answer == "unknown"


def test_image_of_another_lock() -> None:
    lock = facts.LockFacts("x.lock.yaml", "trtllm-0.16.0", f"sha256:{'c' * 64}")
    verdict = judge(image=image(), lock=lock)
    assert failing(verdict) == [("lock-image", "mismatch")]
    assert "kit build trtllm-0.16.0" in (verdict.findings[0].hint or "")


def test_nothing_compared_is_unknown() -> None:
    assert judge(release="0.16.0").answer == "unknown"


def test_every_finding_has_its_source_and_failures_a_hint(tmp_path: Path) -> None:
    found = of_engine(engine(tmp_path, version="0.9.0", world=(2, 1), heads=[PLAN_HEAD]))
    for finding in judge(release="0.16.0", engine=found, image=image()).findings:
        assert finding.source
        assert finding.hint or finding.status == "ok"


# --- the whole way ---------------------------------------------------------------------------


@dataclass
class Made:
    project: Project
    manifest: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run, and its image in the project's layout as the build leaves it."""
    site = Site.make(tmp_path_factory.mktemp("compat"))
    project = site.project
    image = Layout(project.images).write_image(
        name="localhost/trtllm-kit/rehearsal:latest",
        layers=(),
        settings={"Labels": dict(site.image.labels)},
        history=(),
        platform="linux/amd64",
        epoch=0,
    )
    lock = locks.load(project.lock_path("rehearsal")).digest
    write_json(
        project.images / "builds" / "rehearsal.json",
        {"key": "x", "lock": str(lock), "manifest_digest": str(image.manifest_digest)},
    )
    site.image = type(site.image)(
        "rehearsal", lock, image.manifest_digest, image.image_id, image.labels
    )
    return Made(project, site.run())


def test_run_image_lock_and_release_fit(made: Made) -> None:
    verdict = verify(
        made.project,
        release="0.16.0",
        stack="rehearsal",
        engine_dir=made.manifest.parent / "engine",
        manifest=made.manifest,
    )
    assert verdict.answer == "compatible", verdict.table()
    content = json.loads(json.dumps(verdict.to_dict()))
    assert content["verdict"] == "compatible"
    assert {finding["status"] for finding in content["findings"]} == {"ok"}
    assert all(finding["name"] == finding["component"] for finding in content["findings"])
    assert {finding["rule"] for finding in content["findings"]} >= {
        "image-release", "engine-release", "engine-backend", "engine-ranks", "engine-headers",
        "engine-manifest", "manifest-release", "manifest-image", "lock-image", "lock-manifest",
    }  # fmt: skip


def test_engine_of_another_run_does_not_fit_the_manifest(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    for path in (made.manifest.parent / "engine").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    with (folder / "rank0.engine").open("ab") as stream:
        stream.write(b"x")
    verdict = verify(made.project, engine_dir=folder, manifest=made.manifest)
    assert verdict.answer == "incompatible"
    assert "engine file rank0.engine" in verdict.sentence()


def test_stale_image_is_a_finding_not_a_crash(made: Made) -> None:
    path = made.project.lock_path("rehearsal")
    before = path.read_text()
    path.write_text(before.replace('version: ""', 'version: "2"', 1))
    try:
        with pytest.raises(KitError, match="another lock") as caught:
            built(made.project, "rehearsal")
        verdict = verify(made.project, stack="rehearsal")
    finally:
        path.write_text(before)
    assert caught.value.exit_code == ExitCode.CONTENT
    assert caught.value.hint == "kit build rehearsal"
    assert [(f.rule, f.status) for f in verdict.findings] == [("lock-image", "mismatch")]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "nothing to compare"),
        ({"release": "0.99"}, "unknown release"),
        ({"stack": "rehersal"}, "did you mean rehearsal"),
        ({"engine_dir": ROOT / "nowhere"}, "no such engine directory"),
        ({"manifest": ROOT / "nowhere"}, "there is no manifest"),
        ({"lock": ROOT / "nowhere.lock.yaml"}, "there is no lock"),
    ],
)
def test_wrong_requests(made: Made, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(KitError, match=message) as caught:
        verify(made.project, **asked)
    assert caught.value.exit_code == ExitCode.USAGE


def test_unreadable_configuration_is_wrong_content(made: Made, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(KitError, match=r"config\.json") as caught:
        verify(made.project, engine_dir=tmp_path)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_observations_name_place_and_way(made: Made) -> None:
    found = of_engine(made.manifest.parent / "engine")
    assert isinstance(found, EngineFacts)
    ways = {(item.component, item.how) for item in found.observations()}
    assert ways == {("tensorrt_llm", "version"), ("tensorrt_llm", "header")}
    seen = {
        item.component: item.version
        for item in facts.of_image(made.project, "rehearsal").observations()
    }
    assert seen["tensorrt_llm"] == "0.5.0 0.9.0 0.16.0"
    assert seen["backend"] == REHEARSAL
