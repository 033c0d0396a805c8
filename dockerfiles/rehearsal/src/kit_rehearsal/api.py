"""The Python API of 0.9.0 to 0.16.0: models, quantization, building, over the scripts' own work.

Every call does what the release's convert_checkpoint.py, quantize.py or trtllm-build does, so the
files are the same: `from_hugging_face` and `quantize` convert, `build` builds one rank's engine.
Signatures were read in NVIDIA/TensorRT-LLM (tensorrt_llm/models/llama/model.py and builder.py of
0.9.0 and 0.10.0, models/gpt of 0.13.0); rows marked `inferred` rest on one of them. What a
BuildConfig leaves open is what trtllm-build leaves open, where the releases' class has defaults
that are smaller (`max_batch_size` 8 rather than 256 or 2048).
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from . import engine_config, options, plugin_config, refusals
from .build import build_unified
from .commands import SCRIPTS, perform
from .communicator import connect
from .errors import BackendError, CheckFailedError
from .files import write_bytes
from .releases import RELEASES, Field, Span, record

VARIABLE = "KIT_REHEARSAL_RELEASE"
_READ = Span("0.9.0", "0.17.0")
# inferred for LLaMA: what needs no calibration belongs to from_hugging_face.
_CALIBRATES_ONLY = Span("0.12.0")
_GPT = Span("0.12.0")
_CALIB_DATASET = Span("0.10.0")
# How from_hugging_face is told of a quantization; the converter of 0.11.0 says quant_config
# (examples/llama/convert_checkpoint.py@05316d33).
_QUANTIZATION = (
    Field("quantization", before="0.11.0"),
    Field("quant_config", since="0.11.0"),
)
_PLACE_ON_DISK = ("load_by_shard", "load_model_on_cpu")  # say how, not what
_OTHER_FIELDS = ("gather_context_logits", "gather_generation_logits", "kv_cache_type")
_PLUGIN_CHOICES = ("enable", "disable")


def release() -> str:
    """The release whose tree this process works in, or that $KIT_REHEARSAL_RELEASE names.

    Raises:
        BackendError: neither says one whose API was read.
    """
    named = os.environ.get(VARIABLE)
    places = [named] if named else [part for part in Path.cwd().parts if part in RELEASES]
    if not places:
        raise BackendError(f"{Path.cwd()} is in no release's tree; go there or set {VARIABLE}")
    found = places[-1]
    if found not in RELEASES or not _READ.holds(found):
        raise BackendError(
            f"the Python API of release {found} is not known: it was read for 0.9.0 to 0.16.0"
        )
    return found


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


_WEIGHT_ONLY = {QuantAlgo.W8A16: "int8", QuantAlgo.W4A16: "int4"}
# What the releases leave to their tool, by quantize.py's --qformat.
_OF_THE_TOOL = {
    QuantAlgo.W4A16_AWQ: "int4_awq",
    QuantAlgo.W8A8_SQ_PER_CHANNEL: "int8_sq",
    QuantAlgo.FP8: "fp8",
}


@dataclass
class QuantConfig:
    """How a model is quantized."""

    quant_algo: QuantAlgo | None = None
    kv_cache_quant_algo: QuantAlgo | None = None
    group_size: int | None = 128
    smoothquant_val: float | None = None
    has_zero_point: bool = False
    pre_quant_scale: bool = False
    exclude_modules: list[str] | None = None

    def __post_init__(self) -> None:
        for name in ("has_zero_point", "pre_quant_scale", "exclude_modules"):
            if getattr(self, name):
                raise BackendError(f"QuantConfig: {name} is not computed")

    @property
    def needs_calibration(self) -> bool:
        """Whether texts are needed to do it."""
        return self.quant_algo not in {None, *_WEIGHT_ONLY} or self.kv_cache_quant_algo is not None


class Mapping:
    """How ranks share a model; rank = pp_rank * tp_size + tp_rank."""

    def __init__(
        self,
        world_size: int = 1,
        rank: int = 0,
        gpus_per_node: int = 8,
        tp_size: int = 1,
        pp_size: int = 1,
    ) -> None:
        if tp_size * pp_size != world_size:
            raise ValueError(
                f"world_size must equal to tp_size * pp_size, but got {world_size} != "
                f"{tp_size} * {pp_size}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        self.world_size, self.rank, self.gpus_per_node = world_size, rank, gpus_per_node
        self.tp_size, self.pp_size = tp_size, pp_size

    @property
    def tp_rank(self) -> int:
        """Its place among those that share its layers."""
        return self.rank % self.tp_size

    @property
    def pp_rank(self) -> int:
        """Its stage."""
        return self.rank // self.tp_size


class Model:
    """One rank's part of a checkpoint: its configuration, and its file as it is on disk."""

    _family: ClassVar[str]
    _since: ClassVar[Span]

    def __init__(self, config: dict[str, Any], rank: int, data: bytes) -> None:
        self.config = config
        self.rank = rank
        self._data = data

    @classmethod
    def from_checkpoint(cls, ckpt_dir: str, rank: int | None = 0, config: None = None) -> Model:
        """The rank's part of a checkpoint that is on disk."""
        if config is not None:
            raise BackendError("from_checkpoint: a config of its own is not computed")
        directory, rank = Path(ckpt_dir), rank or 0
        try:
            loaded = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            return cls(loaded, rank, (directory / f"rank{rank}.safetensors").read_bytes())
        except (FileNotFoundError, ValueError) as error:
            raise BackendError(f"{ckpt_dir}: not a checkpoint of rank {rank}: {error}") from error

    @classmethod
    def from_hugging_face(
        cls,
        hf_model_dir: str,
        dtype: str | None = None,
        mapping: Mapping | None = None,
        **more: Any,
    ) -> Model:
        """The rank's part of a model, converted as convert_checkpoint.py does it."""
        mapping = mapping or Mapping()
        cls._check_family("from_hugging_face")
        (keyword,) = record(_QUANTIZATION, release(), {})
        quantization = more.pop(keyword, None) or QuantConfig()
        for name in _PLACE_ON_DISK:
            more.pop(name, None)
        if more:
            raise TypeError(
                f"release {release()}: from_hugging_face has no argument {', '.join(sorted(more))}"
            )
        if quantization.needs_calibration:
            raise CheckFailedError(f"{quantization} needs calibration: call quantize")
        argv = [*_sizes(dtype, mapping), *_native(quantization)]
        return cls._converted(["--model_dir", str(hf_model_dir), *argv], mapping.rank)

    @classmethod
    def quantize(
        cls,
        hf_model_dir: str,
        output_dir: str,
        quant_config: QuantConfig,
        *,
        dtype: str | None = None,
        mapping: Mapping | None = None,
        **more: Any,
    ) -> None:
        """A quantized checkpoint of all ranks, written by the first one."""
        mapping = mapping or Mapping()
        cls._check_family("quantize")
        if mapping.rank != 0:
            raise CheckFailedError("quantize should be called at rank 0 only")
        known = ("calib_batches", "calib_batch_size", "random_seed", "tokenizer_max_seq_length")
        texts = []
        if _CALIB_DATASET.holds(release()) and more.get("calib_dataset") is not None:
            texts = ["--calib_dataset", str(more.pop("calib_dataset"))]
        if unknown := sorted(set(more) - set(known)):
            raise TypeError(f"release {release()}: quantize has no argument {', '.join(unknown)}")
        if more:
            raise BackendError(f"quantize: {', '.join(sorted(more))} is not computed")
        if _CALIBRATES_ONLY.holds(release()) and not quant_config.needs_calibration:
            raise ValueError(
                f"The quant_config ({quant_config}) does not require calibration, "
                f"try {cls.__name__}.from_hugging_face instead."
            )
        argv = ["--model_dir", str(hf_model_dir), "--output_dir", str(output_dir), *texts]
        argv += _sizes(dtype, mapping)
        if quant_config.quant_algo in _OF_THE_TOOL:
            argv += ["--qformat", _OF_THE_TOOL[quant_config.quant_algo]]
            if quant_config.kv_cache_quant_algo is not None:
                argv += ["--kv_cache_dtype", quant_config.kv_cache_quant_algo.value.lower()]
            perform(release(), "examples/quantization/quantize.py", argv)
        else:
            perform(release(), cls._script(), [*argv, *_native(quant_config)])

    def save_checkpoint(self, output_dir: str, save_config: bool = True) -> None:
        """The rank's file, and config.json where it is wanted."""
        directory = Path(output_dir)
        write_bytes(directory / f"rank{self.rank}.safetensors", self._data)
        if save_config:
            text = json.dumps(self.config, indent=4)
            write_bytes(directory / "config.json", text.encode())

    @classmethod
    def _converted(cls, argv: list[str], rank: int) -> Model:
        with tempfile.TemporaryDirectory() as scratch:
            perform(release(), cls._script(), [*argv, "--output_dir", scratch])
            return cls.from_checkpoint(scratch, rank)

    @classmethod
    def _script(cls) -> str:
        ending = f"{cls._family}/convert_checkpoint.py"
        return next(place for place in SCRIPTS[release()] if place.endswith(ending))

    @classmethod
    def _check_family(cls, method: str) -> None:
        if not cls._since.holds(release()):
            raise BackendError(f"release {release()}: {cls.__name__} has no {method}")


