"""Engine directories of all eras: config.json and the heads of the rank files.

Rank files are named `rank0.engine` by trtllm-build and `gpt_float16_tp2_rank0.engine` by the
build.py of 0.5.0 to 0.8.0, with `_pp2` after the tensor parallel size where a pipeline is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kit.artifacts import bounded, engine_config, plan
from kit.artifacts.plan import REHEARSAL
from kit.artifacts.problem import Problem, few
from kit.errors import content_error
from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from kit.artifacts.engine_config import EngineConfig, Layout, Limits
    from kit.artifacts.mapping import Parallelism
    from kit.artifacts.plan import Backend, PlanHeader
    from kit.artifacts.precision import Precision

RANK_FILE = re.compile(
    r"(?:(?P<stem>.+?)(?:_tp(?P<tp>[0-9]{1,5}))?(?:_pp(?P<pp>[0-9]{1,5}))?_)?"
    r"rank(?P<rank>[0-9]{1,5})\.engine"
)
PARTS = ("encoder", "decoder", "llm", "vision", "visual_encoder")
"""Folders that the engines of one model are built into: encoder-decoder and multimodal models."""
_DEEPEST_PART = 2
"""Parts may have parts: an `llm` of `encoder` and `decoder`; links may lead in circles."""
_SUFFIXES = (".engine", ".plan", ".trt")


@dataclass(frozen=True, slots=True)
class RankFile:
    """One rank's engine file; `tp` and `pp` by the old names, None in the new ones."""

    file: str
    rank: int
    tp: int | None
    pp: int | None
    header: PlanHeader


@dataclass(frozen=True, slots=True)
class EngineDirectory:
    """An engine directory.

    Attributes:
        folder: where it is.
        config: what its config.json says.
        version: the release with its local label, and who says so: config.json, or the header of
            a rehearsal engine where there is no version in config.json.
        ranks: its rank files by rank.
        expected: names of the rank files that config.json makes expect; () if it does not say.
        missing: those of `expected` whose rank is not there.
        strays: engine files that are not its own: of another tp, with another name.
        parts: the engines below, where the folder holds `encoder`, `decoder` … and no ranks.
        problems: what is wrong with it.
    """

    folder: Path
    config: EngineConfig
    version: Observation
    ranks: tuple[RankFile, ...] = ()
    expected: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    strays: tuple[PlanHeader, ...] = ()
    parts: tuple[EngineDirectory, ...] = ()
    problems: tuple[Problem, ...] = field(default=())

    @property
    def layout(self) -> Layout:
        """The era of its config.json."""
        return self.config.layout

    @property
    def release(self) -> str | None:
        """The release with its local label; None where the engine does not say."""
        return self.version.version

    @property
    def parallelism(self) -> Parallelism:
        """Tensor, pipeline and context parallel sizes by config.json."""
        return self.config.parallelism

    @property
    def world_size(self) -> int | None:
        """Ranks by config.json."""
        return self.config.parallelism.world_size

    @property
    def architecture(self) -> str | None:
        """`GPTForCausalLM`, or the name that an old build.py gave."""
        return self.config.architecture

    @property
    def dtype(self) -> str | None:
        """`float16`."""
        return self.config.dtype

    @property
    def precisions(self) -> frozenset[Precision]:
        """Data type, quantization and KV cache, the parts' too."""
        return self.config.precisions.union(*(part.precisions for part in self.parts))

    @property
    def heads(self) -> int | None:
        """Attention heads."""
        return self.config.heads

    @property
    def kv_heads(self) -> int | None:
        """Key-value heads."""
        return self.config.kv_heads

    @property
    def limits(self) -> Limits:
        """Batch, lengths, beams, tokens."""
        return self.config.limits

    @property
    def gpu_hint(self) -> str | None:
        """The cluster key: the GPU that the engine was built for or on."""
        return self.config.gpu_hint

    @property
    def plugins(self) -> Mapping[str, Any]:
        """`plugin_config` as it stands."""
        return self.config.plugins

    @property
    def tensorrt(self) -> str | None:
        """TensorRT's version `a.b.c.d` by the headers, where they are of one mind."""
        found = {item.header.tensorrt for item in self.ranks}
        found |= {part.tensorrt for part in self.parts}
        return found.pop() if len(found) == 1 else None

    @property
    def backend(self) -> Backend | None:
        """What made the engine; a label in config.json is enough to know a rehearsal."""
        if (self.release or "").endswith(f"+{REHEARSAL}"):
            return REHEARSAL
        kinds = {item.header.backend for item in self.ranks}
        kinds |= {part.backend for part in self.parts}
        if REHEARSAL in kinds:
            return REHEARSAL
        return kinds.pop() if len(kinds) == 1 else None

    @property
    def observations(self) -> tuple[Observation, ...]:
        """What config.json and the headers say; for a folder of parts what the parts say."""
        found = [] if self.parts else [self.version]
        for item in self.ranks:
            found += item.header.observations
        for part in self.parts:
            found += part.observations
        return tuple(dict.fromkeys(found))


def look(folder: Path) -> EngineDirectory:
    """Read an engine directory, or one that holds the engines of an encoder and a decoder.

    Raises:
        KitError: there is no such folder (exit 2); config.json cannot be read, or there is neither
            an engine's configuration nor an engine file (exit 4).
    """
    return _look(folder, 0)


