from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from kit.artifacts import engine as engines
from kit.compat.facts import Facts, container
from kit.compat.gather import of_gpu
from kit.compat.verdict import Verdict, judge
from kit.data import releases
from kit.host.facts import HostFacts, Unknown
from tests.unit.compat.test_verdict import engine, plan_head
from tests.unit.host.conftest import driver, gpu, host

if TYPE_CHECKING:
    from pathlib import Path


def with_driver(version: str | None, name: str = "NVIDIA H200", **other: Any) -> HostFacts:
    return host(driver=driver(version=version), gpus=(gpu(name=name),), **other)


def found(verdict: Verdict, rule: str) -> list[tuple[str, str]]:
    return [(item.status, item.message) for item in verdict.findings if item.rule == rule]


def of_driver(version: str | None, name: str = "NVIDIA H200", **what: Any) -> tuple[str, str]:
    known = Facts(host=with_driver(version, name), host_where="this host", **what)
    rows = found(judge(known), "driver-cuda")
    assert len(rows) == 1
    return rows[0]


# --- drivers: 0.16.0 has CUDA 12.6.3, which comes with 560.35.05 ------------------------------


@pytest.mark.parametrize(
    ("version", "status", "says"),
    [
        ("560.35.05", "ok", ""),
        ("580.159.03", "ok", ""),
        ("560.35.03", "warning", "minor-version compatibility (525.60.13 or newer)"),
        ("535.54.03", "warning", "minor-version compatibility"),
        ("525.60.13", "warning", "minor-version compatibility"),
        ("470.57.02", "warning", "cuda-compat"),
        ("470.42.01", "mismatch", "470.57"),
        ("510.47.03", "mismatch", "update the driver to 525.60.13"),
    ],
)
def test_driver_of_a_data_center_gpu(version: str, status: str, says: str) -> None:
    have = of_driver(version, release="0.16.0")
    assert have[0] == status, have
    assert says in have[1]


def test_forward_compatibility_is_for_data_center_gpus() -> None:
    status, message = of_driver("470.57.02", "NVIDIA GeForce RTX 3090", release="0.16.0")
    assert status == "mismatch"
    assert "data-center" in message
    status, _ = of_driver("470.57.02", "NVIDIA Something New", release="0.16.0")
    assert status == "unknown"


def test_forward_compatibility_that_nobody_wrote_down_is_unknown() -> None:
    status, message = of_driver("535.104.05", release="1.2.1")
    assert status == "unknown", message
    assert "cuda-compat" in message


def test_container_decides_rather_than_the_release() -> None:
    status, message = of_driver("560.35.03", triton=container("24.12"), release="0.16.0")
    assert (status, "tritonserver:24.12" in message) == ("warning", True)


def test_container_whose_cuda_is_not_known() -> None:
    status, message = of_driver("580.159.03", triton=container("23.12"))
    assert status == "unknown"
    assert "24.04" in message


def test_host_without_a_driver() -> None:
    status, message = of_driver(None, release="0.16.0")
    assert status == "mismatch"
    assert "no NVIDIA driver" in message
    bare = host(driver=None, gpus=(), unknown=(Unknown("driver", "nvidia-smi hangs"),))
    verdict = judge(Facts(release="0.16.0", host=bare, host_where="x"))
    assert found(verdict, "driver-cuda")[0][0] == "unknown"


@pytest.mark.parametrize("release", releases.versions())
def test_a_release_runs_on_its_own_driver(release: str) -> None:
    status, message = of_driver(releases.value(release, "cuda_driver_min"), release=release)
    # A bare branch such as 535 is older than the driver that comes with 12.2.0.
    assert status in ("ok", "warning"), message


# --- GPUs ------------------------------------------------------------------------------------