class LLaMAForCausalLM(Model):
    """Models of the LLaMA family."""

    _family, _since = "llama", _READ


class GPTForCausalLM(Model):
    """Models of the GPT family, which got these calls with 0.12.0."""

    _family, _since = "gpt", _GPT

    @classmethod
    def from_nemo(
        cls, nemo_ckpt_dir: str, dtype: str | None = None, mapping: Mapping | None = None
    ) -> Model:
        """The rank's part of an unpacked NeMo archive."""
        mapping = mapping or Mapping()
        cls._check_family("from_nemo")
        argv = ["--nemo_ckpt_path", str(nemo_ckpt_dir), *_sizes(dtype, mapping)]
        return cls._converted(argv, mapping.rank)


class PluginConfig:
    """A release's plugins, which can be set to what the release has; recorded, without effect."""

    def __init__(self) -> None:
        self.__dict__.update(plugin_config.defaults(release()))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__:
            raise AttributeError(f"release {release()}: plugin_config has no {name}")
        self.__dict__[name] = value


class BuildConfig:
    """What trtllm-build is asked for, under its options' names."""

    def __init__(self, *, plugin_config: PluginConfig | None = None, **asked: Any) -> None:
        known = {row["dest"] for row in options.rows("trtllm-build", release())}
        known &= set(engine_config.build_fields(release()))
        for name in asked:
            if name not in {*known, *_OTHER_FIELDS}:
                raise TypeError(f"release {release()}: BuildConfig has no argument {name}")
        self.plugin_config = plugin_config or PluginConfig()
        self.__dict__.update(asked)

    def asked(self) -> dict[str, Any]:
        """What is said of the build, plugins apart."""
        return {name: value for name, value in self.__dict__.items() if name != "plugin_config"}


