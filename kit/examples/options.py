"""What a recipe may ask of an engine beyond its shapes; every release spells it in its own way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from kit.errors import nearest
from kit.examples import source

if TYPE_CHECKING:
    from pathlib import Path

    from kit.document import Section

Quantization = Literal["int8", "int4", "smoothquant", "int4_awq", "fp8"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
CacheType = Literal["int8", "fp8"]
CACHE_TYPES: tuple[CacheType, ...] = get_args(CacheType)
Embedding = Literal["vocabulary", "hidden"]
EMBEDDINGS: tuple[Embedding, ...] = get_args(Embedding)
Plugin = Literal["auto", "float16", "bfloat16", "float32", "disable"]
PLUGINS: tuple[Plugin, ...] = get_args(Plugin)
Logits = Literal["all", "context", "generation"]
LOGITS: tuple[Logits, ...] = get_args(Logits)
Level = Literal["error", "warning", "info", "verbose"]
LEVELS: tuple[Level, ...] = get_args(Level)
LoraModule = Literal[
    "attn_qkv", "attn_q", "attn_k", "attn_v", "attn_dense", "mlp_h_to_4h", "mlp_gate", "mlp_4h_to_h"
]
LORA_MODULES: tuple[LoraModule, ...] = get_args(LoraModule)
"""What every release with LoRA knows; later ones have more for other families."""

_ALPHA = 0.5
"""What the converters' own help of `--smoothquant` calls a good first try."""


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters that an engine takes; `dir` has one in Hugging Face's layout."""

    dir: Path
    modules: tuple[LoraModule, ...] | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """None is not said: the release's default stays.

    Attributes:
        max_beam_width: of the engine.
        quantization: int8 and int4 are of the weights only; smoothquant, int4_awq and fp8
            calibrate.
        smoothquant_alpha: how much of the activations' range moves into the weights, 0 to 1.
        per_token: SmoothQuant scales activations at run time; True or None.
        per_channel: SmoothQuant scales weights by output channel; True or None.
        kv_cache_dtype: type of cached keys and values, where not the model's.
        paged_kv_cache: in blocks; False is one contiguous piece.
        packed_input: sequences without padding.
        context_fmha: fused attention over the prompt.
        gpt_attention_plugin: type that the attention plugin computes in.
        gemm_plugin: the same of the matrix products.
        workers: processes that build engines of several ranks.
        strongly_typed: TensorRT takes the types as the network says.
        gather_logits: outputs that the engine keeps for every token; from 0.8.0 on `run.py` writes
            them, and `kit reproduce` compares them.
        parallel_embedding: the dimension along which ranks share the embedding table.
        share_embedding: one table for the input and the output; True or None.
        lookup_plugin: type of the embedding's plugin.
        in_flight_batching: requests join and leave a batch that runs; True or None.
        tokens_per_block: of the paged cache.
        max_num_tokens: of one step of a packed batch.
        prompt_table_size: rows of learned prompts that the engine takes.
        lora: adapters.
        timing_cache: a file of the build's measurements to start from.
        processes: that convert the weights at a time.
        log_level: what the build says.
    """

    max_beam_width: int | None = None
    quantization: Quantization | None = None
    smoothquant_alpha: float | None = None
    per_token: bool | None = None
    per_channel: bool | None = None
    kv_cache_dtype: CacheType | None = None
    paged_kv_cache: bool | None = None
    packed_input: bool | None = None
    context_fmha: bool | None = None
    gpt_attention_plugin: Plugin | None = None
    gemm_plugin: Plugin | None = None
    workers: int | None = None
    strongly_typed: bool | None = None
    gather_logits: Logits | None = None
    parallel_embedding: Embedding | None = None
    share_embedding: bool | None = None
    lookup_plugin: Plugin | None = None
    in_flight_batching: bool | None = None
    tokens_per_block: int | None = None
    max_num_tokens: int | None = None
    prompt_table_size: int | None = None
    lora: Lora | None = None
    timing_cache: Path | None = None
    processes: int | None = None
    log_level: Level | None = None

    def said(self) -> dict[str, Any]:
        """The options that have a value, as plain data; of a path the name counts only."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        if self.lora is not None:
            asked = {"dir": self.lora.dir.name, "rank": self.lora.rank}
            modules = list(self.lora.modules) if self.lora.modules else None
            found["lora"] = {**asked, "modules": modules}
        if self.timing_cache is not None:
            found["timing_cache"] = self.timing_cache.name
        return found


CHECKPOINT_KEYS = (
    "quantization",
    "smoothquant_alpha",
    "per_token",
    "per_channel",
    "kv_cache_dtype",
    "parallel_embedding",
    "share_embedding",
    "processes",
)
"""Options of the section `checkpoint` of a recipe: what the weights become."""

BUILD_KEYS = tuple(key for key in Options.__slots__ if key not in CHECKPOINT_KEYS)
"""Options of the section `build` of a recipe."""

KEYS = tuple(Options.__slots__)
"""All of them: a plain build configuration has them in one section."""

CHOICES: dict[str, tuple[str, ...]] = {
    "quantization": QUANTIZATIONS,
    "kv_cache_dtype": CACHE_TYPES,
    "parallel_embedding": EMBEDDINGS,
    "gpt_attention_plugin": PLUGINS,
    "gemm_plugin": PLUGINS,
    "lookup_plugin": PLUGINS,
    "gather_logits": LOGITS,
    "log_level": LEVELS,
}
NUMBERS = (
    "max_beam_width",
    "workers",
    "tokens_per_block",
    "max_num_tokens",
    "prompt_table_size",
    "processes",
)
_SMOOTHQUANT = ("smoothquant_alpha", "per_token", "per_channel")
_FLAGS = ("per_token", "per_channel", "share_embedding", "in_flight_batching")
"""Left out is false."""


def read(section: Section, beside: Path, keys: tuple[str, ...] = KEYS) -> dict[str, Any]:
    """Take the options among `keys` that a section has; relative paths are beside `beside`.

    Raises:
        KitError: a value that no release takes, with its place (exit 2).
    """
    found: dict[str, Any] = {}
    for key in keys:
        if key not in section:
            section.taken.add(key)  # so that `close` can name it as the nearest
        elif key in CHOICES:
            found[key] = _choice(section, key)
        elif key in NUMBERS:
            found[key] = _positive(section, key)
        elif key == "smoothquant_alpha":
            found[key] = section.number(key, 0, 1)
        elif key == "lora":
            found[key] = _lora(section.section(key), beside)
        elif key == "timing_cache":
            found[key] = source.file(section, key, (".cache",), beside)
        else:
            found[key] = section.boolean(key)
    if found.get("quantization") == "smoothquant":
        found.setdefault("smoothquant_alpha", _ALPHA)
    else:
        for key in _SMOOTHQUANT:
            if key in found:
                raise section.error(f"{key}: is of quantization: smoothquant", key)
    for key in _FLAGS:
        if key in keys:
            found[key] = found.get(key) or None
    _contradictions(section, found)
    return found


def _contradictions(section: Section, found: dict[str, Any]) -> None:
    """Refuse what excludes each other in every release."""
    if found.get("in_flight_batching"):
        # What it is made of: examples/gpt/build.py turns all three on.
        for key, value in (
            ("paged_kv_cache", False),
            ("packed_input", False),
            ("gpt_attention_plugin", "disable"),
        ):
            if found.get(key) == value:
                raise section.error(
                    f"{key}: in_flight_batching needs it; leave one of the two out", key
                )
    if found.get("gpt_attention_plugin") == "disable":
        for key in ("paged_kv_cache", "packed_input", "context_fmha"):
            if found.get(key):
                raise section.error(
                    f"{key}: is of the attention plugin, which gpt_attention_plugin disables", key
                )
    if "tokens_per_block" in found and found.get("paged_kv_cache") is False:
        raise section.error(
            "tokens_per_block: is of a paged cache, which paged_kv_cache turns off",
            "tokens_per_block",
        )


def _choice(section: Section, key: str) -> str:
    value = section.text(key)
    if value not in CHOICES[key]:
        raise section.error(f"{key}: unknown {value!r}; {nearest(value, CHOICES[key])}", key)
    return value


def _positive(section: Section, key: str) -> int:
    value = section.integer(key)
    if value < 1:
        raise section.error(f"{key}: expected 1 or more, found {value}", key)
    return value


def _lora(section: Section, beside: Path) -> Lora:
    modules = section.texts("modules")
    for name in modules:
        if name not in LORA_MODULES:
            raise section.error(
                f"modules: unknown {name!r}; {nearest(name, LORA_MODULES)}", "modules"
            )
    found = Lora(
        dir=source.path(section, "dir", beside),
        modules=modules or None,  # type: ignore[arg-type]
        rank=_positive(section, "rank") if "rank" in section else None,
    )
    section.taken.add("rank")
    section.close()
    return found