def _look(folder: Path, depth: int) -> EngineDirectory:
    present = bounded.names(folder)
    path = folder / engine_config.FILE
    content = bounded.json_object(path) if engine_config.FILE in present else {}
    files = [name for name in present if name.endswith(_SUFFIXES) and (folder / name).is_file()]
    if engine_config.layout(content) == "none" and not files:
        named = [name for name in PARTS if depth < _DEEPEST_PART and _is_part(folder / name)]
        parts = tuple(_look(folder / name, depth + 1) for name in named)
        if not parts:
            raise content_error(
                f"{folder}: no engine directory: no rank*.engine in it, "
                + ("and its config.json is not an engine's" if content else "and no config.json"),
                hint="kit example list",
            )
        return _whole(folder, parts)
    return _read(folder, content, files)


def _is_part(folder: Path) -> bool:
    return folder.is_dir() and any(
        name == engine_config.FILE or name.endswith(_SUFFIXES) for name in bounded.names(folder)
    )


def _whole(folder: Path, parts: tuple[EngineDirectory, ...]) -> EngineDirectory:
    """A folder of several engines; its configuration is that of the last part: the decoder."""
    releases = {part.release for part in parts}
    problems = [
        replace(problem, message=f"{part.folder.name}: {problem.message}")
        for part in parts
        for problem in part.problems
    ]
    if len(releases) > 1:
        shown = ", ".join(f"{part.folder.name} {part.release or 'unknown'}" for part in parts)
        problems.append(Problem("parts-differ", f"the parts are of several releases: {shown}"))
    language = next((part for part in parts if part.folder.name in ("decoder", "llm")), parts[0])
    return EngineDirectory(
        folder=folder,
        config=language.config,
        version=language.version,
        parts=parts,
        problems=tuple(problems),
    )


def _read(folder: Path, content: Mapping[str, Any], files: list[str]) -> EngineDirectory:
    where = folder / engine_config.FILE
    config = engine_config.read(folder, content)
    world = config.parallelism.world_size
    expected = tuple(f"{config.stem}rank{rank}.engine" for rank in range(world or 0))
    ranks, others = _files(folder, files)
    own = [item for item in ranks if _belongs(item, config)]
    foreign = [item.header for item in ranks if not _belongs(item, config)]
    present = {item.rank for item in own}
    missing = tuple(name for rank, name in enumerate(expected) if rank not in present)
    problems = [*config.parallelism.problems, *_damaged(own), *_places(own, world)]
    if content and config.layout == "none":
        problems.append(Problem("config-unknown", f"{where}: not the config.json of an engine"))
    problems += [
        Problem("quantization-unknown", f"{where}: quantization {name!r}")
        for name in config.unknown
    ]
    if missing:
        problems.append(
            Problem("rank-missing", f"{folder}: {few(missing)} of {world} rank files missing")
        )
    problems += [
        Problem("rank-stray", f"{item.path}: not of the engine in {where.name}") for item in foreign
    ]
    return EngineDirectory(
        folder=folder,
        config=config,
        version=_version(config, where, own),
        ranks=tuple(own),
        expected=expected,
        missing=missing,
        strays=(*others, *foreign),
        problems=tuple(problems),
    )


def _files(folder: Path, files: list[str]) -> tuple[list[RankFile], list[PlanHeader]]:
    """Rank files in the order of their ranks, and engine files with other names."""
    ranks: list[RankFile] = []
    others: list[PlanHeader] = []
    for name in files:
        header = plan.look(folder / name)
        if match := RANK_FILE.fullmatch(name):
            tp, pp = (int(match[key]) if match[key] else None for key in ("tp", "pp"))
            ranks.append(RankFile(name, int(match["rank"]), tp, pp, header))
        else:
            others.append(header)
    return sorted(ranks, key=lambda item: (item.rank, item.file)), others


def _belongs(item: RankFile, config: EngineConfig) -> bool:
    """Whether a rank file can be that of this config.json, by its name."""
    world, tp = config.parallelism.world_size, config.parallelism.tp
    if world is not None and item.rank >= world:
        return False
    if config.layout == "version":
        return item.file == f"rank{item.rank}.engine"
    return None in (tp, item.tp) or item.tp == tp


def _version(config: EngineConfig, where: Path, ranks: list[RankFile]) -> Observation:
    if config.release is not None:
        return Observation("tensorrt_llm", config.release, str(where), where.name)
    for item in ranks:
        for seen in item.header.observations:
            if seen.component == "tensorrt_llm" and seen.version is not None:
                return seen
    how = "no such file" if config.layout == "none" else "config.json holds no version"
    return Observation("tensorrt_llm", None, str(where), how)


def _damaged(ranks: list[RankFile]) -> Iterator[Problem]:
    for item in ranks:
        if item.header.problem is not None:
            message = f"{item.header.path}: {item.header.problem}"
            yield Problem("rank-damaged", message, is_corrupt=True)
    versions = {item.header.tensorrt for item in ranks if item.header.tensorrt}
    if len(versions) > 1:
        shown = ", ".join(sorted(versions))
        yield Problem("ranks-differ", f"ranks of several TensorRT in one engine: {shown}")


def _places(ranks: list[RankFile], world_size: int | None) -> Iterator[Problem]:
    """Rank files that are there twice, or say that they are another rank than their name's."""
    seen: set[int] = set()
    for item in ranks:
        if item.rank in seen:
            yield Problem("rank-twice", f"{item.header.path}: rank {item.rank} is there twice")
        seen.add(item.rank)
        said = item.header.rehearsal
        if said is None or said.rank is None:
            continue
        size = said.world_size
        if said.rank != item.rank or size not in {None, world_size or size}:
            message = f"{item.header.path}: its header says rank {said.rank} of {size}"
            yield Problem("rank-place", message)
