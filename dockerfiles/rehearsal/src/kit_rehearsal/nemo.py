"""NeMo's archives of GPT models: model_config.yaml, a tokenizer, weights of one or several ranks.

The names and shapes are those of Megatron: a matrix is [out, in], query, key and value lie side by
side within every head, a gated MLP has its gate behind the other half, and with `layernorm1p` the
norms' weights are stored less one.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from . import torch_pickle
from .engine import Shape
from .errors import BackendError, NotComputedError
from .files import write_bytes
from .ft_layout import layer_sizes
from .split import EMBEDDING, HEAD, POSITIONS, Network
from .tokens import SentencePieceTokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .tensors import Array

CONFIG = "model_config.yaml"
_WEIGHTS = ("model_weights.ckpt", "last.ckpt")
_YAML_LIMIT = 1 << 20
_MODEL = "model.language_model."
_LAYERS = f"{_MODEL}encoder.layers."
_WHOLE = {
    EMBEDDING: f"{_MODEL}embedding.word_embeddings.weight",
    POSITIONS: f"{_MODEL}embedding.position_embeddings.weight",
    HEAD: f"{_MODEL}output_layer.weight",
    "transformer.ln_f.weight": f"{_MODEL}encoder.final_layernorm.weight",
    "transformer.ln_f.bias": f"{_MODEL}encoder.final_layernorm.bias",
}
_LAYER = {
    "input_layernorm": "input_layernorm",
    "self_attention.query_key_value": "attention.qkv",
    "self_attention.dense": "attention.dense",
    "post_attention_layernorm": "post_layernorm",
    "mlp.dense_h_to_4h": "mlp.fc",
    "mlp.dense_4h_to_h": "mlp.proj",
}
_COLUMN_PARALLEL = ("attention.qkv", "mlp.fc")
_ROW_PARALLEL = ("attention.dense.weight", "mlp.proj.weight")
_GATED = ("swiglu", "fast-swiglu")
# What tokenizer files are called beside the checkpoint, by their key in the configuration.
_TOKENIZER_FILES = {"model": "tokenizer", "vocab_file": "vocab", "merge_file": "merges"}


@dataclass(frozen=True)
class Archive:
    """The files of a .nemo archive, or of the folder that it was unpacked to, by their names."""

    path: Path
    names: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> Archive:
        """The archive, plain or gzipped, or the folder at that path.

        Raises:
            BackendError: it is neither.
        """
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            return cls(path, tuple(file.relative_to(path).as_posix() for file in files))
        try:
            with tarfile.open(path) as archive:
                members = [member.name for member in archive if member.isfile()]
        except FileNotFoundError:
            raise BackendError(f"{path}: no such file") from None
        except tarfile.TarError as error:
            raise BackendError(f"{path}: not a .nemo archive: {error}") from error
        return cls(path, tuple(members))

    def read(self, name: str) -> bytes:
        """The content of one of its files."""
        if self.path.is_dir():
            return (self.path / name).read_bytes()
        with tarfile.open(self.path) as archive:
            file = archive.extractfile(name)
            assert file is not None  # names has regular files only
            return file.read()

    def named(self, name: str) -> list[str]:
        """Its files of that name, in whatever folder."""
        return [found for found in self.names if PurePosixPath(found).name == name]

    def config(self) -> dict[str, Any]:
        """What model_config.yaml says."""
        import yaml

        found = self.named(CONFIG)
        if len(found) != 1:
            raise BackendError(f"{self.path}: expected one {CONFIG}, found {found}")
        text = self.read(found[0])
        if len(text) > _YAML_LIMIT:
            raise BackendError(f"{self.path}: {found[0]} has {len(text)} bytes")
        try:
            loaded = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise BackendError(f"{self.path}: {found[0]}: not YAML: {error}") from error
        if not isinstance(loaded, dict):
            raise BackendError(f"{self.path}: {found[0]}: expected a mapping")
        return loaded

    def weights(self, tp_rank: int = 0, pp_rank: int = 0, *, tp: int = 1, pp: int = 1) -> Any:
        """The tensors that one rank of the training stored, by their names."""
        folder = ""
        if pp > 1:
            folder = f"tp_rank_{tp_rank:02d}_pp_rank_{pp_rank:03d}"
        elif tp > 1:
            folder = f"mp_rank_{tp_rank:02d}"
        found = [
            path
            for name in _WEIGHTS
            for path in self.names
            if PurePosixPath(path).name.endswith(name) and PurePosixPath(path).parent.name == folder
        ]
        if not found:
            place = f"{folder}/{_WEIGHTS[0]}" if folder else _WEIGHTS[0]
            raise BackendError(f"{self.path}: no {place} in it, found {', '.join(self.names[:8])}")
        source = f"{self.path}: {found[0]}"
        return torch_pickle.load(io.BytesIO(self.read(found[0])), source)

    def tokenizer_files(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Its files of the tokenizer, by the name that they get beside a checkpoint."""
        tokenizer = config.get("tokenizer") or {}
        made = {}
        for key, stem in _TOKENIZER_FILES.items():
            named = tokenizer.get(key)
            if named in {None, "None"}:
                continue
            ending = PurePosixPath(str(named).removeprefix("nemo:")).name
            found = [name for name in self.names if PurePosixPath(name).name.endswith(ending)]
            if len(found) != 1:
                raise BackendError(
                    f"{self.path}: tokenizer.{key} {named}: expected one file, found {found}"
                )
            made[stem + PurePosixPath(found[0]).suffix] = found[0]
        return made


