"""Which quantization a command line asks for, and doing it to a model.

What needs all of a matrix (smoothers, scales of activations, of one matrix) is done before the
model is cut for its ranks: `prepared`. Weights alone and groups are rounded after the cut, as the
releases do it: `finished`. The names of the algorithms are those of the releases' `quant_algo`,
which 0.8.0 to 1.2.1 spell alike (tensorrt_llm/quantization/mode.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import awq, calibration, quantization, smooth_quant
from .errors import BackendError, CheckFailedError, NotComputedError
from .linears import MATRICES
from .tensors import decode, encode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from .calibration import Range
    from .kv_cache import KvType
    from .split import Network
    from .tensors import Array, Stored

WEIGHT_ONLY = {"W8A16": 8, "W4A16": 4}
# Other kinds of --weight_only_precision are refused before (refusals.py).
_WEIGHTS = {"int8": "W8A16", "int4": "W4A16"}
_AWQ = "W4A16_AWQ"
_INT8 = "W8A8_SQ_PER_CHANNEL"
FP8 = "FP8"
# By (per channel, per token).
_PLUGINS = {
    (False, False): "W8A8_SQ_PER_TENSOR_PLUGIN",
    (False, True): "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN",
    (True, False): "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN",
    (True, True): "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN",
}
# tensorrt_llm/quantization/mode.py
_INT4_WEIGHTS, _INT8_WEIGHTS, _ACTIVATIONS, _PER_CHANNEL, _PER_TOKEN = 1, 2, 4, 8, 16
_INT8_CACHE, _FP8_CACHE, _FP8_LAYERS = 64, 128, 256
_FORMATS = {
    "full_prec": None,
    "int8_wo": "W8A16",
    "int4_wo": "W4A16",
    "int8_sq": _INT8,
    "int4_awq": _AWQ,
    "fp8": FP8,
}
# The exponent of the releases' tool (its INT8_SMOOTHQUANT_CFG) for `--qformat int8_sq`.
_TOOL_ALPHA = 1.0


@dataclass(frozen=True)
class Scheme:
    """A quantization.

    Attributes:
        algorithm: the release's `quant_algo`, or None.
        kv_cache: what the key/value cache is kept in, or None for the model's type.
        alpha: SmoothQuant's exponent, where it is SmoothQuant.
        group_size: inputs that share a scale, for AWQ.
        unit_scale: FP8 caches with scale 1 rather than a calibrated one.
        exported: by quantize.py, which leaves weights alone to the build.
    """

    algorithm: str | None = None
    kv_cache: KvType | None = None
    alpha: float | None = None
    group_size: int = 128
    unit_scale: bool = False
    exported: bool = False

    @property
    def is_plugin(self) -> bool:
        """Whether it is SmoothQuant as the convert scripts do it."""
        return self.algorithm in _PLUGINS.values()

    @property
    def per_token(self) -> bool:
        """Whether every token has a scale of its own."""
        return self.algorithm is not None and "PER_TOKEN" in self.algorithm

    @property
    def per_channel(self) -> bool:
        """Whether every output channel has a scale of its own."""
        return self.algorithm is not None and "PER_CHANNEL" in self.algorithm

    @property
    def calibrates(self) -> bool:
        """Whether texts are needed."""
        cache = self.kv_cache is not None and not self.unit_scale
        return cache or self.algorithm not in {None, *WEIGHT_ONLY}

    @property
    def mode(self) -> int:
        """The bits of the releases' QuantMode, which is what build.py records."""
        algorithm, bits = self.algorithm, 0
        if algorithm == "W4A16":
            bits |= _INT4_WEIGHTS
        elif algorithm == "W8A16":
            bits |= _INT8_WEIGHTS
        elif self.is_plugin:
            bits |= _INT8_WEIGHTS | _ACTIVATIONS
            bits |= _PER_CHANNEL if self.per_channel else 0
            bits |= _PER_TOKEN if self.per_token else 0
        elif algorithm == FP8:
            bits |= _FP8_LAYERS
        return bits | {None: 0, "int8": _INT8_CACHE, "fp8": _FP8_CACHE}[self.kv_cache]

    def record(self) -> dict[str, Any]:
        """What `quantization` of config.json says of it; keys that it says nothing of are left."""
        made: dict[str, Any] = {
            "quant_algo": self.algorithm,
            "kv_cache_quant_algo": None if self.kv_cache is None else self.kv_cache.upper(),
        }
        if self.is_plugin:
            made["smoothquant_val"] = self.alpha
        if self.algorithm == _AWQ:
            made |= {"group_size": self.group_size, "pre_quant_scale": True}
        if self.exported and self.algorithm is not None:
            made["exclude_modules"] = ["lm_head"]
        return made


