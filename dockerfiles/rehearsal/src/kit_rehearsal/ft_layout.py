"""The checkpoint of 0.5.0 to 0.8.0: `<out>/<tp>-gpu/config.ini` and raw `*.bin` files.

Matrices keep Hugging Face's GPT-2's orientation, [in, out]. Tensors that are cut carry the rank in
their name (`model.layers.0.mlp.dense_h_to_4h.weight.1.bin`), the others do not. The families have
names of their own (hf_gpt_convert.py and hf_llama_convert.py of these releases).
"""

from __future__ import annotations

import configparser
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import BACKEND, VERSION
from .engine import Shape
from .errors import BackendError
from .files import write_bytes, write_text
from .split import EMBEDDING, HEAD, POSITIONS, Placement, cut_embeddings, cut_layer_tensor, is_cut
from .tensors import decode, encode

if TYPE_CHECKING:
    from pathlib import Path

    from .engine import EmbeddingCut
    from .split import Network
    from .tensors import Array

_LAYERS = "transformer.layers."
_GATED = ("swiglu", "fast-swiglu")
_STORED = {"fp32": "float32", "fp16": "float16"}


@dataclass(frozen=True)
class Family:
    """What a family calls its section of config.ini, its tensors and the modules of a layer."""

    section: str
    whole: dict[str, str]
    layer: dict[str, str]


GPT = Family(
    "gpt",
    {
        EMBEDDING: "model.wte",
        POSITIONS: "model.wpe",
        "transformer.ln_f.weight": "model.final_layernorm.weight",
        "transformer.ln_f.bias": "model.final_layernorm.bias",
        HEAD: "model.lm_head.weight",
    },
    {
        "input_layernorm": "input_layernorm",
        "attention.qkv": "attention.query_key_value",
        "attention.dense": "attention.dense",
        "post_layernorm": "post_attention_layernorm",
        "mlp.fc": "mlp.dense_h_to_4h",
        "mlp.gate": "mlp.dense_h_to_4h.gate",
        "mlp.proj": "mlp.dense_4h_to_h",
    },
)
LLAMA = Family(
    "llama",
    {
        EMBEDDING: "vocab_embedding.weight",
        "transformer.ln_f.weight": "ln_f.weight",
        HEAD: "lm_head.weight",
    },
    {
        "input_layernorm": "input_layernorm",
        "attention.qkv": "attention.query_key_value",
        "attention.dense": "attention.dense",
        "post_layernorm": "post_layernorm",
        "mlp.fc": "mlp.fc",
        "mlp.gate": "mlp.gate",
        "mlp.proj": "mlp.proj",
    },
)


@dataclass(frozen=True)
class FtConfig:
    """What the build reads from config.ini.

    Attributes:
        shape: the network.
        dtype: how the files are stored.
        family: whose names they have.
        bias: whether layers have biases.
        own_head: whether there is an output embedding besides the input's.
    """

    shape: Shape
    dtype: str
    family: Family = GPT
    bias: bool = True
    own_head: bool = False


def write(
    directory: Path, network: Network, arguments: dict[str, Any], dtype: str, tp_size: int
) -> None:
    """Write a GPT's folder; `arguments` are the command's own, which the release records."""
    shape = network.shape
    entries = {
        **arguments,
        **network.source,
        "storage_dtype": dtype,
        "multi_query_mode": shape.n_kv_head == 1 < shape.n_head,
    }
    write_weights(directory, network, dtype, tp_size)
    write_config(directory, entries)


def write_llama(
    directory: Path, network: Network, arguments: dict[str, Any], dtype: str, tp_size: int
) -> None:
    """Write a LLaMA's folder; the dtype is the release's word, fp32 or fp16."""
    shape = network.shape
    entries = {
        **arguments,
        **network.source,
        "weight_data_type": dtype,
        "multi_query_mode": shape.n_kv_head != shape.n_head,
    }
    write_weights(directory, network, _STORED[dtype], tp_size, LLAMA)
    write_config(directory, entries, LLAMA)


def write_config(directory: Path, entries: dict[str, Any], family: Family = GPT) -> None:
    """config.ini, the last file of a folder: without it, it is not a checkpoint yet."""
    config = configparser.RawConfigParser()
    config[family.section] = {key: str(value) for key, value in entries.items()}
    config["rehearsal"] = {"backend": BACKEND, "backend_version": VERSION}
    text = io.StringIO()
    config.write(text)
    write_text(directory / "config.ini", text.getvalue())


def write_weights(
    directory: Path, network: Network, dtype: str, tp_size: int, family: Family = GPT
) -> None:
    """The files of all ranks."""
    for name, value in network.weights.items():
        old = _old_name(name, family)
        if not is_cut(name):
            write_bytes(directory / f"{old}.bin", encode(value, dtype))
            continue
        for rank in range(tp_size):
            part = cut_layer_tensor(name, value, network.shape, Placement(rank, tp_size))
            write_bytes(directory / f"{old}.{rank}.bin", encode(part.T, dtype))


def read_config(directory: Path) -> FtConfig:
    """A GPT's configuration from config.ini."""
    path, section = _section(directory, GPT)
    try:
        n_embd, n_head = int(section["n_embd"]), int(section["n_head"])
        head_size = n_embd // n_head
        shape = Shape(
            n_layer=int(section["n_layer"]),
            n_head=n_head,
            n_kv_head=1 if section.getboolean("multi_query_mode", False) else n_head,
            head_size=head_size,
            hidden_size=n_embd,
            # The release reads intermediate_size, which GPT-2 has not, and ignores n_inner.
            inner_size=int(section.get("intermediate_size", str(4 * n_embd))),
            vocab_size=int(section["vocab_size"]),
            n_positions=int(section["n_positions"]),
            norm="layer",
            norm_epsilon=float(section.get("layer_norm_epsilon", "1e-05")),
            activation=section["activation_function"],
            rotary_dim=int(head_size * float(section.get("rotary_pct", "0.0"))),
            rotary_base=float(section.get("rotary_base", "10000.0")),
        )
        return FtConfig(
            shape=shape,
            dtype=section.get("storage_dtype", "float32"),
            bias=section.getboolean("bias", True),
            own_head=(directory / f"{GPT.whole[HEAD]}.bin").is_file(),
        )
    except (KeyError, ValueError) as error:
        raise BackendError(f"{path}: section gpt: {error}") from error


