"""Dockerfiles that cannot reach the network, taken apart into stages.

A build without network still downloads where the Dockerfile itself asks for it: another image, an
ADD from a URL, a front end. None of that is pinned by a lock, so it is refused, with its line.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.errors import KitError, environment_error, usage_error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

CACHE = {"type": "cache", "id": "ccache", "target": "/ccache"}
"""The one cache that steps may keep: a compiler's, whose answers depend on what it is asked."""
_DIRECTIVE = re.compile(r"(#|//)\s*(syntax|escape|check)\s*=", re.IGNORECASE)
_FLAG = re.compile(r"--(\w[\w-]*)(?:=(\S+))?")
_HEREDOC = re.compile(r"(?<!\S)\d*<<-?[\"']?(\w+)[\"']?(?!\S)")
_HAS_DOCUMENTS = ("RUN", "COPY", "ADD")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction with its continuation lines joined; `line` is where it starts.

    `text` is what stands in the file, without comments.
    """

    line: int
    name: str
    flags: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
    text: str

    def mounts(self) -> list[dict[str, str]]:
        """The `--mount` flags as mappings, their keys in lower case, as engines take them."""
        return [
            {key.lower(): said for key, _, said in (p.partition("=") for p in value.split(","))}
            for name, value in self.flags
            if name == "mount"
        ]

    def sources(self) -> list[str]:
        """What `--from` and `from=` name: stages, or ARGs of base images."""
        copied = [value for name, value in self.flags if name == "from"]
        return [*copied, *(mount["from"] for mount in self.mounts() if "from" in mount)]

    def reading(self, images: Mapping[str, str]) -> str:
        """The text, with images in place of the stages and ARGs that `--from` and `from=` name."""
        text = self.text
        for name, value in self.flags:
            if name == "from":
                new = images.get(_bare(value), value)
            elif name == "mount":
                parts = [part.partition("=") for part in value.split(",")]
                new = ",".join(
                    f"{key}={images.get(_bare(said), said)}"
                    if key.lower() == "from"
                    else key + sign + said
                    for key, sign, said in parts
                )
            else:
                continue
            text = text.replace(f"--{name}={value}", f"--{name}={new}", 1)
        return text


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: `FROM parent AS name` and its steps.

    Attributes:
        name: in lower case, as engines take it.
        parent: a stage before it, an ARG of a base image (without `$`), or `scratch`.
        start: its FROM.
        steps: all that follows.
    """

    name: str
    parent: str
    start: Instruction
    steps: tuple[Instruction, ...]

    @property
    def uses(self) -> tuple[str, ...]:
        """Everything that it reads images of: its parent first."""
        named = [_bare(source) for step in self.steps for source in step.sources()]
        return tuple(dict.fromkeys([self.parent, *named]))

    @property
    def arguments(self) -> dict[str, str | None]:
        """The ARGs that it declares, with their defaults."""
        return _arguments(self.steps)

    @property
    def shell(self) -> Instruction | None:
        """The last SHELL in it."""
        found = [step for step in self.steps if step.name == "SHELL"]
        return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """All stages in the order of the file, and the ARGs before the first of them."""

    name: str
    globals: tuple[Instruction, ...]
    stages: Mapping[str, Stage]

    @property
    def defaults(self) -> dict[str, str | None]:
        """The ARGs before the first stage."""
        return _arguments(self.globals)

    @property
    def arguments(self) -> frozenset[str]:
        """Every ARG that a stage declares."""
        return frozenset(name for stage in self.stages.values() for name in stage.arguments)


def instructions(text: str, file: str = "Dockerfile") -> Iterator[Instruction]:
    """All instructions of a Dockerfile; comments and the bodies of here-documents are left out.

    Raises:
        KitError: a here-document without its end would hide what follows (exit 2).
    """
    lines = iter(enumerate(text.splitlines(), 1))
    for number, first in lines:
        line = first.strip()
        if not line or line.startswith("#"):
            continue
        raw = [first.rstrip()]
        while line.endswith("\\"):
            end, more = next(lines, (0, ""))
            stripped = more.strip()
            if end and (not stripped or stripped.startswith("#")):
                continue
            raw.append(more.rstrip())
            line = f"{line[:-1]} {stripped}"
        name, rest = (*line.split(maxsplit=1), "")[:2]
        name = name.upper()
        for delimiter in _HEREDOC.findall(line) if name in _HAS_DOCUMENTS else ():
            for _, body in lines:
                raw.append(body)
                if body.strip() == delimiter:
                    break
            else:
                raise usage_error(f"{file}:{number}: here-document {delimiter} without its end")
        words = _words(rest) if name == "ARG" else rest.split()
        flags = []
        while words and (flag := _FLAG.fullmatch(words[0])):
            flags.append((flag[1].lower(), flag[2] or ""))
            words.pop(0)
        yield Instruction(number, name, tuple(flags), tuple(words), "\n".join(raw))


