"""The Python API of 0.9.0 to 1.2.1: models and building, over the scripts' own work.

Every call does what the release's convert_checkpoint.py, quantize.py or trtllm-build does, so the
files are the same: `from_hugging_face` and `quantize` convert, `build` builds one rank's engine.
What a call takes stands in the kit's table (`python_api` of cli.json) with its sources. What a
BuildConfig leaves open is what trtllm-build leaves open, where the releases' class has defaults
that are smaller (`max_batch_size` 8 rather than 256 or 2048).
"""

from __future__ import annotations

import copy
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from . import convert, huggingface, options, plugin_config, refusals
from .api_config import (
    OF_THE_TOOL,
    BuildConfig,
    Mapping,
    PluginConfig,
    QuantAlgo,
    QuantConfig,
)
from .build import build_unified
from .commands import SCRIPTS, perform
from .communicator import connect
from .errors import BackendError, CheckFailedError
from .files import read_json, write_bytes
from .releases import Span
from .signatures import VARIABLE, bound, calibrating_ranks, release

__all__ = [
    "VARIABLE",
    "BuildConfig",
    "Engine",
    "GPTForCausalLM",
    "LLaMAForCausalLM",
    "Mapping",
    "Model",
    "PluginConfig",
    "QuantAlgo",
    "QuantConfig",
    "build",
    "mpi_barrier",
    "mpi_rank",
    "mpi_world_size",
    "release",
]

# From 0.13.0 on `quantize` makes its folder, and weights alone are an error of another kind.
_LATER_QUANTIZE = Span("0.13.0")
_MUST_EXIST = Span(before="0.12.0")
_DTYPE_IS_FLOAT16 = Span(before="0.11.0")
# 0.13.0 and 0.14.0 forget `gpt_variant` on the way to their tool; whether 0.12.0 does is not known.
_VARIANT_IS_LOST = Span("0.12.0")
_HOW_NOT_WHAT = ("load_by_shard", "load_model_on_cpu", "trust_remote_code", "device")
_UNCOMPUTED = (
    *("calib_batches", "calib_batch_size", "calib_max_seq_length", "random_seed"),
    *("tokenizer_max_seq_length", "dataset_cache_dir", "override_fields"),
    *("skip_loading_weights", "preloaded_model", "preprocess_weights_hook"),
)
_PLUGIN_CHOICES = ("enable", "disable")


