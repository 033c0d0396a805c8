"""config.json of an engine directory, in the spelling of each era.

| layout | releases | keys |
| --- | --- | --- |
| `none` | any | there is no such file, or it is not an engine's |
| `builder_config` | 0.5.0 to 0.8.0, `build.py` | `builder_config`, `plugin_config`: no version |
| `version` | 0.7.0 and later, `trtllm-build` | `version`, `pretrained_config`, `build_config` |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from kit.artifacts import bounded, mapping, precision
from kit.artifacts.mapping import Parallelism

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kit.artifacts.precision import Precision

Layout = Literal["none", "builder_config", "version"]

FILE = "config.json"
_QUANT_CONFIG = "quant_cfg.json"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine was built for; None where its configuration does not say.

    `max_output_len` is of releases before 0.12, `max_seq_len` (prompt and output) of 0.11 and
    later.
    """

    max_batch_size: int | None = None
    max_input_len: int | None = None
    max_output_len: int | None = None
    max_seq_len: int | None = None
    max_beam_width: int | None = None
    max_num_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What a config.json says; None for what it does not.

    Attributes:
        layout: its era.
        release: the release with its local label.
        parallelism: tensor, pipeline, context parallel and world size.
        stem: what stands before `rank0.engine` in the names of its rank files.
        architecture: `GPTForCausalLM`; in old ones the name that `build.py` gave: `gpt`.
        dtype: `float16`.
        precisions: data type, quantization and KV cache in one vocabulary.
        unknown: names of quantizations that are not in that vocabulary.
        heads: attention heads.
        kv_heads: key-value heads; equal to `heads` where they are left out.
        limits: batch, lengths, beams, tokens.
        gpu_hint: the cluster key: the GPU that it was built for or on (0.9 and later).
        plugins: `plugin_config` as it stands.
    """

    layout: Layout = "none"
    release: str | None = None
    parallelism: Parallelism = field(default_factory=Parallelism)
    stem: str = ""
    architecture: str | None = None
    dtype: str | None = None
    precisions: frozenset[Precision] = frozenset()
    unknown: tuple[str, ...] = ()
    heads: int | None = None
    kv_heads: int | None = None
    limits: Limits = field(default_factory=Limits)
    gpu_hint: str | None = None
    plugins: Mapping[str, Any] = field(default_factory=dict)


def layout(content: Mapping[str, Any]) -> Layout:
    """The era of a config.json; `none` if it is not an engine's."""
    if isinstance(content.get("version"), str) and (
        "pretrained_config" in content or "build_config" in content
    ):
        return "version"
    return "builder_config" if bounded.mapping(content, "builder_config") else "none"


def read(folder: Path, content: Mapping[str, Any]) -> EngineConfig:
    """What the config.json of `folder` says, with `quant_cfg.json` beside it if it needs that.

    Raises:
        KitError: `quant_cfg.json` cannot be read (exit 4).
    """
    era = layout(content)
    if era == "version":
        return _of_version(folder, content)
    return _of_builder_config(folder, content) if era == "builder_config" else EngineConfig()


def _of_builder_config(folder: Path, content: Mapping[str, Any]) -> EngineConfig:
    builder = bounded.mapping(content, "builder_config")
    # 0.5.0 writes no pipeline_parallel for GPT, which has none there.
    parallelism = mapping.of_sizes(
        (builder.get("tensor_parallel"), builder.get("pipeline_parallel")), str(folder / FILE)
    )
    name, dtype = bounded.text(builder, "name"), bounded.text(builder, "precision")
    precisions = precision.of_dtype(dtype)
    precisions |= precision.of_quant_mode(bounded.count(builder, "quant_mode") or 0)
    if builder.get("fp8") is True:
        precisions |= {"fp8"}
    heads, kv_heads = bounded.count(builder, "num_heads"), bounded.count(builder, "num_kv_heads")
    pipeline = f"_pp{parallelism.pp}" if (parallelism.pp or 1) > 1 else ""
    return EngineConfig(
        layout="builder_config",
        parallelism=parallelism,
        stem=f"{name or 'MODEL'}_{dtype or 'DTYPE'}_tp{parallelism.tp or 1}{pipeline}_",
        architecture=name,
        dtype=dtype,
        precisions=precisions,
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        limits=_limits(builder),
        plugins=bounded.mapping(content, "plugin_config"),
    )


def _of_version(folder: Path, content: Mapping[str, Any]) -> EngineConfig:
    model = bounded.mapping(content, "pretrained_config")
    build = bounded.mapping(content, "build_config")
    dtype = bounded.text(model, "dtype")
    precisions, unknown = _quantization(folder, bounded.mapping(model, "quantization"))
    mode = bounded.count(model, "quant_mode") or 0
    heads = bounded.count(model, "num_attention_heads")
    kv_heads = bounded.count(model, "num_key_value_heads")
    return EngineConfig(
        layout="version",
        release=bounded.text(content, "version"),
        parallelism=_parallelism(model, build, str(folder / FILE)),
        architecture=bounded.text(model, "architecture"),
        dtype=dtype,
        precisions=precisions | precision.of_dtype(dtype) | precision.of_quant_mode(mode),
        unknown=unknown,
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        limits=_limits(build),
        gpu_hint=bounded.text(build, "auto_parallel_config", "cluster_key"),
        plugins=bounded.mapping(build, "plugin_config"),
    )


def _quantization(
    folder: Path, section: Mapping[str, Any]
) -> tuple[frozenset[Precision], tuple[str, ...]]:
    """The section's precisions; those of the layers of MIXED_PRECISION stand in another file."""
    precisions, unknown = precision.of_quantization(section)
    path = folder / _QUANT_CONFIG
    if section.get("quant_algo") == "MIXED_PRECISION" and path.is_file():
        layers, more = precision.of_quantization(bounded.json_object(path))
        return precisions | layers, tuple(sorted({*unknown, *more}))
    return precisions, unknown


def _parallelism(model: Mapping[str, Any], build: Mapping[str, Any], where: str) -> Parallelism:
    found = mapping.of(bounded.mapping(model, "mapping"), where)
    # With automatic parallelism (0.9.0 to 1.1.0) the checkpoint is one rank's.
    automatic = bounded.count(build, "auto_parallel_config", "world_size")
    if automatic is not None and 1 < automatic <= mapping.LARGEST_WORLD and found.world_size == 1:
        return Parallelism(world_size=automatic)
    return found


def _limits(section: Mapping[str, Any]) -> Limits:
    return Limits(**{name: bounded.count(section, name) for name in Limits.__slots__})
