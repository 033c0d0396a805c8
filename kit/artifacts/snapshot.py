"""Hugging Face model folders and hub caches: what is there, what is missing, what runs code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.artifacts import bounded, pointer, precision, tensors
from kit.artifacts.problem import Problem, few
from kit.errors import content_error, usage_error
from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kit.artifacts.precision import Precision

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_CACHE = re.compile(r"models--(.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".nemo")
_WEIGHTS = (".safetensors", ".gguf", *_PICKLES)
_TOKENIZERS = re.compile(
    r"tokenizer.*|vocab\..*|merges\.txt|spiece\.model|special_tokens_map\.json|added_tokens\.json"
    r"|.*\.tiktoken|sentencepiece.*|source\.spm|target\.spm"
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model folder.

    Attributes:
        folder: the folder with config.json: of a hub cache that of one commit.
        repository: `org/name`, where the folder lies in a hub cache.
        commit: of the snapshot, likewise.
        architectures: as config.json names them.
        model_type: `llama`.
        dtype: of the weights by config.json.
        precisions: data type and quantization in one vocabulary.
        heads: attention heads.
        kv_heads: key-value heads; equal to `heads` where they are left out.
        weights: files with tensors.
        missing: files that an index names and that are not there.
        pointers: files that are Git LFS pointers.
        tokenizer: files of the tokenizer.
        remote_code: Python files, and what `auto_map` names: code that loading would run.
        pickles: files that hold Python objects: loading them runs what they say.
        transformers: the version that wrote config.json.
        problems: what is wrong with it.
    """

    folder: Path
    repository: str | None
    commit: str | None
    architectures: tuple[str, ...]
    model_type: str | None
    dtype: str | None
    precisions: frozenset[Precision]
    heads: int | None
    kv_heads: int | None
    weights: tuple[str, ...]
    missing: tuple[str, ...]
    pointers: tuple[str, ...]
    tokenizer: tuple[str, ...]
    remote_code: tuple[str, ...]
    pickles: tuple[str, ...]
    transformers: str | None
    problems: tuple[Problem, ...]

    @property
    def observations(self) -> tuple[Observation, ...]:
        """The commit, and the version of transformers that wrote config.json."""
        found = []
        if self.commit is not None:
            name = self.repository or "model"
            found.append(Observation(name, self.commit, str(self.folder), "hub cache"))
        where = str(self.folder / "config.json")
        found.append(Observation("transformers", self.transformers, where, "config.json"))
        return tuple(found)