def of(args: argparse.Namespace) -> Scheme:
    """What a script that writes a checkpoint of the later layout is asked for."""
    return of_quantize(args) if hasattr(args, "qformat") else of_convert(args)


def of_convert(args: argparse.Namespace) -> Scheme:
    """What the options of a convert_checkpoint.py ask for."""
    kv_cache: KvType | None = "int8" if args.int8_kv_cache else None
    unit = kv_cache is None and getattr(args, "fp8_kv_cache", False)
    base = Scheme(kv_cache="fp8" if unit else kv_cache, unit_scale=unit)
    if args.use_weight_only:
        return replace(base, algorithm=_WEIGHTS[args.weight_only_precision])
    # As in the releases, whose scripts ask whether it is true: 0 is no SmoothQuant.
    if args.smoothquant:
        check_alpha(args.smoothquant)
        algorithm = _PLUGINS[args.per_channel, args.per_token]
        return replace(base, algorithm=algorithm, alpha=args.smoothquant)
    return base


def of_build(args: argparse.Namespace) -> Scheme:
    """What the options of a family's build.py (0.5.0 to 0.8.0) ask for."""
    if args.enable_fp8:
        if args.use_weight_only or args.use_smooth_quant or args.int8_kv_cache:
            raise NotComputedError("FP8 with another quantization", "--enable_fp8")
        return Scheme(algorithm=FP8, kv_cache="fp8" if args.fp8_kv_cache else None)
    if args.fp8_kv_cache:
        raise NotComputedError(
            "an FP8 cache without --enable_fp8, which has no scale", "--fp8_kv_cache"
        )
    base = Scheme(kv_cache="int8" if args.int8_kv_cache else None)
    if args.use_weight_only:
        return replace(base, algorithm=_WEIGHTS[args.weight_only_precision])
    if args.use_smooth_quant:
        return replace(base, algorithm=_PLUGINS[args.per_channel, args.per_token])
    return base


def of_quantize(args: argparse.Namespace) -> Scheme:
    """What the options of quantize.py ask for."""
    if args.qformat not in _FORMATS:
        raise NotComputedError(f"the format {args.qformat}", "--qformat")
    return Scheme(
        algorithm=_FORMATS[args.qformat],
        kv_cache=args.kv_cache_dtype,
        alpha=_TOOL_ALPHA if args.qformat == "int8_sq" else None,
        group_size=args.awq_block_size,
        exported=True,
    )


def of_record(record: Mapping[str, Any]) -> Scheme:
    """What `quantization` of a checkpoint's config.json says."""
    algorithm, cache = record.get("quant_algo"), record.get("kv_cache_quant_algo")
    known = {*_FORMATS.values(), *_PLUGINS.values()}
    if algorithm not in known:
        raise NotComputedError(f"quant_algo {algorithm}", "the checkpoint's config.json")
    if cache not in {None, "INT8", "FP8"}:
        raise NotComputedError(f"kv_cache_quant_algo {cache}", "the checkpoint's config.json")
    kv_cache: KvType | None = None if cache is None else "int8" if cache == "INT8" else "fp8"
    return Scheme(algorithm=algorithm, kv_cache=kv_cache, group_size=record.get("group_size", 128))