def read_model(archive: Archive, renames: Sequence[str] = ()) -> Network:
    """The whole network, put together from all ranks of the training.

    `renames` are `old:new` and replace parts of the tensors' names first. The source has what
    config.ini of a release says of a GPT.
    """
    config = archive.config()
    tp, pp = (
        int(config.get(f"{kind}_model_parallel_size") or 1) for kind in ("tensor", "pipeline")
    )
    shape = _shape(archive, config)
    weights: dict[str, Array] = {}
    for stage in range(pp):
        parts = [
            _renamed(archive.weights(rank, stage, tp=tp, pp=pp), renames) for rank in range(tp)
        ]
        for ours, theirs in _WHOLE.items():
            found = [part[theirs] for part in parts if theirs in part]
            if found:
                cut = ours in {EMBEDDING, HEAD}
                weights.setdefault(ours, np.concatenate(found) if cut else found[0])
        first = stage * shape.n_layer // pp
        for name in parts[0]:
            if name.startswith(_LAYERS):
                weights.update(_layer_tensor(name, [part[name] for part in parts], first, shape))
    shape = _with_vocabulary(archive, shape, weights)
    if config.get("normalization") == "layernorm1p":
        weights.update(
            (name, value + np.float32(1))
            for name, value in weights.items()
            if name.endswith(("layernorm.weight", "ln_f.weight"))
        )
    _check(archive, shape, weights, bias=bool(config.get("bias", True)))
    return Network(shape, weights, _source(config, shape))


def read_prompt_table(archive: Archive) -> Array:
    """A prompt-tuning archive's vectors, [tasks, tokens, hidden], short tasks filled with zeros."""
    config = archive.config()
    folder = archive.named(_WEIGHTS[0])
    split = bool(folder) and PurePosixPath(folder[0]).parent.name.startswith("mp_rank")
    weights = archive.weights(tp=2 if split else 1)
    if "peft" in config:
        tables = [_adapter_table(archive, weights)]
        hidden = config.get("hidden_size")
        if hidden is not None and tables[0].shape[1] != hidden:
            raise BackendError(
                f"{archive.path}: vectors of {tables[0].shape[1]}, the model has {hidden}"
            )
    else:
        tasks = [str(task["taskname"]) for task in config.get("task_templates") or ()]
        stored = weights.get("prompt_table") or {}
        names = [f"prompt_table.{task}.prompt_embeddings.weight" for task in tasks]
        tables = [stored[name] for name in names if name in stored]
    if not tables or any(getattr(table, "ndim", 0) != 2 for table in tables):
        raise BackendError(f"{archive.path}: no prompt table in it, found {sorted(weights)[:8]}")
    made = np.zeros((len(tables), max(map(len, tables)), tables[0].shape[1]), dtype=np.float32)
    for place, table in enumerate(tables):
        made[place, : len(table)] = table
    return made


def special_ids(archive: Archive, files: Mapping[str, str], scratch: Path) -> dict[str, int | None]:
    """eos_token_id and bos_token_id of its SentencePiece tokenizer, None of another one."""
    if "tokenizer.model" not in files:
        return {"eos_token_id": None, "bos_token_id": None}
    path = scratch / "tokenizer.model"
    write_bytes(path, archive.read(files["tokenizer.model"]))
    tokenizer = SentencePieceTokenizer(str(path))
    return {"eos_token_id": tokenizer.end_id, "bos_token_id": tokenizer.begin_id}


