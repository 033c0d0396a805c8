"""TensorRT-LLM checkpoints of both eras; of tensor files the header is read, never a tensor.

| layout | releases | files |
| --- | --- | --- |
| `unified` | LLaMA 0.8.0, GPT 0.9.0 and later | `config.json`, `rank0.safetensors` … |
| `ft` | before that | `<tp>-gpu/config.ini`, `model.*.bin`: a file for each tensor and its rank |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kit.artifacts import bounded, mapping, pointer, precision, tensors
from kit.artifacts.mapping import Parallelism
from kit.artifacts.problem import Problem, few
from kit.errors import content_error, usage_error
from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kit.artifacts.precision import Precision
    from kit.artifacts.tensors import TensorFile

Layout = Literal["unified", "ft"]

RANK_FILE = re.compile(r"rank([0-9]{1,5})\.safetensors")
FT_FOLDER = re.compile(r"([0-9]{1,5})-gpu")
_FT_RANK = re.compile(r"(model\..+)\.([0-9]{1,5})\.bin")
_INI_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class RankTensors:
    """One rank's tensor file."""

    rank: int
    tensors: TensorFile


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """A checkpoint that engines are built from.

    Attributes:
        folder: the one that holds the configuration.
        layout: the era.
        producer: name and version of the tool that quantized it, where it says so.
        release: TensorRT-LLM's version, where it is recorded: most checkpoints do not say.
        parallelism: tensor, pipeline, context parallel and world size.
        ranks: the tensor files of `unified`, by rank.
        files: how many tensor files there are.
        size: their bytes.
        missing: tensor files that are not there; in `ft` of each tensor that is cut the first.
        architecture: `GPTForCausalLM`; in `ft` the section's name: `gpt`.
        dtype: `float16`.
        precisions: data type and quantization in one vocabulary.
        heads: attention heads.
        kv_heads: key-value heads; equal to `heads` where they are left out.
        problems: what is wrong with it.
    """

    folder: Path
    layout: Layout
    producer: tuple[str, str | None] | None
    release: str | None
    parallelism: Parallelism
    ranks: tuple[RankTensors, ...]
    files: int
    size: int
    missing: tuple[str, ...]
    architecture: str | None
    dtype: str | None
    precisions: frozenset[Precision]
    heads: int | None
    kv_heads: int | None
    problems: tuple[Problem, ...]

    @property
    def world_size(self) -> int | None:
        """Ranks that it was cut for."""
        return self.parallelism.world_size

    @property
    def observations(self) -> tuple[Observation, ...]:
        """The release and the producer, as far as the configuration says."""
        name = "config.json" if self.layout == "unified" else "config.ini"
        where = str(self.folder / name)
        found = [Observation("tensorrt_llm", self.release, where, name)]
        if self.producer is not None:
            found.append(Observation(self.producer[0], self.producer[1], where, name))
        return tuple(found)