def set_weights(record: dict[str, Any], precision: str) -> None:
    """What trtllm-build's own option, until 0.10.0, makes of a checkpoint's `quantization`."""
    asked, found = _WEIGHTS[precision], record.get("quant_algo")
    if found not in {None, asked}:
        raise CheckFailedError(
            f"--weight_only_precision {precision}: the checkpoint is quantized already, {found}"
        )
    record["quant_algo"] = asked


def check_alpha(alpha: float) -> None:
    """CheckFailedError for an exponent outside 0 to 1."""
    if not 0 <= alpha <= 1:
        raise CheckFailedError(f"SmoothQuant's alpha {alpha}: expected 0 to 1")


def applied(network: Network, scheme: Scheme, args: argparse.Namespace) -> Network:
    """The whole model, calibrated and prepared, as the options of a script say it."""
    ranges: dict[str, Range] = {}
    if scheme.calibrates:
        most = getattr(args, "calib_size", 512)
        longest = getattr(args, "calib_max_seq_length", 512)
        dataset = getattr(args, "calib_dataset", None)
        prompts = calibration.prompts_of(args.model_dir, dataset, most=most, longest=longest)
        ranges = calibration.measure(network, prompts)
    return prepared(network, scheme, ranges, rows=network.shape.norm == "rms")


def plugins(plan: Scheme, dtype: str) -> dict[str, Any]:
    """What the builds set in plugin_config for a quantization; any of it a release may not have."""
    if plan.algorithm in WEIGHT_ONLY:
        return {"weight_only_quant_matmul_plugin": dtype}
    if plan.algorithm == _AWQ:
        return {"weight_only_groupwise_quant_matmul_plugin": dtype}
    if not plan.is_plugin:
        return {}
    return {
        "smooth_quant_gemm_plugin": dtype,
        "layernorm_quantization_plugin": dtype,
        "rmsnorm_quantization_plugin": dtype,
        "quantize_per_token_plugin": True,
        "quantize_tensor_plugin": True,
    }


def calibration_of(args: argparse.Namespace) -> dict[str, str]:
    """What a checkpoint says of the texts that it rests on; nothing if there are none."""
    if not of(args).calibrates:
        return {}
    return {"calibration": calibration.source(getattr(args, "calib_dataset", None))}


def prepared(
    network: Network, scheme: Scheme, ranges: Mapping[str, Range], *, rows: bool
) -> Network:
    """The whole model with everything that has to be known before it is cut.

    Args:
        network: in floats.
        scheme: what to do.
        ranges: of its layers, empty if the scheme does not calibrate.
        rows: SmoothQuant smooths dense and proj too, as for LLaMA.
    """
    made = network
    if scheme.is_plugin:
        alpha = 0.5 if scheme.alpha is None else scheme.alpha
        smoothed = smooth_quant.smooth(network, ranges, alpha, rows=rows)
        made = smooth_quant.quantized(
            smoothed, per_token=scheme.per_token, per_channel=scheme.per_channel
        )
    elif scheme.algorithm == _AWQ:
        made = awq.scaled(network, ranges, scheme.group_size)
    elif scheme.algorithm == _INT8:
        made = _int8(network, ranges)
    elif scheme.algorithm == FP8:
        made = _fp8(network, ranges)
    if scheme.kv_cache is None:
        return made
    return replace(made, weights={**made.weights, **cache_scales(network, scheme, ranges)})


def converted(weights: Mapping[str, Stored], scheme: Scheme, dtype: str) -> dict[str, Stored]:
    """A rank's tensors as a checkpoint has them; quantize.py leaves weights alone to the build."""
    if scheme.exported and scheme.algorithm in WEIGHT_ONLY:
        return dict(weights)
    return finished(weights, scheme, dtype)


