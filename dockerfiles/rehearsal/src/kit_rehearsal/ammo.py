"""FP8 before 0.8.0: scales in an .npz file of quantize.py, or made up, and build.py --enable_fp8.

quantize.py calibrates a LLaMA and writes `llama_tp1_rank0.npz`, of which build.py reads the scales
(examples/llama/weight.py of 0.5.0 to 0.7.1); the weights it takes from the model. Without that
file, and for GPT always, build.py makes every scale up: 0.99 for LLaMA, 0.5 for GPT. An FP8 cache
is not calibrated. Only the scales are in the file here: AMMO's holds the weights as well.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import calibration, llama_huggingface, quantization
from .errors import BackendError, NotComputedError
from .files import read_json, write_bytes
from .linears import MATRICES
from .log import info, warning
from .smooth_quant import matrix_names

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from .tensors import Stored

FILE = "llama_tp1_rank0.npz"
_LAYERS = "transformer.layers."
_MADE_UP = {"gpt": (0.5, 0.5), "llama": (0.99, 5.0)}  # of layers, of the cache
_CACHE_OF_FILE = 1.0
_KINDS = ("activation", "weights")


def quantize(release: str, args: argparse.Namespace) -> None:  # noqa: ARG001
    """quantize.py until 0.7.1: the scales of a LLaMA in FP8, in --export_path."""
    if args.qformat != "fp8":
        raise NotComputedError(f"the format {args.qformat} of releases before 0.8.0", "--qformat")
    source = Path(args.model_dir)
    kind = read_json(source / "config.json").get("model_type")
    if kind != "llama":
        raise NotComputedError(f"scales of a {kind} before 0.8.0", str(source))
    network = llama_huggingface.read_model(source)
    prompts = calibration.prompts_of(str(source), None, most=args.calib_size)
    ranges = calibration.measure(network, prompts)
    kv = network.shape.n_kv_head * network.shape.head_size
    made: dict[str, Stored] = {}
    for name in matrix_names(network):
        weight = network.weights[f"{name}.weight"]
        parts = {"": weight}
        if name.endswith("qkv"):
            cuts = np.split(weight, [len(weight) - 2 * kv, len(weight) - kv])
            parts = {f":{part}": rows for part, rows in zip("qkv", cuts)}
        for part, rows in parts.items():
            most = {"activation": ranges[name].inputs.max(), "weights": np.abs(rows).max()}
            for key, value in most.items():
                step = max(float(value), 1e-8) / quantization.FP8_MOST
                made[_key(name, part, key)] = np.array(step, dtype=np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **made)
    write_bytes(Path(args.export_path) / FILE, buffer.getvalue())
    info(f"wrote the scales to {Path(args.export_path) / FILE}")


def scales_of(path: str | None, family: str, layers: int) -> dict[str, float]:
    """The scales that a build uses, by tensor; `path` is the file of quantize.py, if there is one.

    They are those of all ranks: layers are counted from the first of the model.
    """
    names = [f"{_LAYERS}{layer}.{matrix}" for layer in range(layers) for matrix in MATRICES]
    caches = [f"{_LAYERS}{layer}.attention.kv_cache_scaling_factor" for layer in range(layers)]
    if path is None:
        of_layers, of_caches = _MADE_UP[family]
        warning(f"no calibrated FP8 scales: {of_layers} for every layer, {of_caches} for caches")
        made = {f"{name}.{kind}_scaling_factor": of_layers for name in names for kind in _KINDS}
        return made | dict.fromkeys(caches, of_caches)
    try:
        with np.load(path, allow_pickle=False) as file:
            made = {
                f"{name}.{kind}_scaling_factor": max(
                    float(file[_key(name, part, kind)])
                    for part in ((":q", ":k", ":v") if name.endswith("qkv") else ("",))
                )
                for name in names
                for kind in _KINDS
            }
    except (OSError, ValueError, KeyError) as error:
        raise BackendError(f"{path}: not the scales of this model: {error}") from error
    return made | dict.fromkeys(caches, _CACHE_OF_FILE)


def rounded(
    weights: Mapping[str, Stored], scales: Mapping[str, float], first: int, *, cache: bool
) -> dict[str, Stored]:
    """A rank's weights in float8 with their scales; `first` is the model's number of its layer 0.

    With `cache` the scales of its key/value caches are there too.
    """
    made = dict(weights)
    for name in [one.removesuffix(".weight") for one in weights]:
        if not name.endswith(MATRICES):
            continue
        number, _, module = name.removeprefix(_LAYERS).partition(".")
        whole = f"{_LAYERS}{int(number) + first}."
        for kind in _KINDS:
            scale = scales[f"{whole}{module}.{kind}_scaling_factor"]
            made[f"{name}.{kind}_scaling_factor"] = np.array([scale], dtype=np.float32)
        step = made[f"{name}.weights_scaling_factor"]
        made[f"{name}.weight"] = quantization.to_fp8(weights[f"{name}.weight"] / step)
        if cache and module == "attention.qkv":
            scale = scales[f"{whole}attention.kv_cache_scaling_factor"]
            own = f"{_LAYERS}{number}.attention.kv_cache_scaling_factor"
            made[own] = np.array([scale], dtype=np.float32)
    return made


def _key(name: str, part: str, kind: str) -> str:
    """`_np:layers:0:attention:qkv:q:weights_scaling_factor` and the like."""
    module = name.removeprefix("transformer.").replace(".", ":")
    return f"_np:{module}{part}:{kind}_scaling_factor"