def is_checkpoint(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a checkpoint."""
    return isinstance(config.get("architecture"), str) and "pretrained_config" not in config


def look(folder: Path) -> CheckpointFolder:
    """Read a checkpoint; of the old ones also the folder above `<tp>-gpu`.

    Raises:
        KitError: there is no such folder, or it holds several checkpoints (exit 2); a
            configuration cannot be read, or this is no checkpoint (exit 4).
    """
    present = bounded.names(folder)
    if "config.ini" in present:
        return _ft(folder, present)
    if "config.json" in present:
        config = bounded.json_object(folder / "config.json")
        if is_checkpoint(config):
            return _unified(folder, config, present)
    inner = [name for name in present if FT_FOLDER.fullmatch(name)]
    inner = [name for name in inner if (folder / name / "config.ini").is_file()]
    if len(inner) > 1:
        raise usage_error(
            f"{folder}: checkpoints for {', '.join(inner)}: name one of them",
            hint=f"kit inspect {folder / inner[0]}",
        )
    if inner:
        return look(folder / inner[0])
    if any(RANK_FILE.fullmatch(name) for name in present):
        raise content_error(f"{folder}: rank*.safetensors without the config.json of a checkpoint")
    raise content_error(
        f"{folder}: no checkpoint: neither config.json with architecture nor config.ini"
    )


def _unified(folder: Path, config: Mapping[str, Any], present: tuple[str, ...]) -> CheckpointFolder:
    where = f"{folder / 'config.json'}"
    parallelism = mapping.of(bounded.mapping(config, "mapping"), where)
    if parallelism.world_size is None and not parallelism.problems:
        parallelism = Parallelism(1, 1, None, 1)  # the class takes one rank where none is named
    world = parallelism.world_size
    ranks = tuple(sorted(_ranks(folder, present), key=lambda item: item.rank))
    have = {item.rank for item in ranks}
    missing = tuple(f"rank{n}.safetensors" for n in range(world or 0) if n not in have)
    problems = list(parallelism.problems)
    problems += [
        Problem(
            "rank-damaged", f"{folder / item.tensors.file}: {item.tensors.problem}", is_corrupt=True
        )
        for item in ranks
        if item.tensors.problem is not None
    ]
    problems += [
        Problem("rank-stray", f"{folder / item.tensors.file}: beyond the {world} ranks of {where}")
        for item in ranks
        if world is not None and item.rank >= world
    ]
    if missing:
        problems.append(Problem("rank-missing", f"{folder}: {few(missing)} missing"))
    dtype = bounded.text(config, "dtype")
    precisions, unknown = precision.of_quantization(bounded.mapping(config, "quantization"))
    problems += [
        Problem("quantization-unknown", f"{where}: quantization {name!r}") for name in unknown
    ]
    heads = bounded.count(config, "num_attention_heads")
    kv_heads = bounded.count(config, "num_key_value_heads")
    producer = bounded.text(config, "producer", "name")
    return CheckpointFolder(
        folder=folder,
        layout="unified",
        producer=(producer, bounded.text(config, "producer", "version")) if producer else None,
        release=bounded.text(config, "version"),
        parallelism=parallelism,
        ranks=ranks,
        files=len(ranks),
        size=sum(item.tensors.size for item in ranks),
        missing=missing,
        architecture=bounded.text(config, "architecture"),
        dtype=dtype,
        precisions=precisions | precision.of_dtype(dtype),
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        problems=tuple(problems),
    )


def _ranks(folder: Path, present: tuple[str, ...]) -> Iterator[RankTensors]:
    for name in present:
        if (match := RANK_FILE.fullmatch(name)) and (folder / name).exists():
            yield RankTensors(int(match.group(1)), tensors.look(folder / name))


def _ft(folder: Path, present: tuple[str, ...]) -> CheckpointFolder:
    path = folder / "config.ini"
    section, settings = _ini(path)
    named = FT_FOLDER.fullmatch(folder.absolute().name)
    said = settings.get("tensor_parallelism") or settings.get("tensor_para_size")
    tp = int(named.group(1)) if named else _number(said)
    parallelism = mapping.of_sizes((tp,), str(path)) if tp is not None else Parallelism()
    files = [name for name in present if name.endswith(".bin") and (folder / name).is_file()]
    missing = tuple(_ft_missing(files, parallelism.world_size))
    sizes = {name: (folder / name).stat().st_size for name in files}
    pointers = [name for name in files if pointer.is_at(folder / name)]
    empty = [name for name, size in sizes.items() if size == 0]
    problems = list(parallelism.problems)
    if missing:
        problems.append(Problem("rank-missing", f"{folder}: {few(missing)} missing"))
    if not files:
        problems.append(Problem("rank-missing", f"{folder}: no tensor files model.*.bin"))
    problems += [
        Problem("rank-damaged", f"{folder}: {few(names)}: {what}", is_corrupt=True)
        for names, what in ((pointers, "Git LFS pointers, not the files"), (empty, "empty files"))
        if names
    ]
    dtype = settings.get("storage_dtype") or settings.get("storage_type")
    heads = _number(settings.get("n_head") or settings.get("num_attention_heads"))
    return CheckpointFolder(
        folder=folder,
        layout="ft",
        producer=None,
        release=None,
        parallelism=parallelism,
        ranks=(),
        files=len(files),
        size=sum(sizes.values()),
        missing=missing,
        architecture=section,
        dtype=dtype,
        precisions=precision.of_dtype(dtype),
        heads=heads,
        kv_heads=heads,
        problems=tuple(problems),
    )


def _ini(path: Path) -> tuple[str, dict[str, str]]:
    """The first section's name and its settings."""
    import configparser

    parser = configparser.RawConfigParser()
    try:
        parser.read_string(bounded.content(path, _INI_LIMIT).decode("utf-8"), source=str(path))
    except (configparser.Error, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise content_error(f"{path}: not a valid config.ini: {problem}") from error
    if not parser.sections():
        raise content_error(f"{path}: no section in it")
    return parser.sections()[0], dict(parser[parser.sections()[0]])


def _number(text: str | None) -> int | None:
    found = (text or "").strip()
    return int(found) if found.isascii() and found.isdecimal() and len(found) <= 9 else None


def _ft_missing(files: list[str], world_size: int | None) -> Iterator[str]:
    """Of a tensor that is cut, every rank has its own file."""
    ranks: dict[str, set[int]] = {}
    for name in files:
        if match := _FT_RANK.fullmatch(name):
            ranks.setdefault(match.group(1), set()).add(int(match.group(2)))
    for stem, present in sorted(ranks.items()):
        absent = next((rank for rank in range(world_size or 0) if rank not in present), None)
        if absent is not None:
            yield f"{stem}.{absent}.bin"