def finished(weights: Mapping[str, Stored], scheme: Scheme, dtype: str) -> dict[str, Stored]:
    """A rank's tensors with what is rounded after the cut; what is rounded already stays."""
    made = dict(weights)
    if scheme.algorithm == _AWQ:
        made = awq.rounded(weights, scheme.group_size)
    elif scheme.algorithm in WEIGHT_ONLY:
        made = weights_only(weights, WEIGHT_ONLY[scheme.algorithm], dtype)
    for name, value in made.items():
        module, _, kind = name.rpartition(".")
        if kind != "weight" or not module.endswith(MATRICES):
            continue
        if scheme.algorithm is not None and value.dtype == np.float32:
            raise BackendError(f"{name}: not quantized, but quant_algo is {scheme.algorithm}")
        scale = f"{module.removesuffix('qkv')}kv_cache_scaling_factor"
        if scheme.kv_cache and module.endswith("attention.qkv") and scale not in made:
            raise BackendError(f"no {scale}, but the cache is to be {scheme.kv_cache}")
    return made


def weights_only(weights: Mapping[str, Stored], bits: int, dtype: str) -> dict[str, Stored]:
    """A rank's tensors with the layers' matrices as codes [in, out] and scales per output."""
    made = dict(weights)
    for name, value in weights.items():
        module, _, kind = name.rpartition(".")
        if kind != "weight" or not module.endswith(MATRICES) or value.dtype != np.float32:
            continue
        stored = decode(encode(value, dtype), dtype, value.shape)
        codes, scales = quantization.quantize_channels(stored, bits)
        turned = np.ascontiguousarray(codes.T)
        made[name] = turned if bits == 8 else quantization.pack_int4(turned)
        made[f"{module}.per_channel_scale"] = scales
    return made


def cache_scales(network: Network, scheme: Scheme, ranges: Mapping[str, Range]) -> dict[str, Array]:
    """The scale of each layer's key/value cache: its largest q, k or v is the last step.

    The releases take all three, before positions turn q and k.
    """
    most = quantization.INT8_MOST if scheme.kv_cache == "int8" else quantization.FP8_MOST
    made: dict[str, Array] = {}
    for layer in range(network.shape.n_layer):
        name = f"transformer.layers.{layer}.attention."
        scale = 1.0 if scheme.unit_scale else ranges[name + "qkv"].outputs.max() / most
        made[name + "kv_cache_scaling_factor"] = np.array([scale], dtype=np.float32)
    return made


def _int8(network: Network, ranges: Mapping[str, Range]) -> Network:
    """Int8 as quantize.py gives it: every matrix has its own smoother, per channel, static."""
    weights: dict[str, Stored] = dict(network.weights)
    for name in smooth_quant.matrix_names(network):
        weight, found = network.weights[f"{name}.weight"], ranges[name]
        most = np.abs(weight).max(axis=0)
        scale = smooth_quant.smoother(found.inputs, most, _TOOL_ALPHA)
        layer = smooth_quant.int8_layer(
            weight * scale, replace(found, inputs=found.inputs / scale), (len(weight),)
        )
        weights[f"{name}.weight"] = layer["weight.int8.col"]
        weights[f"{name}.weights_scaling_factor"] = layer["scale_w_quant_orig.col"]
        weights[f"{name}.activation_scaling_factor"] = 1 / layer["scale_x_orig_quant"]
        weights[f"{name}.prequant_scaling_factor"] = 1 / scale
    return replace(network, weights=weights)


def _fp8(network: Network, ranges: Mapping[str, Range]) -> Network:
    """Float8 weights and activations with one scale each per matrix."""
    weights: dict[str, Stored] = dict(network.weights)
    for name in smooth_quant.matrix_names(network):
        weight = network.weights[f"{name}.weight"]
        steps = {
            "weights": max(float(np.abs(weight).max()), 1e-8) / quantization.FP8_MOST,
            "activation": max(float(ranges[name].inputs.max()), 1e-8) / quantization.FP8_MOST,
        }
        for kind, step in steps.items():
            weights[f"{name}.{kind}_scaling_factor"] = np.array([step], dtype=np.float32)
        scale = weights[f"{name}.weights_scaling_factor"]
        weights[f"{name}.weight"] = quantization.to_fp8(weight / scale)
    return replace(network, weights=weights)