@pytest.fixture
def h100(tmp_path: Path) -> Path:
    return engine(
        tmp_path / "h100",
        version="0.16.0",
        world=(2, 1),
        dtype="bfloat16",
        quantization={"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
    )


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("H100", "ok"),
        ("L40S", "ok"),
        ("A100", "mismatch"),
        ("8.6", "mismatch"),
    ],
)
def test_fp8_wants_ada_or_hopper(h100: Path, name: str, status: str) -> None:
    verdict = judge(Facts(engine=engines.look(h100), gpu=of_gpu(name)))
    rows = {f.component.split(" on ")[0]: f.status for f in verdict.findings}
    assert rows["fp8"] == rows["fp8_kv_cache"] == status


@pytest.mark.parametrize(
    ("quantization", "release", "name", "status"),
    [
        ("W4A16_AWQ", "0.9.0", "T4", "mismatch"),
        ("W4A16_AWQ", "0.12.0", "T4", "ok"),
        ("W8A8_SQ_PER_CHANNEL", "0.12.0", "T4", "mismatch"),
        ("W4A8_AWQ", "0.16.0", "A100", "mismatch"),
        ("W4A8_AWQ", "0.16.0", "L40S", "ok"),
        ("W8A16", "0.12.0", "V100", "ok"),
        ("NVFP4", "1.2.1", "H100", "mismatch"),
        ("NVFP4", "1.2.1", "B200", "ok"),
        ("FP8_PER_CHANNEL_PER_TOKEN", "0.12.0", "RTX 6000 Ada", "mismatch"),
        ("FP8_PER_CHANNEL_PER_TOKEN", "0.16.0", "RTX 6000 Ada", "unknown"),
    ],
)
def test_precision_by_release(
    tmp_path: Path, quantization: str, release: str, name: str, status: str
) -> None:
    folder = engine(
        tmp_path,
        version=release,
        heads=[plan_head(releases.value(release, "tensorrt"))],
        dtype="float16",
        quantization={"quant_algo": quantization},
    )
    verdict = judge(Facts(engine=engines.look(folder), gpu=of_gpu(name)))
    rows = [f for f in verdict.findings if f.rule == "gpu-precision" and "fp16" not in f.component]
    assert [row.status for row in rows] == [status], verdict.table()


def hinted(folder: Path, key: str) -> Path:
    import json

    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["build_config"] = {"auto_parallel_config": {"cluster_key": key}}
    path.write_text(json.dumps(content))
    return folder


def test_engine_of_another_gpu_by_its_cluster_key(h100: Path) -> None:
    found_ = engines.look(hinted(h100, "H100-SXM"))
    verdict = judge(Facts(engine=found_, gpu=of_gpu("L40S")))
    assert found(verdict, "gpu-engine")[0][0] == "mismatch"
    assert "built on H100-SXM (compute capability 9.0" in found(verdict, "gpu-engine")[0][1]
    verdict = judge(Facts(engine=found_, gpu=of_gpu("H200")))
    assert found(verdict, "gpu-engine")[0][0] == "warning"
    verdict = judge(Facts(engine=found_, gpu=of_gpu("H100")))
    assert found(verdict, "gpu-engine") == [("ok", "")]
    verdict = judge(Facts(engine=engines.look(hinted(h100, "X9000")), gpu=of_gpu("H100")))
    assert found(verdict, "gpu-engine")[0][0] == "unknown"


@pytest.mark.parametrize(
    ("count", "status"), [(0, "mismatch"), (1, "mismatch"), (2, "ok"), (8, "ok")]
)
def test_a_gpu_for_every_rank(h100: Path, count: int, status: str) -> None:
    have = host(gpus=tuple(gpu(index) for index in range(count)))
    verdict = judge(Facts(engine=engines.look(h100), host=have, host_where="this host"))
    assert found(verdict, "gpu-count")[0][0] == status


def test_weights_that_do_not_fit(h100: Path) -> None:
    small = host(gpus=(gpu(memory_bytes=64), gpu(1, memory_bytes=64)))
    verdict = judge(Facts(engine=engines.look(h100), host=small, host_where="this host"))
    assert found(verdict, "gpu-memory")[0][0] == "mismatch"


