from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.artifacts import engine as engines
from kit.compat.facts import REAL, REHEARSAL, Facts, GpuFacts, LockFile, StackImage
from kit.compat.gather import Request, of_stack
from kit.compat.verdict import Verdict, judge, verify
from kit.data import releases
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.files import write_json
from kit.images.build import built
from kit.images.oci import Layout
from kit.locks import lock as locks
from tests.unit.artifacts import folders
from tests.unit.examples.local import ROOT, Site

if TYPE_CHECKING:
    from pathlib import Path

    from kit.project import Project

PLAN_HEAD = b"ftrt" + bytes(4) + bytes(16) + bytes([10, 7, 0, 23])


def plan_head(tensorrt: str) -> bytes:
    return PLAN_HEAD[:24] + bytes(int(number) for number in tensorrt.split("."))


def rehearsal_head(release: str, rank: int, world_size: int) -> bytes:
    """A whole rehearsal engine without weights."""
    content = json.dumps({"release": release, "rank": rank, "world_size": world_size}).encode()
    return (
        b"KIT-REHEARSAL\0\0\0"
        + struct.pack("<II", 1, len(content))
        + content
        + struct.pack("<Q", 2)
        + b"{}"
    )


def engine(
    folder: Path,
    *,
    version: str | None,
    world: tuple[int, int] = (1, 1),
    heads: list[bytes] | None = None,
    **pretrained: Any,
) -> Path:
    """An engine directory of a release, with the given heads or as many plans as ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    if version is None:
        config: dict[str, Any] = {
            "builder_config": {
                "name": "gpt",
                "precision": "float16",
                "tensor_parallel": world[0],
                "pipeline_parallel": world[1],
                **pretrained,
            },
            "plugin_config": {},
        }
        names = f"gpt_float16_tp{world[0]}_rank{{}}.engine"
    else:
        mapping = {"tp_size": world[0], "pp_size": world[1]}
        config = {
            "version": version,
            "pretrained_config": {"mapping": mapping, **pretrained},
            "build_config": {},
        }
        names = "rank{}.engine"
    (folder / "config.json").write_text(json.dumps(config))
    for rank, head in enumerate(heads if heads is not None else [PLAN_HEAD] * world[0] * world[1]):
        padding = b"" if head.startswith(b"KIT") else bytes(64)
        (folder / names.format(rank)).write_bytes(head + padding)
    return folder


def image(**changes: Any) -> StackImage:
    content: dict[str, Any] = {
        "stack": "trtllm-0.16.0",
        "manifest_digest": f"sha256:{'a' * 64}",
        "lock": f"sha256:{'b' * 64}",
        "releases": ("0.16.0",),
        "backend": REAL,
        "tensorrt": "10.7.0.23",
    }
    return StackImage(**{**content, **changes})


def lock_file(text: str = "x") -> LockFile:
    return LockFile("x.lock.yaml", locks.Lock("trtllm-0.16.0", Digest.of_bytes(text.encode()), ()))


def check(**known: Any) -> Verdict:
    return judge(Facts(**known))


def failing(verdict: Verdict) -> list[tuple[str, str]]:
    return [(f.rule, f.status) for f in verdict.findings if f.status != "ok"]


# --- engines ---------------------------------------------------------------------------------


def test_whole_engine_fits_its_release(tmp_path: Path) -> None:
    found = engines.look(engine(tmp_path, version="0.16.0", world=(2, 2)))
    assert (found.layout, found.release, found.world_size) == ("version", "0.16.0", 4)
    assert found.backend == REAL
    verdict = check(release="0.16.0", engine=found, stack=image())
    assert verdict.answer == "compatible", verdict.table()
    assert verdict.exit_code(strict=True) == ExitCode.OK


def test_wrong_release_is_named_with_what_to_do(tmp_path: Path) -> None:
    heads = [plan_head("9.3.0.1")]
    found = engines.look(engine(tmp_path, version="0.9.0", heads=heads))
    verdict = check(release="0.16.0", engine=found)
    assert verdict.answer == "incompatible"
    assert verdict.exit_code() == ExitCode.CONTENT
    assert "the engine is of TensorRT-LLM 0.9.0, not 0.16.0" in verdict.sentence()
    first = verdict.findings[0]
    assert (first.expected, first.found) == ("0.16.0", "0.9.0")
    assert first.where == str(tmp_path / "config.json")


@pytest.mark.parametrize("release", releases.versions())
def test_old_layout_is_never_compatible_with_certainty(tmp_path: Path, release: str) -> None:
    built_by = releases.value(release, "tensorrt")
    found = engines.look(engine(tmp_path, version=None, heads=[plan_head(built_by)]))
    assert found.layout == "builder_config"
    verdict = check(release=release, engine=found)
    several = releases.with_tensorrt(built_by) == ["0.6.0", "0.6.1", "0.7.0", "0.7.1", "0.8.0"]
    if several:
        assert verdict.answer == "unknown", verdict.table()
        assert verdict.exit_code(strict=True) == ExitCode.CONTENT
        assert verdict.exit_code() == ExitCode.OK
    else:
        # 0.5.0 alone has 9.1.0.4; from 0.9.0 on nothing writes this layout.
        assert verdict.answer == ("compatible" if release == "0.5.0" else "incompatible")


def test_engine_without_a_configuration_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "rank0.engine").write_bytes(PLAN_HEAD)
    found = engines.look(tmp_path)
    assert found.layout == "none"
    assert check(release="0.16.0", engine=found).answer == "unknown"


@pytest.mark.parametrize("ranks", [[], [0], [0, 2], [1, 2], [0, 1, 2]])
def test_every_rank_has_its_file(tmp_path: Path, ranks: list[int]) -> None:
    folder = engine(tmp_path, version="0.16.0", world=(2, 1), heads=[])
    for rank in ranks:
        (folder / f"rank{rank}.engine").write_bytes(PLAN_HEAD)
    verdict = check(engine=engines.look(folder))
    assert ("engine-files", "mismatch") in failing(verdict)
    missing = [f"rank{rank}.engine" for rank in (0, 1) if rank not in ranks]
    assert all(name in verdict.sentence() for name in missing), verdict.sentence()


def test_other_tensorrt_than_the_image_has(tmp_path: Path) -> None:
    found = engines.look(engine(tmp_path, version="0.16.0"))
    verdict = check(engine=found, stack=image(tensorrt="10.6.0.26"))
    assert ("tensorrt-plan", "mismatch") in failing(verdict)
    assert "engine was built by TensorRT 10.7.0.23" in verdict.sentence()
    assert "loads 10.6.0.26; use 24.12 or rebuild in" in verdict.sentence()
    assert check(engine=found, stack=image(tensorrt=None)).answer == "unknown"
    # Three numbers leave the build open, and another build does not load it.
    assert check(engine=found, stack=image(tensorrt="10.7.0")).answer == "unknown"


def test_ranks_of_two_builds(tmp_path: Path) -> None:
    other = plan_head("10.6.0.1")
    folder = engine(tmp_path, version="0.16.0", world=(2, 1), heads=[PLAN_HEAD, other])
    verdict = check(engine=engines.look(folder))
    assert failing(verdict) == [("tensorrt-ranks", "mismatch")]
    assert "files of two builds" in verdict.sentence()


@pytest.mark.parametrize("head", [b"", b"ftr", b"version https://git-lfs.github.com/spec/v1\n"])
def test_no_engine_at_all(tmp_path: Path, head: bytes) -> None:
    folder = engine(tmp_path, version="0.16.0", heads=[])
    (folder / "rank0.engine").write_bytes(head)
    assert failing(check(engine=engines.look(folder))) == [("engine-files", "mismatch")]


def test_plan_that_is_cut_short(tmp_path: Path) -> None:
    folder = engine(tmp_path, version="0.16.0", heads=[])
    (folder / "rank0.engine").write_bytes(PLAN_HEAD[:20])
    verdict = check(engine=engines.look(folder))
    assert failing(verdict) == [("engine-files", "mismatch")]
    assert "truncated" in verdict.sentence()


@settings(max_examples=200, deadline=None)
@given(head=st.binary(max_size=80), magic=st.sampled_from([b"", b"ftrt", b"KIT-REHEARSAL\0\0\0"]))
def test_any_head_is_read_without_a_crash(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, magic: bytes
) -> None:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "rank0.engine").write_bytes(magic + head)
    verdict = check(engine=engines.look(folder), release="0.16.0")
    assert verdict.answer in ("unknown", "incompatible")


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tp", "fits"),
    [(32, 8, 4, True), (32, 8, 16, True), (32, 1, 4, True), (25, 25, 2, False), (32, 6, 4, False)],
)
def test_heads_go_into_ranks(
    tmp_path: Path, heads: int, kv_heads: int, tp: int, fits: bool
) -> None:
    folder = engine(
        tmp_path,
        version="0.16.0",
        world=(tp, 1),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
    )
    found = dict(failing(check(engine=engines.look(folder))))
    assert ("heads" in found) is not fits


# --- a rehearsal is never the real thing -----------------------------------------------------


def test_rehearsal_engine_in_a_real_image(tmp_path: Path) -> None:
    heads = [rehearsal_head("0.16.0", 0, 1)]
    found = engines.look(engine(tmp_path, version="0.16.0+rehearsal", heads=heads))
    verdict = check(release="0.16.0", engine=found, stack=image())
    assert failing(verdict) == [("engine-backend", "mismatch")]
    assert "expected TensorRT, found rehearsal" in verdict.sentence()
    assert check(engine=found, stack=image(backend=REHEARSAL)).answer == "compatible"


def test_rehearsal_engine_for_a_real_container(tmp_path: Path) -> None:
    heads = [rehearsal_head("0.16.0", 0, 1)]
    folder = engine(tmp_path, version="0.16.0+rehearsal", heads=heads)
    verdict = verify(_nowhere(tmp_path), Request(engine=folder, triton="24.12"))
    assert verdict.answer == "incompatible"
    assert "rehearsal engine" in verdict.sentence()


def _nowhere(folder: Path) -> Project:
    return Site.make(folder / "site").project


def test_real_engine_in_a_rehearsal_image(tmp_path: Path) -> None:
    found = engines.look(engine(tmp_path, version="0.16.0"))
    verdict = check(engine=found, stack=image(backend=REHEARSAL, tensorrt=None))
    assert ("engine-backend", "mismatch") in failing(verdict)


@pytest.mark.parametrize(
    ("plans", "of_image"), [("8.6.0.12", "ok"), ("8.6.1.6", "mismatch"), (None, "mismatch")]
)
@pytest.mark.parametrize(("gpu", "of_gpu"), [("9.0", "ok"), ("8.0", "mismatch")])
def test_rehearsal_engine_with_a_plan(
    tmp_path: Path, plans: str | None, of_image: str, gpu: str, of_gpu: str
) -> None:
    """The image that computes in NumPy does not run it, nor does another kind of GPU."""
    folder = engine(tmp_path, version="0.16.0+rehearsal", heads=[folders.rehearsal_plan()])
    found = check(
        engine=engines.look(folder),
        stack=image(backend=REHEARSAL, tensorrt=None, plans=plans),
        gpu=GpuFacts(None, gpu, "the command line"),
    )
    said = [item.status for item in found.findings if item.rule == "rehearsal-plan"]
    assert said == [of_image, of_gpu]
    assert (found.answer == "compatible") is (said == ["ok", "ok"])


def test_label_alone_tells_a_rehearsal(tmp_path: Path) -> None:
    found = engines.look(engine(tmp_path, version="0.16.0+rehearsal"))
    assert found.backend == REHEARSAL
    assert check(engine=found, stack=image()).answer == "incompatible"


def test_header_alone_tells_a_rehearsal(tmp_path: Path) -> None:
    heads = [rehearsal_head("0.5.0", rank, 2) for rank in range(2)]
    found = engines.look(engine(tmp_path, version=None, world=(2, 1), heads=heads))
    assert (found.backend, found.release, found.version.version) == (
        REHEARSAL,
        "0.5.0+rehearsal",
        "0.5.0+rehearsal",
    )
    verdict = check(release="0.5.0", engine=found)
    assert verdict.answer == "compatible"
    assert "rehearsal engine" in verdict.sentence()


def test_swapped_rank_files(tmp_path: Path) -> None:
    heads = [rehearsal_head("0.16.0", rank, 2) for rank in (1, 0)]
    folder = engine(tmp_path, version="0.16.0+rehearsal", world=(2, 1), heads=heads)
    verdict = check(engine=engines.look(folder))
    assert verdict.answer == "incompatible"
    assert "rank 1 of 2" in verdict.sentence()


def test_header_stands_in_for_a_version_that_config_leaves_empty(tmp_path: Path) -> None:
    heads = [rehearsal_head("0.16.0", 0, 1)]
    found = engines.look(engine(tmp_path, version="", heads=heads))
    assert found.release == "0.16.0+rehearsal"
    assert check(release="0.9.0", engine=found).answer == "incompatible"


# --- images, locks, manifests ----------------------------------------------------------------


def test_image_without_the_release() -> None:
    verdict = check(release="0.18.0", stack=image(tensorrt=None))
    assert failing(verdict) == [("image-release", "mismatch")]
    assert check(release="0.17.0", stack=image(releases=(), tensorrt=None)).answer == "unknown"


def test_image_with_another_tensorrt_than_its_release_pins_is_said() -> None:
    verdict = check(release="0.16.0", stack=image(tensorrt="10.8.0.43"))
    assert failing(verdict) == [("tensorrt-release", "warning")]
    assert "what the image has counts" in verdict.sentence()


def test_image_of_another_lock() -> None:
    verdict = check(stack=image(), lock=lock_file())
    assert failing(verdict) == [("lock-image", "mismatch")]
    assert "kit build trtllm-0.16.0" in (verdict.findings[-1].hint or "")


def test_nothing_compared_is_unknown() -> None:
    verdict = check(release="0.16.0")
    assert verdict.answer == "unknown"
    assert "nothing to compare" in verdict.sentence()


def test_every_finding_has_its_source_and_failures_a_hint(tmp_path: Path) -> None:
    folder = engine(tmp_path, version="0.9.0", world=(2, 1), heads=[PLAN_HEAD])
    for finding in check(release="0.16.0", engine=engines.look(folder), stack=image()).findings:
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
        Request(
            release="0.16.0",
            stack="rehearsal",
            engine=made.manifest.parent / "engine",
            checkpoint=made.manifest.parent / "checkpoint",
            manifest=made.manifest,
        ),
    )
    assert verdict.answer == "compatible", verdict.table()
    content = json.loads(json.dumps(verdict.to_dict()))
    assert content["verdict"] == "compatible"
    assert {finding["status"] for finding in content["findings"]} == {"ok"}
    assert all(finding["name"] == finding["component"] for finding in content["findings"])
    assert {finding["rule"] for finding in content["findings"]} >= {
        "image-release", "engine-release", "engine-backend", "engine-files", "checkpoint",
        "engine-manifest", "manifest-release", "manifest-image", "lock-image", "lock-manifest",
    }  # fmt: skip


def test_engine_of_another_run_does_not_fit_the_manifest(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    for path in (made.manifest.parent / "engine").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = bytearray((folder / "rank0.engine").read_bytes())
    content[-1] ^= 1
    (folder / "rank0.engine").write_bytes(content)
    verdict = verify(made.project, Request(engine=folder, manifest=made.manifest))
    assert verdict.answer == "incompatible"
    assert "engine file rank0.engine" in verdict.sentence()


def test_stale_image_is_a_finding_not_a_crash(made: Made) -> None:
    path = made.project.lock_path("rehearsal")
    before = path.read_text()
    path.write_text(before.replace('version: ""', 'version: "2"', 1))
    try:
        with pytest.raises(KitError, match="another lock") as caught:
            built(made.project, "rehearsal")
        verdict = verify(made.project, Request(stack="rehearsal"))
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
        ({"engine": ROOT / "nowhere"}, "nowhere"),
        ({"checkpoint": ROOT / "nowhere"}, "nowhere"),
        ({"model_repository": ROOT / "nowhere"}, "nowhere"),
        ({"source": ROOT / "nowhere"}, "nowhere"),
        ({"wheel": ROOT / "nowhere.whl"}, "nowhere"),
        ({"host_facts": ROOT / "nowhere.json"}, "nowhere"),
        ({"manifest": ROOT / "nowhere"}, "there is no manifest"),
        ({"lock": ROOT / "nowhere.lock.yaml"}, "there is no lock"),
        ({"triton": "latest"}, "expected YY.MM"),
        ({"triton": "24.13"}, "expected YY.MM"),
        ({"gpu": "H1000"}, "unknown GPU"),
    ],
)
def test_wrong_requests(made: Made, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(KitError, match=message) as caught:
        verify(made.project, Request(**asked))
    assert caught.value.exit_code == ExitCode.USAGE


def test_unreadable_configuration_is_wrong_content(made: Made, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(KitError, match=r"config\.json") as caught:
        verify(made.project, Request(engine=tmp_path))
    assert caught.value.exit_code == ExitCode.CONTENT


def test_image_of_a_stack_by_its_labels(made: Made) -> None:
    seen = of_stack(made.project, "rehearsal")
    assert seen.releases == ("0.5.0", "0.9.0", "0.16.0")
    assert seen.backend == REHEARSAL
