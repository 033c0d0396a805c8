"""The configurations of the Python API: quantization, mapping of ranks, plugins, building.

Attributes stand under the names that the releases have for them, and take what those take.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from . import options, plugin_config
from .errors import BackendError
from .releases import Span
from .signatures import bound, build_fields, release

# From 0.11.0 on the fields of a PluginConfig take certain values only.
_CHECKED_PLUGINS = Span("0.11.0")
_PLUGIN_TYPES = ("auto", "float16", "float32", "bfloat16", "int32", None)
_OTHER_TYPES: dict[str, tuple[str | None, ...]] = {
    "gemm_plugin": (*_PLUGIN_TYPES, "fp8", "nvfp4"),
    "gemm_swiglu_plugin": ("fp8", None),
    "low_latency_gemm_plugin": ("fp8", None),
    "low_latency_gemm_swiglu_plugin": ("fp8", None),
    "gemm_allreduce_plugin": ("float16", "bfloat16", None),
}
# Fields that are no option of trtllm-build and are recorded all the same.
_OTHER_FIELDS = ("gather_context_logits", "gather_generation_logits", "kv_cache_type")


class QuantAlgo(str, Enum):
    """The releases' names of quantizations."""

    W8A16 = "W8A16"
    W4A16 = "W4A16"
    W4A16_AWQ = "W4A16_AWQ"
    W4A8_AWQ = "W4A8_AWQ"
    W4A16_GPTQ = "W4A16_GPTQ"
    W8A8_SQ_PER_CHANNEL = "W8A8_SQ_PER_CHANNEL"
    W8A8_SQ_PER_TENSOR_PLUGIN = "W8A8_SQ_PER_TENSOR_PLUGIN"
    W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN = "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN"  # noqa: S105
    W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN = "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN"
    W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN = "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN"  # noqa: S105
    FP8 = "FP8"
    INT8 = "INT8"


WEIGHT_ONLY = {QuantAlgo.W8A16: "int8", QuantAlgo.W4A16: "int4"}
# What the releases leave to their tool, by quantize.py's --qformat.
OF_THE_TOOL = {
    QuantAlgo.W4A16_AWQ: "int4_awq",
    QuantAlgo.W8A8_SQ_PER_CHANNEL: "int8_sq",
    QuantAlgo.FP8: "fp8",
}


class QuantConfig:
    """How a model is quantized."""

    def __init__(self, *given: Any, **named: Any) -> None:
        said = bound("QuantConfig", given, named)
        self.quant_algo: QuantAlgo | None = said.pop("quant_algo", None)
        self.kv_cache_quant_algo: QuantAlgo | None = said.pop("kv_cache_quant_algo", None)
        self.smoothquant_val: float | None = said.pop("smoothquant_val", None)
        if said.pop("group_size", 128) != 128:
            raise BackendError("QuantConfig: another group_size than 128 is not computed")
        for name, value in said.items():
            if value:
                raise BackendError(f"QuantConfig: {name} is not computed")

    def __repr__(self) -> str:
        return f"QuantConfig({self.quant_algo}, {self.kv_cache_quant_algo})"

    @property
    def needs_calibration(self) -> bool:
        """Whether texts are needed to do it."""
        return self.quant_algo not in {None, *WEIGHT_ONLY} or self.kv_cache_quant_algo is not None

    def native(self) -> list[str]:
        """What convert_checkpoint.py is told of it."""
        argv: list[str] = []
        algorithm = self.quant_algo
        if algorithm in WEIGHT_ONLY:
            argv += ["--use_weight_only", "--weight_only_precision", WEIGHT_ONLY[algorithm]]
        elif algorithm is not None and algorithm.value.endswith("_PLUGIN"):
            alpha = 0.5 if self.smoothquant_val is None else self.smoothquant_val
            argv += ["--smoothquant", str(alpha)]
            argv += ["--per_token"] if "PER_TOKEN" in algorithm.value else []
            argv += ["--per_channel"] if "PER_CHANNEL" in algorithm.value else []
        elif algorithm is not None:
            raise BackendError(f"quantization {algorithm.value} is not computed")
        if self.kv_cache_quant_algo is QuantAlgo.INT8:
            argv.append("--int8_kv_cache")
        elif self.kv_cache_quant_algo is not None:
            raise BackendError(
                f"a {self.kv_cache_quant_algo.value} cache goes with a quantization of the tool's"
            )
        return argv


class Mapping:
    """How ranks share a model; rank = pp_rank * tp_size + tp_rank, or -1 for no certain one."""

    def __init__(self, *given: Any, **named: Any) -> None:
        said = bound("Mapping", given, named)
        self.world_size: int = said.pop("world_size", 1)
        self.rank: int = said.pop("rank", 0)
        self.gpus_per_node: int = said.pop("gpus_per_node", 8)
        self.tp_size: int = said.pop("tp_size", 1)
        self.pp_size: int = said.pop("pp_size", 1)
        for name, value in said.items():
            if value not in {1, -1}:
                raise BackendError(f"Mapping: {name} is not computed")
        if self.tp_size * self.pp_size != self.world_size:
            raise ValueError(
                f"world_size must equal to tp_size * pp_size, but got {self.world_size} != "
                f"{self.tp_size} * {self.pp_size}"
            )
        if not -1 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} of {self.world_size}")

    @property
    def tp_rank(self) -> int:
        """Its place among those that share its layers."""
        return self.rank % self.tp_size

    @property
    def pp_rank(self) -> int:
        """Its stage."""
        return self.rank // self.tp_size


class PluginConfig:
    """A release's plugins, which can be set to what the release has; recorded, without effect."""

    def __init__(self) -> None:
        self.__dict__.update(plugin_config.defaults(release()))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__:
            raise AttributeError(f"release {release()}: plugin_config has no {name}")
        if _CHECKED_PLUGINS.holds(release()):
            is_plugin = name.endswith("_plugin") and not name.startswith("quantize_")
            taken: tuple[Any, ...] = _OTHER_TYPES.get(name, _PLUGIN_TYPES) if is_plugin else ()
            if isinstance(self.__dict__[name], bool):
                taken = (True, False)
            if taken and not any(value is one or value == one for one in taken):
                raise ValueError(
                    f"release {release()}: plugin {name} expects values in {taken}, got {value!r}"
                )
        self.__dict__[name] = value


class BuildConfig:
    """What trtllm-build is asked for, under its options' names."""

    def __init__(self, *, plugin_config: PluginConfig | None = None, **asked: Any) -> None:
        computed = {row["dest"] for row in options.rows("trtllm-build", release())}
        for name in asked:
            if name not in build_fields():
                raise TypeError(f"release {release()}: BuildConfig has no argument {name}")
            if name not in {*computed, *_OTHER_FIELDS}:
                raise BackendError(f"BuildConfig: {name} is not computed")
        self.plugin_config = plugin_config or PluginConfig()
        self.__dict__.update(asked)

    def asked(self) -> dict[str, Any]:
        """What is said of the build, plugins apart."""
        return {name: value for name, value in self.__dict__.items() if name != "plugin_config"}
