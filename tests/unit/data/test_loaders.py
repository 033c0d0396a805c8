"""The loaders of the tables: what they answer to the spellings that people and tools use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kit.data import drivers, gpus, models, releases, tensorrt, triton
from kit.errors import ExitCode, KitError

if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT_0_5_0 = "ffd5af342a817a2689d38e4af2cc59ded877e339"


# --- releases ------------------------------------------------------------------------------------


def test_orders() -> None:
    everything, stable = releases.order(), releases.versions()
    assert stable[0] == everything[0] == "0.5.0"
    assert stable[-1] == "1.2.1"
    assert "0.17.0.post1" in everything
    assert [version for version in everything if releases.kind(version) == "stable"] == stable
    assert releases.kind("0.17.0.post1") == "post"
    assert releases.kind("1.4.0rc1") == "preview"
    with pytest.raises(KeyError):
        releases.kind("0.4.0")


@pytest.mark.parametrize("text", ["0.9.0", "v0.9.0", " 0.9.0\n"])
def test_known(text: str) -> None:
    assert releases.known(text) == "0.9.0"
    assert releases.recorded(text) == "0.9.0"


@pytest.mark.parametrize(
    ("ask", "text", "near"),
    [
        (releases.known, "0.9", "0.9.0"),
        (releases.known, "1.2.2", "1.2.1"),
        (releases.known, "0.17.0.post1", "0.17.0"),
        (releases.known, "1.3.0rc15", "1.2.1"),
        (releases.recorded, "1.3.0rc16", "1.3.0rc15"),
        (releases.recorded, "0.17.1", "0.17.0"),
        (releases.known, "", "0.16.0"),
        (releases.known, "latest", "1.2.1"),
    ],
)
def test_unknown_names_the_nearest(ask: Callable[[str], str], text: str, near: str) -> None:
    with pytest.raises(KitError, match="unknown release") as caught:
        ask(text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert near in str(caught.value)
    assert repr(text) in str(caught.value)


def test_recorded_knows_previews_and_posts() -> None:
    assert releases.recorded("v1.3.0rc15") == "1.3.0rc15"
    assert releases.recorded("0.17.0.post1") == "0.17.0.post1"


def test_placeholders_are_filled_in() -> None:
    assert releases.fact("0.5.0", "tensorrt").source == (
        f"NVIDIA/TensorRT-LLM docker/common/install_tensorrt.sh@{COMMIT_0_5_0}"
    )
    assert "==1.1.0" in str(releases.fact("1.1.0", "nccl_requirement").source)
    for version in releases.order():
        for field in releases.table()["fields"]:
            fact = releases.fact(version, field)
            partly = fact.partly or {}
            for text in (fact.source, fact.inferred, fact.hole, *partly.values()):
                assert text is None or ("{" not in text and text.strip()), (version, field)
            assert (fact.value is None) == (fact.hole is not None) == (fact.source is None)


def test_facts() -> None:
    known = releases.fact("0.16.0", "tensorrt")
    assert (known.value, known.inferred, known.hole, known.partly) == (
        "10.7.0.23",
        None,
        None,
        None,
    )
    hole = releases.fact("1.2.0", "commit")
    assert (hole.value, hole.source) == (None, None)
    assert "not confirmed" in str(hole.hole)
    assert "not stated" in str(releases.fact("0.7.0", "cuda").inferred)
    assert list(releases.fact("0.5.0", "cuda").partly or {}) == ["patch"]
    assert releases.value("1.2.1", "commit") == "376f7e1bd8ed543f75014309e3fd4b237e9b0e73"
    assert releases.value("0.18.1", "triton_container") == []
    for version, field in [("0.4.0", "cuda"), ("0.5.0", "colour")]:
        with pytest.raises(KeyError):
            releases.fact(version, field)


def test_releases_by_what_is_in_them() -> None:
    assert releases.with_tensorrt("10.4.0.26") == ["0.13.0", "0.14.0"]
    assert releases.with_tensorrt("10.4.0") == []
    assert releases.at_commit(COMMIT_0_5_0) == "0.5.0"
    assert releases.at_commit("0" * 40) is None


def test_between_goes_by_the_order_of_the_table() -> None:
    assert releases.between("0.9.0", "0.9.0", "0.10.0")
    assert not releases.between("0.10.0", "0.9.0", "0.10.0")
    assert not releases.between("0.8.0", "0.9.0", None)
    assert releases.between("1.4.0rc1", None, None)
    assert releases.between("0.17.0.post1", "0.17.0", "0.18.0")
    with pytest.raises(KeyError):
        releases.between("0.9.0", "0.8.9", None)


@pytest.mark.parametrize(
    ("version", "candidates", "nearest"),
    [
        ("0.13.0", ["0.5.0", "0.12.0", "1.0.0"], "0.12.0"),
        ("0.13.0", ["0.12.0", "0.14.0"], "0.12.0"),
        ("1.3.0rc15", ["0.5.0", "1.2.1"], "1.2.1"),
        ("0.13.0", ["9.9.9"], None),
        ("0.13.0", [], None),
    ],
)
def test_closest(version: str, candidates: list[str], nearest: str | None) -> None:
    assert releases.closest(version, candidates) == nearest


def test_select() -> None:
    assert releases.select("==0.18.*") == ["0.18.0", "0.18.1", "0.18.2"]
    with pytest.raises(ValueError, match="not a range"):
        releases.select("newest")


# --- tensorrt ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.7.0.23", "10.7.0.23", True),
        ("9.2.0.post12.dev5", "9.2.0.5", True),
        ("9.3.0.post12.dev1", "9.3.0.1", True),
        ("10.13.3.9.post1", "10.13.3.9", True),
        ("10.7.0.23-1+cuda12.6", "10.7.0.23", True),
        ("10.7.0", "10.7.0", True),
        ("10.7.0", "10.7.0.23", None),
        ("10.7", "10.7.0.23", None),
        ("9.2.0.post11.dev5", "9.2.0.5", None),
        ("9.2.0.4", "9.2.0.5", False),
        ("10.7.0.23", "10.7.0.2", False),
        ("10.7.0.23", "10.70.2.3", False),
        ("10.14.1.48", "10.13.3.9", False),
        ("10.7.0", "10.6.0.26", False),
        ("9.2.0.post12.dev5", "9.2.0.post12.dev4", False),
        ("8.6.x", "8.6.1", None),
        ("", "10.7.0.23", None),
        ("", "", None),
    ],
)
def test_same_tensorrt(one: str, other: str, same: bool | None) -> None:
    assert tensorrt.same(one, other) is same
    assert tensorrt.same(other, one) is same


def test_parts_of_a_version() -> None:
    assert tensorrt.parts("9.2.0.post12.dev5") == (9, 2, 0, 5)
    assert tensorrt.parts("10.6.0.post2") == (10, 6, 0)
    assert tensorrt.parts("10.8.0.43.1") == (10, 8, 0, 43)
    for nonsense in ("", "x", "10.x", "v10.7.0", "10..7", "-1", "10.0.0b6"):
        assert tensorrt.parts(nonsense) == ()


def test_every_tensorrt_on_the_index_has_numbers() -> None:
    for row in tensorrt.table()["pypi"]:
        assert tensorrt.parts(row["version"]) or row["version"] == "10.0.0b6"


def test_tags_are_not_unique() -> None:
    assert tensorrt.serialization_tag(228) == ("9.2.0.4", "9.2.0.5", "9.3.0.1")
    assert tensorrt.serialization_tag(1) == ()


# --- triton --------------------------------------------------------------------------------------

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "month", "flavour"),
    [
        ("24.12", "24.12", None),
        (" 24.12\n", "24.12", None),
        ("24.12-trtllm-python-py3", "24.12", "trtllm-python-py3"),
        ("24.12-py3", "24.12", "py3"),
        ("24.12-py3-min", "24.12", "py3-min"),
        ("24.12-vllm-python-py3", "24.12", "vllm-python-py3"),
        ("tritonserver:24.12-py3", "24.12", "py3"),
        ("nvcr.io/nvidia/tritonserver:24.12-trtllm-python-py3", "24.12", "trtllm-python-py3"),
        (
            f"nvcr.io/nvidia/tritonserver:24.12-trtllm-python-py3@{DIGEST}",
            "24.12",
            "trtllm-python-py3",
        ),
        (
            "registry.local:5000/nvidia/tritonserver:24.12-trtllm-python-py3",
            "24.12",
            "trtllm-python-py3",
        ),
        (f"registry.local:5000/mirror/tritonserver:25.01-py3@{DIGEST}", "25.01", "py3"),
    ],
)
def test_month(text: str, month: str, flavour: str | None) -> None:
    assert triton.month(text) == (month, flavour)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "24",
        "24.1",
        "24.13",
        "24.00",
        "2024.12",
        "24.12.1",
        "24.12-",
        "24.12 -py3",
        "24.12_py3",
        "v24.12",
        "latest",
        "1.2.1",
        "nvcr.io/nvidia/tritonserver",
        "registry.local:5000/nvidia/tritonserver",
        f"nvcr.io/nvidia/tritonserver@{DIGEST}",
        "nvcr.io/nvidia/tensorrt-llm/release:1.2.1",
        "٢٤.١٢",
    ],
)
def test_no_month(text: str) -> None:
    assert triton.month(text) is None


def test_flavours() -> None:
    assert triton.has_tensorrt_llm(None)
    assert triton.has_tensorrt_llm("trtllm-python-py3")
    assert not triton.has_tensorrt_llm("py3")
    assert not triton.has_tensorrt_llm("vllm-python-py3")


def test_containers() -> None:
    assert triton.containers()[0] == "23.10"
    for month in triton.containers():
        assert triton.month(triton.image(month)) == (month, "trtllm-python-py3")
        row = triton.row(month)
        assert row is not None
        for field in ("tensorrt_llm", "tensorrt", "cuda", "driver", "python", "torch", "size"):
            assert (row[field] is None) == (triton.hole(month, field) is not None)
    assert triton.row("23.09") is None
    assert triton.hole("23.09", "cuda") is None
    assert triton.shipping("1.0.0") == ["25.09", "25.10"]
    assert triton.shipping("0.18.1") == []


# --- drivers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda", "driver"),
    [
        ("12.4.1", "550.54.15"),
        ("12.4.0", "550.54.14"),
        ("12.4", "550.54.14"),
        ("12.3.2", "545.23.08"),
        ("12.3.2.001", "545.23.08"),
        ("12.8.0.038", "570.26"),
        ("13.1.0.036", "590.44.01"),
        ("12.7", None),
        ("12.7.1", None),
        ("13.4.0", None),
        ("12", None),
        ("14.0", None),
        ("", None),
        ("x", None),
    ],
)
def test_driver_of_a_toolkit(cuda: str, driver: str | None) -> None:
    found = drivers.of_toolkit(cuda)
    assert (found[0] if found else None) == driver
    assert found is None or found[1]


def test_drivers_are_compared_by_number() -> None:
    assert drivers.numbers("570.124.06") > drivers.numbers("570.86.10") > drivers.numbers("570.26")
    assert drivers.numbers("535.104.05") == (535, 104, 5)
    assert drivers.numbers("535.x") == (535,)
    assert drivers.numbers("") == ()


def test_older_drivers() -> None:
    assert drivers.minor_version("12.9.1") == (
        "525.60.13",
        "NVIDIA CUDA Toolkit release notes, Table 2",
    )
    assert drivers.minor_version("14.0") is None
    row = drivers.forward("12.4.1")
    assert row is not None
    assert "470.57" in row["branches"]
    unread = drivers.forward("12.9")
    assert unread is not None
    assert unread["branches"] is None
    assert unread["hole"]
    assert drivers.forward("12.0") is None


# --- gpus ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100"),
        ("NVIDIA H100 NVL", "H100"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "H100"),
        ("NVIDIA-H100-80GB-HBM3", "H100"),
        ("H100-SXM", "H100"),
        ("H100_PCIe", "H100"),
        ("h100", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA H20-3e", "H20"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA GH200 144G HBM3e", "GH200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("A100-SXM-80GB", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A2", "A2"),
        ("NVIDIA A16", "A16"),
        ("NVIDIA A30", "A30"),
        ("NVIDIA A40-48Q", "A40"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla V100-PCIE-32GB", "V100"),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L20", "L20"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA B300 SXM6 AC", "B300"),
        ("NVIDIA GB300", "GB300"),
        ("NVIDIA GB10", "GB10 (DGX Spark)"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "Jetson AGX Orin"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA RTX A2000 12GB", "RTX A2000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA RTX 4000 Ada Generation", "RTX 4000 Ada"),
        ("NVIDIA RTX 5000 Ada Generation Laptop GPU", "RTX 5000 Ada"),
        ("Quadro RTX 6000", "Quadro RTX 6000"),
        ("Quadro RTX 4000", "Quadro RTX 4000"),
        ("Quadro RTX 5000 with Max-Q Design", "Quadro RTX 5000"),
        ("NVIDIA TITAN V", "TITAN V"),
        ("NVIDIA GeForce RTX 3090 Ti", "GeForce RTX 3090"),
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "GeForce RTX 4070"),
        ("NVIDIA GeForce RTX 5090", "GeForce RTX 5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", None),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", None),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell Max-Q"),
    ],
)
def test_names_as_tools_spell_them(name: str, row: str | None) -> None:
    found = gpus.find(name)
    assert found is not None
    assert found["name"] == (row or name.removeprefix("NVIDIA "))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "NVIDIA",
        "Tesla",
        "NVIDIA Graphics Device",
        "GH100",
        "NVIDIA H800",
        "NVIDIA A100X",
        "NVIDIA A1000",
        "NVIDIA A800-SXM4-80GB",
        "NVIDIA L400",
        "NVIDIA L2",
        "Tesla T40",
        "NVIDIA T400",
        "Tesla P100-PCIE-16GB",
        "Tesla K80",
        "NVIDIA RTX 6000",
        "NVIDIA RTX 4000",
        "NVIDIA RTX 4000 SFF Ada Generation",
        "NVIDIA RTX A400",
        "GeForce RTX 40900",
        "NVIDIA GeForce GTX 1080 Ti",
        "NVIDIA TITAN Xp",
        "AMD Instinct MI300X",
        "not an H100",
    ],
)
def test_another_gpu_is_not_taken_for_one_of_the_table(name: str) -> None:
    assert gpus.find(name) is None


def test_every_row_finds_itself() -> None:
    for row in gpus.table()["gpus"]:
        assert gpus.find(row["name"]) == row
        assert gpus.find(f"NVIDIA {row['name']}") == row
        assert row["name"] in gpus.named(row["compute_capability"])
        assert gpus.architecture(row["compute_capability"]) == row["architecture"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("9.0", "9.0"),
        ("90", "9.0"),
        ("sm_90", "9.0"),
        ("sm90", "9.0"),
        ("SM_90a", "9.0"),
        ("compute_90", "9.0"),
        ("cc 8.6", "8.6"),
        (" 8.9\n", "8.9"),
        ("100", "10.0"),
        ("sm_103a", "10.3"),
        ("12.1", "12.1"),
        ("sm_120f", "12.0"),
        ("9", None),
        ("", None),
        ("9.", None),
        ("090", None),
        ("0.0", None),
        ("1.23", None),
        ("12.10", None),
        ("-9.0", None),
        ("90-real", None),
        ("H100", None),
        ("٩٠", None),
    ],
)
def test_capability(text: str, found: str | None) -> None:
    assert gpus.capability(text) == found


def test_capabilities_in_order() -> None:
    found = gpus.capabilities()
    assert found[0] == "7.0"
    assert found.index("8.9") < found.index("9.0") < found.index("10.0") < found.index("12.1")
    assert gpus.architecture("6.0") is None
    assert gpus.named("6.0") == []
    assert gpus.rank("10.0") > gpus.rank("9.0")


def test_precisions() -> None:
    rows: list[dict[str, Any]] = gpus.precisions()
    fp8 = [row for row in rows if row["precision"] == "fp8"]
    assert {row["minimum"] for row in fp8} == {"8.9"}


# --- models --------------------------------------------------------------------------------------


def test_models_by_repository_or_by_name() -> None:
    by_name = models.find("gpt2-medium")
    assert by_name is not None
    assert by_name["repository"] == "openai-community/gpt2-medium"
    assert models.find("anything", "openai-community/gpt2-medium") == by_name
    assert models.find("GPT-2B-001") == models.find("gpt-2b-001") is not None
    # A repository decides: a name may be anybody's.
    assert models.find("gpt2-medium", "somebody/gpt2-medium") is None
    assert models.find("gpt3") is None