def is_snapshot(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a Hugging Face model."""
    return isinstance(config.get("architectures"), list) or isinstance(
        config.get("model_type"), str
    )


def is_cache(folder: Path) -> bool:
    """Whether a folder is a model's in a hub cache: `models--org--name`."""
    return _CACHE.fullmatch(folder.name) is not None and (folder / "snapshots").is_dir()


def look(folder: Path) -> Snapshot:
    """Read a model folder, or the snapshot of a hub cache that `refs/main` names.

    Raises:
        KitError: there is no such folder, or several snapshots and none is `main` (exit 2); a
            configuration cannot be read, or this is no model folder (exit 4).
    """
    folder = _chosen(folder) if is_cache(folder) else folder
    present = bounded.names(folder)
    if "config.json" not in present:
        raise content_error(f"{folder}: no Hugging Face model: no config.json in it")
    config = bounded.json_object(folder / "config.json")
    if not is_snapshot(config):
        raise content_error(f"{folder}: no Hugging Face model: config.json names no architecture")
    wanted = {name for index in INDEXES if index in present for name in _index(folder / index)}
    missing = tuple(sorted(name for name in wanted if not bounded.is_file(folder / name)))
    dangling = tuple(name for name in present if not (folder / name).exists())
    files = tuple(name for name in present if (folder / name).is_file())
    pointers = tuple(name for name in files if pointer.is_at(folder / name))
    weights = tuple(name for name in files if name.endswith(_WEIGHTS))
    precisions, unknown = _precisions(folder, config, present)
    repository, commit = _origin(folder)
    text = {**config, **bounded.mapping(config, "text_config")}
    heads, kv_heads = _heads(text)
    return Snapshot(
        folder=folder,
        repository=repository,
        commit=commit,
        architectures=bounded.texts(config, "architectures"),
        model_type=bounded.text(config, "model_type"),
        dtype=_dtype(text),
        precisions=precisions,
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        weights=weights,
        missing=missing,
        pointers=pointers,
        tokenizer=tuple(name for name in files if _TOKENIZERS.fullmatch(name)),
        remote_code=_remote_code(config, files),
        pickles=tuple(name for name in files if name.endswith(_PICKLES)),
        transformers=bounded.text(config, "transformers_version"),
        problems=(
            *_problems(folder, missing, dangling, pointers, weights, unknown),
            *_damaged(folder, [name for name in weights if name not in pointers]),
        ),
    )


def _chosen(cache: Path) -> Path:
    """The snapshot that `refs/main` names, or the only one."""
    snapshots = bounded.names(cache / "snapshots")
    main = cache / "refs" / "main"
    if main.is_file():
        commit = bounded.content(main, 100).decode("ascii", errors="replace").strip()
        if commit in snapshots:
            return cache / "snapshots" / commit
    if len(snapshots) == 1:
        return cache / "snapshots" / snapshots[0]
    if not snapshots:
        raise content_error(f"{cache}: no snapshot in this hub cache")
    raise usage_error(
        f"{cache}: {len(snapshots)} snapshots, and refs/main names none of them",
        hint=f"kit inspect {cache / 'snapshots' / snapshots[0]}",
    )


def _origin(folder: Path) -> tuple[str | None, str | None]:
    """Repository and commit of a snapshot in a hub cache."""
    place = folder.absolute()
    if place.parent.name != "snapshots" or not _COMMIT.fullmatch(place.name):
        return None, None
    match = _CACHE.fullmatch(place.parent.parent.name)
    return match.group(1).replace("--", "/") if match else None, place.name


def _index(path: Path) -> Iterator[str]:
    for named in bounded.mapping(bounded.json_object(path), "weight_map").values():
        name = bounded.text(named)
        if name is not None and not name.startswith("/") and ".." not in name:
            yield name


def _dtype(config: Mapping[str, Any]) -> str | None:
    # transformers 4.56 renamed torch_dtype.
    return bounded.text(config, "dtype") or bounded.text(config, "torch_dtype")


def _heads(config: Mapping[str, Any]) -> tuple[int | None, int | None]:
    heads = bounded.count(config, "num_attention_heads")
    return (
        bounded.count(config, "n_head") if heads is None else heads,
        bounded.count(config, "num_key_value_heads"),
    )


_METHODS: dict[tuple[str, int | None], Precision] = {
    ("awq", 4): "int4_awq",
    ("gptq", 4): "int4_gptq",
    ("gptq", 8): "int8_gptq",
    ("fp8", None): "fp8",
    ("mxfp4", None): "mxfp4",
}


def _precisions(
    folder: Path, config: Mapping[str, Any], present: tuple[str, ...]
) -> tuple[frozenset[Precision], tuple[str, ...]]:
    """Data type, `quantization_config`, and the `hf_quant_config.json` of ModelOpt."""
    found = precision.of_dtype(_dtype(config))
    unknown: tuple[str, ...] = ()
    section = bounded.mapping(config, "quantization_config")
    method = bounded.text(section, "quant_method")
    if method == "fp8" and section.get("weight_block_size") is not None:
        found |= {"fp8_block"}
    elif method is not None and method != "modelopt":
        bits = bounded.count(section, "bits")
        known = _METHODS.get((method, bits)) or _METHODS.get((method, None))
        found |= {known} if known else set()
        unknown = () if known else (f"{method} {bits or ''}".strip(),)
    if "hf_quant_config.json" in present:
        content = bounded.json_object(folder / "hf_quant_config.json")
        more, strange = precision.of_quantization(bounded.mapping(content, "quantization"))
        found, unknown = found | more, (*unknown, *strange)
    return found, unknown


def _remote_code(config: Mapping[str, Any], files: tuple[str, ...]) -> tuple[str, ...]:
    named = {
        f"auto_map: {value}"
        for value in bounded.mapping(config, "auto_map").values()
        if bounded.text(value) is not None
    }
    return (*sorted(named), *(name for name in files if name.endswith(".py")))


def _problems(
    folder: Path,
    missing: tuple[str, ...],
    dangling: tuple[str, ...],
    pointers: tuple[str, ...],
    weights: tuple[str, ...],
    unknown: tuple[str, ...],
) -> Iterator[Problem]:
    if missing:
        message = f"{folder}: {few(missing)}: named by the index and not there"
        yield Problem("weights-missing", message)
    elif not weights:
        yield Problem("weights-missing", f"{folder}: no file with weights")
    if dangling:
        message = f"{folder}: {few(dangling)}: links to files that were never fetched"
        yield Problem("blob-missing", message)
    if pointers:
        yield Problem("pointer-left", f"{folder}: {few(pointers)}: Git LFS pointers, not the files")
    for name in unknown:
        yield Problem("quantization-unknown", f"{folder}: quantization {name!r} is not known")


def _damaged(folder: Path, weights: list[str]) -> Iterator[Problem]:
    """Safetensors whose header and size contradict each other: a download that stopped."""
    for name in weights:
        if name.endswith(".safetensors"):
            problem = tensors.look(folder / name).problem
            if problem is not None:
                message = f"{folder / name}: {problem}"
                yield Problem("weights-damaged", message, is_corrupt=True)