def read(path: Path, bases: Collection[str]) -> Dockerfile:
    """Take a Dockerfile apart; refuse one that could download, or keeps state between builds.

    Args:
        path: the Dockerfile.
        bases: names of the ARGs that the lock fills in with images (`BASE`, `DEVEL`).

    Raises:
        KitError: with file name and line (exit 2); it cannot be read (exit 3).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise environment_error(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(("#", "//")):
            break
        if _DIRECTIVE.match(line):
            raise _refused(path, number, "a parser directive may make the engine download")
    images = {f"${name}" for name in bases} | {f"${{{name}}}" for name in bases}
    before: list[Instruction] = []
    parts: list[list[Instruction]] = []
    names: list[str] = []
    for step in instructions(text, path.name):
        if any(line.rstrip().endswith("\\\\") for line in step.text.split("\n")):
            raise _refused(path, step.line, "two backslashes at an end: engines differ in them")
        if step.name == "FROM":
            names.append(_stage_name(path, step, images, names))
            parts.append([step])
        elif step.name in ("ADD", "ONBUILD"):
            raise _refused(path, step.line, f"{step.name} can download; use COPY and the intent")
        elif step.name == "ARG":
            for word in step.words:
                name, given, default = word.partition("=")
                if name in bases and given:
                    raise _refused(path, step.line, f"ARG {word}: the lock fills this in")
                if "$" in default:  # its value, which counts for the key, is the engine's to find
                    raise _refused(path, step.line, f"ARG {word}: expected a plain default")
            (parts[-1] if parts else before).append(step)
        elif not parts:
            raise _refused(path, step.line, f"{step.name} before the first FROM")
        else:
            parts[-1].append(step)
        _check_flags(path, step, images, set(names))
    stages = {
        name: Stage(name, _bare(steps[0].words[0]), steps[0], tuple(steps[1:]))
        for name, steps in zip(names, parts, strict=True)
    }
    return Dockerfile(path.name, tuple(before), stages)


def mount_points(steps: Iterable[Instruction]) -> frozenset[str]:
    """Where steps mount inputs, as paths without the leading `/`; engines may leave them empty."""
    return frozenset(
        (mount.get("target") or mount.get("dst") or mount.get("destination") or "").strip("/")
        for step in steps
        for mount in step.mounts()
    ) - {""}


def filled(text: str, values: Mapping[str, str]) -> str:
    """A step as a person reads it: one line, ARGs filled in."""

    def value(match: re.Match[str]) -> str:
        return values.get(match[1] or match[2], match[0])

    first, _, document = text.partition("\n") if "<<" in text else (text, "", "")
    line = " ".join(first.replace("\\\n", " ").split())
    return _VARIABLE.sub(value, line) + (" …" if document else "")


def _stage_name(path: Path, step: Instruction, images: set[str], known: list[str]) -> str:
    image = step.words[0] if step.words else ""
    if image not in images and image != "scratch" and image.lower() not in known:
        expected = ", ".join(sorted(images)) or "none"
        raise _refused(path, step.line, f"FROM {image}: expected one of {expected}")
    if len(step.words) != 3 or step.words[1].upper() != "AS":
        raise _refused(path, step.line, "expected FROM … AS <name>: every stage has a name")
    name = step.words[2].lower()
    if name in known:
        raise _refused(path, step.line, f"stage {name!r} stands twice")
    return name


def _check_flags(path: Path, step: Instruction, images: set[str], stages: set[str]) -> None:
    for mount in step.mounts():
        kind = mount.get("type", "bind")
        if kind == "cache" and mount != CACHE:
            said = ",".join(f"{key}={value}" for key, value in CACHE.items())
            raise _refused(path, step.line, f"--mount=type=cache: only {said}")
        if kind not in ("bind", "tmpfs", "cache"):
            raise _refused(path, step.line, f"--mount=type={kind}: only bind, tmpfs and ccache's")
        is_writable = any(mount.get(key) in ("false", "0") for key in ("ro", "readonly"))
        if kind == "bind" and (is_writable or not {"rw", "readwrite"}.isdisjoint(mount)):
            raise _refused(path, step.line, "--mount=…,rw: inputs are read, copy what is changed")
    for source in step.sources():
        if source.lower() not in stages and source not in images:
            raise _refused(path, step.line, f"--from={source}: expected a stage of this file")
    for name, value in step.flags:
        if not {'"', "'", "\\"}.isdisjoint(value):
            raise _refused(path, step.line, f"--{name}={value}: expected no quote, no backslash")
        if (name == "network" and value != "none") or name == "security":
            raise _refused(path, step.line, f"--{name}={value}: steps have no network")


def _arguments(steps: Iterable[Instruction]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for step in steps:
        if step.name == "ARG":
            for word in step.words:
                name, given, default = word.partition("=")
                found[name] = default if given else None
    return found


def _words(text: str) -> list[str]:
    """What an ARG declares, without quotes."""
    try:
        return shlex.split(text)
    except ValueError:  # a quote that nothing closes: the engine refuses it
        return text.split()


def _bare(name: str) -> str:
    """`${BASE}` → `BASE`; a stage's name in lower case."""
    return name.strip("${}") if name.startswith("$") else name.lower()


def _refused(path: Path, line: int, why: str) -> KitError:
    return usage_error(f"{path.name}:{line}: {why}")