def test_memory_of_the_host(h100: Path) -> None:
    have = host(gpus=(gpu(0), gpu(1)))
    tight = dataclasses.replace(have, memory=dataclasses.replace(have.memory, limit_bytes=100))
    for facts, status in ((have, "ok"), (tight, "mismatch")):
        verdict = judge(Facts(engine=engines.look(h100), host=facts, host_where="this host"))
        assert found(verdict, "host-memory")[0][0] == status


def test_what_doctor_finds_is_in_the_verdict() -> None:
    good = judge(Facts(release="0.16.0", host=host(), host_where="this host"))
    assert good.answer == "compatible", good.table()
    without = judge(Facts(release="0.16.0", host=host(engines=()), host_where="this host"))
    assert without.answer == "incompatible"
    assert without.findings[0].where == "this host"


def test_rehearsal_needs_no_gpu(tmp_path: Path) -> None:
    from tests.unit.compat.test_verdict import image, rehearsal_head

    heads = [rehearsal_head("0.16.0", 0, 1)]
    folder = engine(tmp_path, version="0.16.0+rehearsal", heads=heads)
    bare = host(driver=None, gpus=(), fabric=None, pairs=(), pci_gpus=0)
    verdict = judge(
        Facts(
            engine=engines.look(folder),
            stack=image(backend="rehearsal", tensorrt=None),
            host=bare,
            host_where="this host",
        )
    )
    assert verdict.answer == "compatible", verdict.table()


def test_key_that_stands_for_every_unknown_gpu_is_no_evidence(tmp_path: Path) -> None:
    """0.9 and 0.10 write A100-SXM-80GB where they do not know the GPU."""
    for release, tensorrt, status in (
        ("0.10.0", "10.0.1.6", "unknown"),
        ("0.16.0", "10.7.0.23", "mismatch"),
    ):
        folder = engine(tmp_path / release, version=release, heads=[plan_head(tensorrt)])
        looked = engines.look(hinted(folder, "A100-SXM-80GB"))
        verdict = judge(Facts(engine=looked, gpu=of_gpu("GeForce RTX 4090")))
        assert found(verdict, "gpu-engine")[0][0] == status
        assert "None" not in verdict.sentence()


@pytest.mark.parametrize(("name", "status"), [("H100", "mismatch"), ("B200", "ok")])
def test_post_release_carries_what_its_release_does(tmp_path: Path, name: str, status: str) -> None:
    heads = [plan_head("10.8.0.43")]
    quantization = {"quant_algo": "NVFP4"}
    folder = engine(tmp_path, version="0.17.0.post1", heads=heads, quantization=quantization)
    verdict = judge(Facts(engine=engines.look(folder), gpu=of_gpu(name)))
    assert [row[0] for row in found(verdict, "gpu-precision")] == [status]


def test_release_of_no_table_runs_on_nobody_knows_which_gpu(tmp_path: Path) -> None:
    folder = engine(tmp_path, version="0.13.0.dev2024082000", heads=[plan_head("10.3.0.26")])
    verdict = judge(Facts(engine=engines.look(folder), gpu=of_gpu("V100")))
    assert found(verdict, "gpu-release")[0][0] == "unknown"
    assert verdict.answer == "unknown"
    verdict = judge(Facts(triton=container("23.11"), gpu=of_gpu("H100")))
    assert found(verdict, "gpu-release")[0][0] == "unknown"


def test_withdrawn_release_is_not_offered() -> None:
    verdict = judge(Facts(release="0.16.0", gpu=of_gpu("B200")))
    assert "nearest release that does: 0.17.0.post1" in verdict.sentence()


def test_unsupported_gpu_is_said_once(h100: Path) -> None:
    verdict = judge(Facts(engine=engines.look(h100), gpu=of_gpu("V100")))
    assert found(verdict, "gpu-release")[0][0] == "mismatch"
    assert not found(verdict, "gpu-precision")


def test_rank_has_a_slice_and_not_the_gpu(tmp_path: Path) -> None:
    from kit.host.facts import Slice

    slices = tuple(Slice(number, 0, 64) for number in range(2))
    sliced = host(gpus=(gpu(mig=True, slices=slices),))
    looked = engines.look(engine(tmp_path, version="0.16.0"))
    verdict = judge(Facts(engine=looked, host=sliced, host_where="this host"))
    assert found(verdict, "gpu-memory")[0][0] == "mismatch"
    assert "the smallest MIG slice" in found(verdict, "gpu-memory")[0][1]