def _shape(archive: Archive, config: Mapping[str, Any]) -> Shape:
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        head_size = int(config.get("kv_channels") or hidden // heads)
        turned = config.get("position_embedding_type", "learned_absolute")
        share = float(config.get("rotary_percentage", 1.0))
        shape = Shape(
            n_layer=int(config["num_layers"]),
            n_head=heads,
            n_kv_head=heads,
            head_size=head_size,
            hidden_size=hidden,
            inner_size=int(config["ffn_hidden_size"]),
            vocab_size=0,  # the weights say it
            n_positions=int(config["max_position_embeddings"]),
            norm="layer",
            norm_epsilon=float(config["layernorm_epsilon"]),
            activation=str(config["activation"]),
            rotary_dim=int(head_size * share) if turned == "rope" else 0,
            rotary_base=float(config.get("rotary_base", 10000.0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError(f"{archive.path}: {CONFIG}: {error}") from error
    groups = config.get("num_query_groups")
    for what, value, usual in (
        ("position_embedding_type", turned, ("rope", "learned_absolute")),
        ("seq_len_interpolation_factor", config.get("seq_len_interpolation_factor"), (None,)),
        ("num_query_groups", groups, (None, heads)),
        ("kv_channels", head_size, (hidden // heads,)),
        ("normalization", config.get("normalization", "layernorm"), ("layernorm", "layernorm1p")),
    ):
        if value not in usual:
            raise NotComputedError(f"{what} = {value}", f"{archive.path}: {CONFIG}")
    if shape.activation in _GATED and config.get("bias", True):
        raise NotComputedError("biases of a gated MLP", f"{archive.path}: {CONFIG}")
    return shape


def _renamed(weights: Mapping[str, Any], renames: Sequence[str]) -> dict[str, Array]:
    made = {}
    for name, value in (weights.get("state_dict") or weights).items():
        for pattern in renames:
            old, _, new = pattern.partition(":")
            name = name.replace(old, new)  # noqa: PLW2901  one after the other
        if isinstance(value, np.ndarray):
            made[name] = value
    return made


def _layer_tensor(name: str, parts: Sequence[Array], first: int, shape: Shape) -> dict[str, Array]:
    """A layer's tensor of all ranks under our name; the gate of an MLP becomes its own."""
    number, _, rest = name.removeprefix(_LAYERS).partition(".")
    module, _, kind = rest.rpartition(".")
    if module not in _LAYER:
        return {}
    ours = f"{_LAYER[module]}.{kind}"
    place = f"transformer.layers.{int(number) + first}."
    if ours.startswith("attention.qkv"):
        return {place + ours: _queries_keys_values(np.concatenate(parts), shape)}
    if ours == "mlp.fc.weight" and shape.activation in _GATED:
        values, gates = zip(*(np.split(part, 2) for part in parts))
        return {
            place + ours: np.concatenate(values),
            f"{place}mlp.gate.weight": np.concatenate(gates),
        }
    if ours.startswith(_COLUMN_PARALLEL):
        return {place + ours: np.concatenate(parts)}
    if ours in _ROW_PARALLEL:
        return {place + ours: np.concatenate(parts, axis=1)}
    return {place + ours: parts[0]}


def _queries_keys_values(value: Array, shape: Shape) -> Array:
    """All queries, then keys, then values, of what has them side by side in every head."""
    rest = value.shape[1:]
    by_head = value.reshape(shape.n_head, 3, shape.head_size, *rest)
    return by_head.swapaxes(0, 1).reshape(-1, *rest)


def _with_vocabulary(archive: Archive, shape: Shape, weights: Mapping[str, Array]) -> Shape:
    if EMBEDDING not in weights:
        raise BackendError(f"{archive.path}: no {_WHOLE[EMBEDDING]} in its weights")
    return replace(shape, vocab_size=len(weights[EMBEDDING]))


def _check(archive: Archive, shape: Shape, weights: Mapping[str, Array], *, bias: bool) -> None:
    """BackendError for the first tensor that is missing or has another shape."""
    hidden = shape.hidden_size
    expected: dict[str, tuple[int, ...]] = {
        EMBEDDING: (shape.vocab_size, hidden),
        "transformer.ln_f.weight": (hidden,),
        "transformer.ln_f.bias": (hidden,),
    }
    if shape.rotary_dim == 0:
        expected[POSITIONS] = (shape.n_positions, hidden)
    if HEAD in weights:
        expected[HEAD] = (shape.vocab_size, hidden)
    for layer in range(shape.n_layer):
        for name, sizes in layer_sizes(shape, 1, bias=bias).items():
            expected[f"transformer.layers.{layer}.{name}"] = sizes
    for name, sizes in expected.items():
        found = weights[name].shape if name in weights else None
        if found != sizes:
            raise BackendError(f"{archive.path}: {name}: expected shape {sizes}, found {found}")


def _source(config: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocab_size,
        "n_positions": shape.n_positions,
        "n_embd": shape.hidden_size,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "intermediate_size": shape.inner_size,
        "activation_function": shape.activation,
        "layer_norm_epsilon": shape.norm_epsilon,
        "bias": bool(config.get("bias", True)),
        "rotary_pct": shape.rotary_dim / shape.head_size,
        "rotary_base": shape.rotary_base,
    }


def _adapter_table(archive: Archive, weights: Mapping[str, Any]) -> Any:
    name = "model.embedding.adapter_layer.ptuning_adapter.inference_table"
    if name in weights:
        return weights[name]
    for other, value in weights.items():
        if "adapter_layer.ptuning_adapter" in other:
            return value
    raise BackendError(f"{archive.path}: no table of an adapter, found {sorted(weights)[:8]}")