def read_llama_config(directory: Path, *, rotary_base: float) -> FtConfig:
    """A LLaMA's configuration from config.ini, which does not say how heads are turned."""
    path, section = _section(directory, LLAMA)
    try:
        hidden, n_head = int(section["hidden_size"]), int(section["num_attention_heads"])
        shape = Shape(
            n_layer=int(section["num_hidden_layers"]),
            n_head=n_head,
            n_kv_head=int(section.get("num_key_value_heads", str(n_head))),
            head_size=hidden // n_head,
            hidden_size=hidden,
            inner_size=int(section["intermediate_size"]),
            vocab_size=int(section["vocab_size"]),
            n_positions=int(section["max_position_embeddings"]),
            norm="rms",
            norm_epsilon=1e-06,  # build.py sets it so, and says so
            activation=section["hidden_act"],
            rotary_dim=hidden // n_head,
            rotary_base=rotary_base,
        )
        return FtConfig(
            shape=shape,
            dtype=_STORED[section["weight_data_type"]],
            family=LLAMA,
            bias=False,
            own_head=True,
        )
    except (KeyError, ValueError) as error:
        raise BackendError(f"{path}: section llama: {error}") from error


def read_rank(
    directory: Path, config: FtConfig, place: Placement, cut: EmbeddingCut, *, share: bool
) -> dict[str, Array]:
    """One rank's weights under the names that engines use, matrices turned to [out, in]."""
    shape, family, hidden = config.shape, config.family, config.shape.hidden_size

    def load(old: str, *sizes: int) -> Array:
        path = directory / f"{old}.bin"
        try:
            return decode(path.read_bytes(), config.dtype, sizes)
        except FileNotFoundError:
            raise BackendError(
                f"{path}: no such file; was it made for {place.tp_size} ranks?"
            ) from None
        except BackendError as error:
            raise BackendError(f"{path}: {error}") from error

    table = (shape.vocab_size, hidden)
    head = load(family.whole[HEAD], *table) if config.own_head else None
    embedding = load(family.whole[EMBEDDING], *table)
    weights = cut_embeddings(embedding, head, place, cut, share=share)
    if place.is_first and shape.rotary_dim == 0:
        weights[POSITIONS] = load(family.whole[POSITIONS], shape.n_positions, hidden)
    if place.is_last:
        for name in ("transformer.ln_f.weight", "transformer.ln_f.bias"):
            if name in family.whole:
                weights[name] = load(family.whole[name], hidden)
    layers = place.layers(shape.n_layer)
    for layer in layers:
        for name, sizes in layer_sizes(shape, place.tp_size, bias=config.bias).items():
            old = _old_name(f"{_LAYERS}{layer}.{name}", family)
            old += f".{place.tp_rank}" if is_cut(name) else ""
            weights[f"{_LAYERS}{layer - layers.start}.{name}"] = load(old, *reversed(sizes)).T
    return weights


def layer_sizes(shape: Shape, tp_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
    """The tensors of a layer on one rank and their sizes, matrices [out, in]."""
    hidden, size = shape.hidden_size, shape.head_size
    heads = shape.n_head // tp_size
    qkv = (heads + 2 * max(1, shape.n_kv_head // tp_size)) * size
    inner = shape.inner_size // tp_size
    matrices = {
        "attention.qkv": (qkv, hidden),
        "attention.dense": (hidden, heads * size),
        "mlp.fc": (inner, hidden),
        "mlp.proj": (hidden, inner),
    }
    made: dict[str, tuple[int, ...]] = {}
    for name in ("input_layernorm", "post_layernorm"):
        made[f"{name}.weight"] = (hidden,)
        if shape.norm == "layer":
            made[f"{name}.bias"] = (hidden,)
    for name, sizes in matrices.items():
        made[f"{name}.weight"] = sizes
        if bias:
            made[f"{name}.bias"] = sizes[:1]
    if shape.norm == "rms" or shape.activation in _GATED:
        made["mlp.gate.weight"] = (inner, hidden)  # has no bias in any family
    return made


def with_embedding(config: FtConfig, cut: EmbeddingCut) -> FtConfig:
    """The same, its input embedding to be cut that way."""
    return replace(config, shape=replace(config.shape, embedding=cut))


def _section(directory: Path, family: Family) -> tuple[Path, configparser.SectionProxy]:
    path = directory / "config.ini"
    parsed = configparser.RawConfigParser()
    if not parsed.read(path, encoding="utf-8"):
        raise BackendError(f"{path}: no such file; give the folder <out-dir>/<tp>-gpu")
    if family.section not in parsed:
        raise BackendError(f"{path}: no section {family.section}, found {parsed.sections()}")
    return path, parsed[family.section]


def _old_name(name: str, family: Family) -> str:
    """`model.layers.0.mlp.dense_h_to_4h.weight` of `transformer.layers.0.mlp.fc.weight`."""
    if name in family.whole:
        return family.whole[name]
    number, _, rest = name.removeprefix(_LAYERS).partition(".")
    module, _, kind = rest.rpartition(".")
    return f"model.layers.{number}.{family.layer[module]}.{kind}"
