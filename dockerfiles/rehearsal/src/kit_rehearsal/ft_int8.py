"""Int8 beside the checkpoints of 0.5.0 to 0.8.0: what `-sq` and `--calibrate-kv-cache` add.

hf_gpt_convert.py and hf_llama_convert.py write every matrix in int8 twice, with one scale and with
one per output channel (`.col`), and the scales that a build may want (`smooth_quant.int8_layer`
lists them); build.py takes its choice. For the cache it is one scale alone. The releases' readers
take the scales of q, k and v in one go and so only for one rank; here they are cut for more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from . import calibration, scheme, smooth_quant
from .errors import BackendError, CheckFailedError
from .files import write_bytes
from .linears import MATRICES
from .split import Placement, cut_layer_tensor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path

    from .engine import Shape
    from .ft_layout import Family
    from .scheme import Scheme
    from .smooth_quant import Smoothed
    from .split import Network
    from .tensors import Stored

_LAYERS = "transformer.layers."
_ROW_PARALLEL = ("attention.dense", "mlp.proj")
_CODES = ("weight.int8", "weight.int8.col")
_ONCE = ("scale_x_orig_quant", "scale_w_quant_orig", "scale_y_accum_quant", "scale_y_quant_orig")
_CHANNELS = ("scale_w_quant_orig.col", "scale_y_accum_quant.col")


def convert(directory: Path, network: Network, args: argparse.Namespace, family: Family) -> Network:
    """Write the int8 files that the options ask for; returns the model to write in floats.

    That is the smoothed one with `-sq`, as the releases smooth the model in place; its source says
    what it was calibrated with.
    """
    alpha = args.smoothquant
    if alpha is None and not args.calibrate_kv_cache:
        return network
    shape = network.shape
    if shape.norm == "layer" and shape.n_kv_head != shape.n_head:
        raise CheckFailedError("int8 is not there for models of the GPT family with multi-query")
    prompts = calibration.prompts_of(args.in_file, None)
    ranges = calibration.measure(network, prompts)
    smoothed = smooth_quant.Smoothed(network, ranges, {})
    if alpha is not None:
        scheme.check_alpha(alpha)
        smoothed = smooth_quant.smooth(network, ranges, alpha, rows=shape.norm == "rms")
    _write(directory, smoothed, family, args.tensor_parallelism, cache_only=alpha is None)
    said = {"calibration": calibration.source(None)}
    return replace(smoothed.network, source={**network.source, **said})


def _write(
    directory: Path, smoothed: Smoothed, family: Family, tp_size: int, *, cache_only: bool
) -> None:
    network, shape = smoothed.network, smoothed.network.shape
    for name in smooth_quant.matrix_names(network):
        is_qkv = name.endswith("attention.qkv")
        if cache_only and not is_qkv:
            continue
        weight, base = network.weights[f"{name}.weight"], old_name(name, family)
        parts = smooth_quant.layer_parts(name, shape, len(weight))
        made = smooth_quant.int8_layer(weight, smoothed.ranges[name], parts)
        if cache_only:
            _save(directory, f"{base}.scale_y_quant_orig", made["scale_y_quant_orig"])
            continue
        for kind in _ONCE:
            _save(directory, f"{base}.{kind}", made[kind])
        in_parts = not name.endswith(_ROW_PARALLEL)
        for kind in () if in_parts else _CHANNELS:
            _save(directory, f"{base}.{kind}", made[kind])
        for place in (Placement(rank, tp_size) for rank in range(tp_size)):
            for kind in _CODES:
                part = cut_layer_tensor(f"{name}.weight", made[kind], shape, place)
                _save(directory, f"{base}.{kind}.{place.rank}", part.T)
            for kind in _CHANNELS if in_parts else ():
                part = cut_layer_tensor(f"{name}.bias", made[kind], shape, place)
                _save(directory, f"{base}.{kind}.{place.rank}", part)
            # GPT's are ones, which its files leave out.
            if not in_parts and shape.norm == "rms":
                smoother = smoothed.smoothers[name]
                part = cut_layer_tensor(f"{name}.smoother", smoother, shape, place)
                _save(directory, f"{base}.smoother.{place.rank}", part)


def quantized(
    weights: Mapping[str, Stored],
    directory: Path,
    family: Family,
    shape: Shape,
    place: Placement,
    plan: Scheme,
) -> dict[str, Stored]:
    """A rank's weights with the int8 matrices and scales that its build wants of a folder."""
    made = dict(weights)
    first = place.layers(shape.n_layer).start
    for name in [one.removesuffix(".weight") for one in weights]:
        if not name.endswith(MATRICES):
            continue
        number, _, module = name.removeprefix(_LAYERS).partition(".")
        base = directory / old_name(f"{_LAYERS}{int(number) + first}.{module}", family)
        if plan.kv_cache == "int8" and module == "attention.qkv":
            scale = _load(base, "scale_y_quant_orig", np.float32, (1,))
            made[f"{_LAYERS}{number}.attention.kv_cache_scaling_factor"] = scale
        if plan.is_plugin:
            layer = _layer(base, name, weights[f"{name}.weight"].shape, shape, place, plan)
            options = {"per_token": plan.per_token, "per_channel": plan.per_channel}
            made.update(smooth_quant.engine_tensors(name, layer, **options))
            if name.endswith(_ROW_PARALLEL):
                width = weights[f"{name}.weight"].shape[1]
                smoother = np.ones(width, dtype=np.float32)
                if shape.norm == "rms":
                    smoother = _load(base, f"smoother.{place.tp_rank}", np.float32, (width,))
                made[f"{name}.smoother"] = smoother.reshape(1, -1)
    return made