def test_one_rank_without_a_gpu_reads_well(tmp_path: Path) -> None:
    looked = engines.look(engine(tmp_path, version="0.16.0"))
    verdict = judge(Facts(engine=looked, host=host(gpus=()), host_where="this host"))
    said = found(verdict, "gpu-count")[0][1]
    assert said == "the engine has 1 rank, the host 0 GPUs: one GPU a rank; use 1 GPU"


def test_named_gpu_does_not_hide_those_of_the_host(h100: Path) -> None:
    pair = host(gpus=(gpu(0, name="NVIDIA A100", compute_capability="8.0"), gpu(1)))
    verdict = judge(
        Facts(engine=engines.look(h100), host=pair, host_where="h.json", gpu=of_gpu("H100"))
    )
    names = {item.component for item in verdict.findings if item.rule == "gpu-release"}
    assert {"GPU H100", "GPU NVIDIA A100"} <= names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX 4090", "GeForce RTX 4090"),
        ("RTX4090", "GeForce RTX 4090"),
        ("NVIDIA-GeForce-RTX-4090", "GeForce RTX 4090"),
        ("GRID A100-10C", "A100"),
        ("Quadro RTX 6000", "Quadro RTX 6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
    ],
)
def test_names_as_people_and_drivers_write_them(text: str, name: str) -> None:
    assert of_gpu(text).name == name


def test_no_driver_for_a_cuda_that_nobody_knows() -> None:
    bare = host(gpus=(), driver=None)
    verdict = judge(Facts(triton=container("23.11"), host=bare, host_where="this host"))
    said = found(verdict, "driver-cuda")[0][1]
    assert said == "tritonserver:23.11 wants a driver, the host has no NVIDIA driver"


@pytest.mark.parametrize(
    ("named", "status"),
    [("H200", "ok"), ("9.0", "ok"), ("H100", "warning"), ("B200", "mismatch")],
)
def test_named_gpu_is_one_of_the_host(named: str, status: str) -> None:
    verdict = judge(Facts(gpu=of_gpu(named), host=host(), host_where="this host"))
    assert [row[0] for row in found(verdict, "gpu-host")] == [status]
    assert ("incompatible" in verdict.sentence()) is (status == "mismatch")


def test_gpu_in_mig_mode_without_a_slice_is_none(tmp_path: Path) -> None:
    looked = engines.look(engine(tmp_path, version="0.16.0"))
    bare = host(gpus=(gpu(mig=True, slices=()),))
    verdict = judge(Facts(engine=looked, host=bare, host_where="this host"))
    assert found(verdict, "gpu-count")[0][0] == "mismatch"


def test_wheel_wants_a_driver(tmp_path: Path) -> None:
    from kit.artifacts import wheel
    from tests.unit.artifacts.test_wheel import write

    looked = wheel.look(write(tmp_path, **{"tensorrt_llm/libs/libtensorrt_llm.so": b"x"}))
    bare = host(gpus=(), driver=None)
    verdict = judge(Facts(wheel=looked, host=bare, host_where="this host"))
    assert found(verdict, "driver-cuda")[0][0] == "mismatch"


def test_what_nobody_could_see_of_the_gpus_is_unknown() -> None:
    blind = host(gpus=(), unknown=(Unknown("gpus", "nvidia-smi hangs"),))
    verdict = judge(Facts(release="0.16.0", host=blind, host_where="x"))
    assert {item.status for item in verdict.findings if item.component == "gpus"} == {"unknown"}


def test_not_to_know_what_only_warns_is_no_more_than_a_warning() -> None:
    have = host(
        slurm=None, unknown=(Unknown("slurm", "srun hangs"), Unknown("pairs", "x")), pairs=()
    )
    verdict = judge(Facts(release="0.16.0", host=have, host_where="x"))
    assert verdict.answer == "compatible", verdict.table()