@dataclass(frozen=True)
class Engine:
    """One rank's engine with the directory's config.json, not yet on disk."""

    files: dict[str, bytes]

    def save(self, engine_dir: str) -> None:
        """Write the engine; the first rank writes config.json as well."""
        for name, data in self.files.items():
            write_bytes(Path(engine_dir) / name, data)


def build(model: Model, build_config: BuildConfig) -> Engine:
    """The engine of the model's rank."""
    parser = options.parser("trtllm-build", release())
    args = parser.parse_args([])
    asked = copy.deepcopy(build_config.asked())
    vars(args).update(asked)
    defaults = plugin_config.defaults(release())
    for name, value in vars(build_config.plugin_config).items():
        if value != defaults[name]:
            setattr(args, name, _as_word(args, name, value))
    options.check("trtllm-build", release(), args, tainted=False)
    refusals.refuse(refusals.BUILD, args, parser)
    if not hasattr(args, "output_timing_cache") or "output_timing_cache" not in asked:
        args.output_timing_cache = None
    with tempfile.TemporaryDirectory() as scratch:
        args.checkpoint_dir, args.output_dir = f"{scratch}/checkpoint", f"{scratch}/engine"
        model.save_checkpoint(args.checkpoint_dir)
        build_unified(release(), args, only_rank=model.rank)
        made = sorted(Path(args.output_dir).iterdir())
        return Engine({path.name: path.read_bytes() for path in made})


def mpi_rank() -> int:
    """This process's rank."""
    return connect().rank


def mpi_world_size() -> int:
    """How many ranks there are."""
    return connect().size


def mpi_barrier() -> None:
    """Wait until every rank is here."""
    import numpy as np

    connect().gather(np.zeros(1, dtype=np.float32))


def _as_word(args: Any, name: str, value: Any) -> Any:
    """A plugin's value as trtllm-build is told it, where it has an option for it."""
    if isinstance(value, bool) and getattr(args, name, None) in _PLUGIN_CHOICES:
        return _PLUGIN_CHOICES[0] if value else _PLUGIN_CHOICES[1]
    return "disable" if value is None else value


def _sizes(dtype: str | None, mapping: Mapping) -> list[str]:
    said = [] if dtype is None else ["--dtype", dtype]
    return [*said, "--tp_size", str(mapping.tp_size), "--pp_size", str(mapping.pp_size)]


def _native(config: QuantConfig) -> list[str]:
    """What convert_checkpoint.py is told of a quantization."""
    argv: list[str] = []
    algorithm = config.quant_algo
    if algorithm in _WEIGHT_ONLY:
        argv += ["--use_weight_only", "--weight_only_precision", _WEIGHT_ONLY[algorithm]]
    elif algorithm is not None and algorithm.value.endswith("_PLUGIN"):
        alpha = 0.5 if config.smoothquant_val is None else config.smoothquant_val
        argv += ["--smoothquant", str(alpha)]
        argv += ["--per_token"] if "PER_TOKEN" in algorithm.value else []
        argv += ["--per_channel"] if "PER_CHANNEL" in algorithm.value else []
    elif algorithm is not None:
        raise BackendError(f"quantization {algorithm.value} is not computed")
    if config.kv_cache_quant_algo is QuantAlgo.INT8:
        argv.append("--int8_kv_cache")
    elif config.kv_cache_quant_algo is not None:
        raise BackendError(
            f"a {config.kv_cache_quant_algo.value} cache goes with a quantization of the tool's"
        )
    return argv