def _layer(
    base: Path, name: str, size: tuple[int, ...], shape: Shape, place: Placement, plan: Scheme
) -> dict[str, Stored]:
    """What `engine_tensors` wants of a layer, of the kind that is built."""
    out, width = size
    rank = f".{place.tp_rank}"
    column = ".col" if plan.per_channel else ""
    codes = _load(base, f"weight.int8{column}{rank}", np.int8, (width, out)).T
    layer: dict[str, Stored] = {f"weight.int8{column}": np.ascontiguousarray(codes)}
    scale = ("scale_w_quant_orig" if plan.per_token else "scale_y_accum_quant") + column
    if plan.per_channel:
        in_parts = not name.endswith(_ROW_PARALLEL)
        layer[scale] = _load(base, scale + (rank if in_parts else ""), np.float32, (out,))
    elif name.endswith("attention.qkv"):
        rows = (shape.n_head + 2 * shape.n_kv_head) * shape.head_size
        whole = _load(base, scale, np.float32, (rows,))
        layer[scale] = cut_layer_tensor(f"{name}.bias", whole, shape, place)
    else:
        layer[scale] = _load(base, scale, np.float32, (1,))
    if not plan.per_token:
        for kind in ("scale_x_orig_quant", "scale_y_quant_orig"):
            layer[kind] = _load(base, kind, np.float32, (1,))
    return layer


def old_name(name: str, family: Family) -> str:
    """`model.layers.0.mlp.dense_h_to_4h` of `transformer.layers.0.mlp.fc`."""
    number, _, module = name.removeprefix(_LAYERS).partition(".")
    return f"model.layers.{number}.{family.layer[module]}"


def _save(directory: Path, name: str, values: Stored) -> None:
    write_bytes(directory / f"{name}.bin", np.ascontiguousarray(values).tobytes())


def _load(base: Path, kind: str, dtype: type[np.generic], size: tuple[int, ...]) -> Stored:
    path = base.with_name(f"{base.name}.{kind}.bin")
    option = "--calibrate-kv-cache or --smoothquant" if "_y_" in kind else "--smoothquant"
    try:
        values = np.frombuffer(path.read_bytes(), dtype=dtype)
    except FileNotFoundError:
        raise BackendError(f"{path}: no such file; was it converted with {option}?") from None
    if values.size != int(np.prod(size)):
        raise BackendError(f"{path}: expected {int(np.prod(size))} values, found {values.size}")
    return values.reshape(size)
