"""What a recipe may ask of an engine beyond its shapes; every release spells it in its own way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from kit.errors import nearest

if TYPE_CHECKING:
    from kit.document import Section

Quantization = Literal["int8", "int4", "smoothquant", "fp8"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
CacheType = Literal["int8", "fp8"]
CACHE_TYPES: tuple[CacheType, ...] = get_args(CacheType)
Plugin = Literal["auto", "float16", "bfloat16", "float32", "disable"]
PLUGINS: tuple[Plugin, ...] = get_args(Plugin)
Logits = Literal["all", "context", "generation"]
LOGITS: tuple[Logits, ...] = get_args(Logits)

_ALPHA = 0.5
"""What the converters' own help of `--smoothquant` calls a good first try."""


@dataclass(frozen=True, slots=True)
class Options:
    """None is not said: the release's default stays.

    Attributes:
        max_beam_width: of the engine.
        quantization: int8 and int4 are of the weights only; smoothquant and fp8 calibrate.
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
        gather_logits: outputs that the engine keeps for every token.
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

    def said(self) -> dict[str, Any]:
        """The options that have a value."""
        return {name: value for name, value in asdict(self).items() if value is not None}


KEYS = tuple(Options.__slots__)
"""How they are written in a file."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "quantization": QUANTIZATIONS,
    "kv_cache_dtype": CACHE_TYPES,
    "gpt_attention_plugin": PLUGINS,
    "gemm_plugin": PLUGINS,
    "gather_logits": LOGITS,
}
_NUMBERS = ("max_beam_width", "workers")
_SMOOTHQUANT = ("smoothquant_alpha", "per_token", "per_channel")


def read(section: Section) -> Options:
    """Take the options out of the section that has the engine's shapes.

    Raises:
        KitError: a value that no release takes, with its place (exit 2).
    """
    found: dict[str, Any] = {}
    for key in KEYS:
        if key not in section:
            section.taken.add(key)  # so that `close` can name it as the nearest
        elif key in _CHOICES:
            found[key] = _choice(section, key)
        elif key in _NUMBERS:
            found[key] = section.integer(key)
            if found[key] < 1:
                raise section.error(f"{key}: expected 1 or more, found {found[key]}", key)
        elif key == "smoothquant_alpha":
            found[key] = _alpha(section)
        else:
            found[key] = section.boolean(key)
    if found.get("quantization") == "smoothquant":
        found.setdefault("smoothquant_alpha", _ALPHA)
    else:
        for key in _SMOOTHQUANT:
            if key in found:
                raise section.error(f"{key}: is of quantization: smoothquant", key)
    for key in ("per_token", "per_channel"):
        found[key] = found.get(key) or None  # flags: left out is false
    return Options(**found)


def _choice(section: Section, key: str) -> str:
    value = section.text(key)
    if value not in _CHOICES[key]:
        raise section.error(f"{key}: unknown {value!r}; {nearest(value, _CHOICES[key])}", key)
    return value


def _alpha(section: Section) -> float:
    value = section.plain("smoothquant_alpha")
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise section.error(
            f"smoothquant_alpha: expected a number from 0 to 1, found {value!r}",
            "smoothquant_alpha",
        )
    return float(value)