class Model:
    """One rank's part of a checkpoint: its configuration, and its file as it is on disk."""

    _family: ClassVar[str]

    def __init__(self, config: dict[str, Any], rank: int, data: bytes) -> None:
        self.config = config
        self.rank = rank
        self._data = data

    @classmethod
    def from_checkpoint(cls, *given: Any, **named: Any) -> Model:
        """The rank's part of a checkpoint that is on disk."""
        said = cls._said("from_checkpoint", given, named)
        if said.get("config") is not None:
            raise BackendError("from_checkpoint: a config of its own is not computed")
        return cls._read(Path(said["ckpt_dir"]), said.get("rank") or 0)

    @classmethod
    def from_hugging_face(cls, *given: Any, **named: Any) -> Model:
        """The rank's part of a model, converted as convert_checkpoint.py does it."""
        said = cls._said("from_hugging_face", given, named)
        mapping = said.get("mapping") or Mapping()
        asked = said.get("quantization") or said.get("quant_config") or QuantConfig()
        if asked.needs_calibration:
            raise CheckFailedError(f"{asked} needs calibration: call quantize")
        source = str(said.get("hf_model_dir") or said.get("hf_model_or_dir"))
        argv = ["--model_dir", source, *_dtype(said, source), *_cut(said, mapping)]
        return cls._converted([*argv, *asked.native()], mapping.rank)

    @classmethod
    def quantize(cls, *given: Any, **named: Any) -> None:
        """A quantized checkpoint of all ranks, written by one process."""
        said = cls._said("quantize", given, named)
        source, output, asked = said["hf_model_dir"], said["output_dir"], said["quant_config"]
        mapping = said.get("mapping") or Mapping()
        argv = ["--model_dir", str(source), "--output_dir", str(output)]
        argv += ["--calib_dataset", said["calib_dataset"]] if said.get("calib_dataset") else []
        argv += _dtype(said, str(source))
        if asked.quant_algo in OF_THE_TOOL:
            cls._check_tool(Path(source))
            argv += [*_sizes(mapping), "--qformat", OF_THE_TOOL[asked.quant_algo]]
            if asked.kv_cache_quant_algo is not None:
                argv += ["--kv_cache_dtype", asked.kv_cache_quant_algo.value.lower()]
            perform(release(), "examples/quantization/quantize.py", argv)
            return
        cls._check_native(asked, mapping, Path(output))
        perform(release(), cls._script(), [*argv, *_cut(said, mapping), *asked.native()])

    def save_checkpoint(self, *given: Any, **named: Any) -> None:
        """The rank's file, and config.json where it is wanted, into a folder that is there."""
        said = self._said("save_checkpoint", given, named)
        directory = Path(said["output_dir"])
        _check_folder(directory)
        write_bytes(directory / f"rank{self.rank}.safetensors", self._data)
        if said.get("save_config", True):
            text = json.dumps(self.config, indent=4)
            write_bytes(directory / "config.json", text.encode())

    @classmethod
    def _said(cls, method: str, given: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        said = bound(f"{cls.__name__}.{method}", given, named)
        for name in _HOW_NOT_WHAT:
            said.pop(name, None)
        for name in _UNCOMPUTED:
            if said.pop(name, None):
                raise BackendError(f"{method}: {name} is not computed")
        return said

    @classmethod
    def _check_native(cls, asked: QuantConfig, mapping: Mapping, output: Path) -> None:
        """What the releases assert where they calibrate themselves."""
        if not asked.needs_calibration:
            if _LATER_QUANTIZE.holds(release()):
                raise ValueError(
                    f"The quant_config ({asked}) does not require calibration, "
                    f"try {cls.__name__}.from_hugging_face instead."
                )
            raise CheckFailedError("Call from_hugging_face when there is no quantization")
        if mapping.rank not in calibrating_ranks():
            wanted = " or ".join(map(str, calibrating_ranks()))
            raise CheckFailedError(
                f"release {release()}: quantize wants a mapping of rank {wanted}, to be called by "
                f"one rank only; found rank {mapping.rank}"
            )
        if _MUST_EXIST.holds(release()):
            _check_folder(output)

    @classmethod
    def _check_tool(cls, source: Path) -> None:
        """What stands before the releases' tool."""

    @classmethod
    def _converted(cls, argv: list[str], rank: int) -> Model:
        with tempfile.TemporaryDirectory() as scratch:
            perform(release(), cls._script(), [*argv, "--output_dir", scratch])
            return cls._read(Path(scratch), rank)

    @classmethod
    def _read(cls, directory: Path, rank: int) -> Model:
        try:
            loaded = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            return cls(loaded, rank, (directory / f"rank{rank}.safetensors").read_bytes())
        except (FileNotFoundError, ValueError) as error:
            raise BackendError(f"{directory}: not a checkpoint of rank {rank}: {error}") from error

    @classmethod
    def _script(cls) -> str:
        ending = f"{cls._family}/convert_checkpoint.py"
        return next(place for place in SCRIPTS[release()] if place.endswith(ending))


class LLaMAForCausalLM(Model):
    """Models of the LLaMA family."""

    _family = "llama"


class GPTForCausalLM(Model):
    """Models of the GPT family, which convert since 0.12.0."""

    _family = "gpt"

    @classmethod
    def from_nemo(cls, *given: Any, **named: Any) -> Model:
        """The rank's part of a NeMo archive that was unpacked to a folder."""
        said = cls._said("from_nemo", given, named)
        source = Path(said["nemo_ckpt_dir"])
        _check_folder(source)
        if (said.get("quant_config") or QuantConfig()).native():
            raise BackendError("from_nemo: quantization is not computed")
        if not (said.get("use_parallel_embedding") and said.get("embedding_sharding_dim", 0) == 0):
            raise BackendError(
                "from_nemo: only embeddings cut along the vocabulary are computed, as "
                "convert_checkpoint.py does it"
            )
        if said.get("dtype", "auto") == "auto":
            raise BackendError("from_nemo: dtype auto is not computed; say the type")
        mapping = said.get("mapping") or Mapping()
        argv = ["--nemo_ckpt_path", str(source), "--dtype", said["dtype"], *_sizes(mapping)]
        renames = said.get("nemo_rename_key")
        argv += ["--nemo_rename_key", *renames] if renames else []
        return cls._converted(argv, mapping.rank)

    @classmethod
    def _check_tool(cls, source: Path) -> None:
        """The variant is not handed on to the tool, and is inferred again."""
        if not _VARIANT_IS_LOST.holds(release()):
            return
        config = read_json(source / "config.json")
        kind, variant = str(config.get("model_type")), huggingface.variant_of(config)
        found = convert.infer_variant(release(), str(source), kind)
        if found != variant:
            raise CheckFailedError(
                f"release {release()} forgets gpt_variant here and infers it from the folder's "
                f"path or the model's type: expected {variant}, found {found} for {source}"
            )


@dataclass(frozen=True)
class Engine:
    """One rank's engine with the directory's config.json, not yet on disk."""

    files: dict[str, bytes]

    def save(self, *given: Any, **named: Any) -> None:
        """Write the engine; the first rank writes config.json as well."""
        said = bound("Engine.save", given, named)
        for name, data in self.files.items():
            write_bytes(Path(said["engine_dir"]) / name, data)


def build(*given: Any, **named: Any) -> Engine:
    """The engine of the model's rank."""
    said = bound("build", given, named)
    model, config = said["model"], said["build_config"]
    parser = options.parser("trtllm-build", release())
    args = parser.parse_args([])
    asked = copy.deepcopy(config.asked())
    vars(args).update(asked)
    defaults = plugin_config.defaults(release())
    for name, value in vars(config.plugin_config).items():
        if value != defaults[name]:
            setattr(args, name, _as_word(args, name, value))
    options.check("trtllm-build", release(), args, tainted=False)
    refusals.refuse(refusals.BUILD, args, parser)
    if not hasattr(args, "output_timing_cache") or "output_timing_cache" not in asked:
        args.output_timing_cache = None
    with tempfile.TemporaryDirectory() as scratch:
        args.checkpoint_dir, args.output_dir = f"{scratch}/checkpoint", f"{scratch}/engine"
        Path(args.checkpoint_dir).mkdir()
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


def _check_folder(directory: Path) -> None:
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such folder; release {release()} makes none")


def _as_word(args: Any, name: str, value: Any) -> Any:
    """A plugin's value as trtllm-build is told it, where it has an option for it."""
    if isinstance(value, bool) and getattr(args, name, None) in _PLUGIN_CHOICES:
        return _PLUGIN_CHOICES[0] if value else _PLUGIN_CHOICES[1]
    return "disable" if value is None else value


def _dtype(said: dict[str, Any], source: str) -> list[str]:
    """The type; `auto`, which later releases mean where none is said, is the model's own."""
    dtype = said.get("dtype", "float16" if _DTYPE_IS_FLOAT16.holds(release()) else "auto")
    if dtype == "auto":
        config = read_json(Path(source) / "config.json")
        dtype = convert.infer_dtype(config.get("torch_dtype") or config.get("dtype"))
    return ["--dtype", dtype]


def _sizes(mapping: Mapping) -> list[str]:
    return ["--tp_size", str(mapping.tp_size), "--pp_size", str(mapping.pp_size)]


def _cut(said: dict[str, Any], mapping: Mapping) -> list[str]:
    """How convert_checkpoint.py is told to cut the model, and which variant it is."""
    argv = _sizes(mapping)
    argv += ["--gpt_variant", said["gpt_variant"]] if said.get("gpt_variant") else []
    if said.get("use_parallel_embedding"):
        dimension = said.get("embedding_sharding_dim", 0)
        argv += ["--use_parallel_embedding", "--embedding_sharding_dim", str(dimension)]
    return argv
