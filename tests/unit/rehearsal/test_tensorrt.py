"""Engines of TensorRT, as far as no GPU is needed: their files, and what is refused before one is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kit_rehearsal import engine, tensorrt_backend
from kit_rehearsal.commands import main
from kit_rehearsal.engine import Engine, Plan, Shape
from kit_rehearsal.errors import BackendError

from kit.artifacts import plan

SHAPE = Shape(1, 2, 2, 4, 8, 16, 32, 16, "layer", 1e-5, "gelu")
CONTENT = b"ftrt" + bytes(20) + bytes([8, 6, 0, 12]) + bytes(range(100))
LAYERS = [{"Name": "one", "TacticValue": "0x0"}]
BUILT = Plan(CONTENT, 0, "9.0", LAYERS)
WEIGHTS = {"transformer.ln_f.weight": np.ones(8, np.float32)}
PLAIN = Engine("0.16.0", 0, 1, 1, "float16", SHAPE, WEIGHTS)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "rank0.engine"
    replace(PLAIN, weights={}, plan=BUILT).write(path)
    return path


def test_what_is_written_is_read(written) -> None:
    found = engine.read(written)
    assert found.plan == BUILT
    assert found.plan.tensorrt == "8.6.0.12"
    assert (found.release, found.model, found.weights) == ("0.16.0", SHAPE, {})


def test_the_kit_reads_what_the_backend_writes(written) -> None:
    found = plan.look(written)
    assert (found.backend, found.builder, found.problem) == ("rehearsal", "TensorRT", None)
    start, size = found.rehearsal.plan.layers
    assert b"TacticValue" in written.read_bytes()[start : start + size]


def test_a_cut_file_is_refused(written) -> None:
    written.write_bytes(written.read_bytes()[:-1])
    with pytest.raises(BackendError, match="damaged header"):
        engine.read(written)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (replace(PLAIN, tp_size=2), "several ranks in TensorRT"),
        (replace(PLAIN, pp_size=2), "several ranks in TensorRT"),
        (replace(PLAIN, dtype="bfloat16"), "bfloat16 in TensorRT"),
        (replace(PLAIN, kv_cache="int8"), "key/value caches of int8"),
        (replace(PLAIN, weights={"w": np.ones(2, np.int8)}), "quantized weights"),
    ],
)
def test_what_is_computed_in_numpy_only(given, what) -> None:
    with pytest.raises(BackendError, match=what):
        tensorrt_backend.built(given, None)


def test_without_tensorrt_an_engine_of_it_is_refused(model, tmp_path, monkeypatch, capsys) -> None:
    """Not quietly built in NumPy."""
    monkeypatch.setenv(tensorrt_backend.VARIABLE, "tensorrt")
    checkpoint, built = tmp_path / "checkpoint", tmp_path / "engine"
    argv = ["--model_dir", str(model), "--output_dir", str(checkpoint), "--gpt_variant", "gpt2"]
    assert main("0.9.0", "examples/gpt/convert_checkpoint.py", argv) == 0
    argv = ["--checkpoint_dir", str(checkpoint), "--output_dir", str(built)]
    assert main("0.9.0", "trtllm-build", argv) == 1
    said = capsys.readouterr().err
    assert "no libcublasLt.so.12 in the Python packages of NVIDIA" in said or (
        "TensorRT cannot be loaded" in said  # there are other packages of NVIDIA
    )
    assert not list(built.glob("*.engine"))


def test_another_backend_is_refused(monkeypatch) -> None:
    monkeypatch.setenv(tensorrt_backend.VARIABLE, "tensorflow")
    with pytest.raises(BackendError, match="expected one of numpy, tensorrt, found 'tensorflow'"):
        tensorrt_backend.is_asked_for()
