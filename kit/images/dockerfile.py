"""Dockerfiles that cannot reach the network: checked before an engine sees them.

A build without network still downloads where the Dockerfile itself asks for it: another image, an
ADD from a URL, a front end. None of that is pinned by a lock, so it is refused, with its line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.errors import KitError, usage_error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_DIRECTIVE = re.compile(r"(#|//)\s*(syntax|escape|check)\s*=", re.IGNORECASE)
_FLAG = re.compile(r"--(\w[\w-]*)(?:=(\S+))?")
_HEREDOC = re.compile(r"<<-?[\"']?(\w+)[\"']?")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction with its continuation lines joined; `line` is where it starts."""

    line: int
    name: str
    flags: tuple[tuple[str, str], ...]
    words: tuple[str, ...]

    def mounts(self) -> list[dict[str, str]]:
        """The `--mount` flags as mappings."""
        return [
            dict(part.partition("=")[::2] for part in value.split(","))
            for name, value in self.flags
            if name == "mount"
        ]


def instructions(text: str) -> Iterator[Instruction]:
    """All instructions of a Dockerfile; comments and the bodies of here-documents are left out."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, first in lines:
        line = first.strip()
        if not line or line.startswith("#"):
            continue
        while line.endswith("\\"):
            _, more = next(lines, (0, ""))
            more = more.strip()
            line = line[:-1] + ("\\" if more.startswith("#") else f" {more}")
        for delimiter in _HEREDOC.findall(line):
            for _, body in lines:
                if body.strip() == delimiter:
                    break
        name, _, rest = line.partition(" ")
        words = rest.split()
        flags = []
        while words and (flag := _FLAG.fullmatch(words[0])):
            flags.append((flag[1].lower(), flag[2] or ""))
            words.pop(0)
        yield Instruction(number, name.upper(), tuple(flags), tuple(words))


def check(path: Path, bases: Collection[str]) -> None:
    """Refuse a Dockerfile that could download anything, or keep state between builds.

    Args:
        path: the Dockerfile.
        bases: names of the ARGs that the lock fills in with images (`BASE`, `DEVEL`).

    Raises:
        KitError: with file name and line (exit 2).
    """
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(("#", "//")):
            break
        if _DIRECTIVE.match(line):
            raise _refused(path, number, "a parser directive may make the engine download")
    images = {f"${name}" for name in bases} | {f"${{{name}}}" for name in bases}
    stages: set[str] = set()
    for step in instructions(text):
        if step.name == "ARG":
            for word in step.words:
                if word.partition("=")[0] in bases and "=" in word:
                    raise _refused(path, step.line, f"ARG {word}: the lock fills this in")
        elif step.name == "FROM":
            image = step.words[0] if step.words else ""
            if image not in images and image != "scratch" and image.lower() not in stages:
                known = ", ".join(sorted(images)) or "none"
                raise _refused(path, step.line, f"FROM {image}: expected one of {known}")
            if len(step.words) == 3 and step.words[1].upper() == "AS":
                stages.add(step.words[2].lower())
        elif step.name in ("ADD", "ONBUILD"):
            raise _refused(path, step.line, f"{step.name} can download; use COPY and the intent")
        _check_flags(path, step, images, stages)


def _check_flags(path: Path, step: Instruction, images: set[str], stages: set[str]) -> None:
    mounts = step.mounts()
    for mount in mounts:
        if mount.get("type", "bind") not in ("bind", "tmpfs"):
            raise _refused(path, step.line, f"--mount=type={mount['type']}: only bind and tmpfs")
    sources = [value for name, value in step.flags if name == "from"]
    for source in [*sources, *(mount["from"] for mount in mounts if "from" in mount)]:
        if source.lower() not in stages and source not in images and not source.isdecimal():
            raise _refused(path, step.line, f"--from={source}: expected a stage of this file")
    for name, value in step.flags:
        if (name == "network" and value != "none") or name == "security":
            raise _refused(path, step.line, f"--{name}={value}: steps have no network")


def mount_points(text: str) -> frozenset[str]:
    """Where steps mount inputs, as paths without the leading `/`; engines may leave them empty."""
    return frozenset(
        (mount.get("target") or mount.get("dst") or mount.get("destination") or "").strip("/")
        for step in instructions(text)
        for mount in step.mounts()
    ) - {""}


def _refused(path: Path, line: int, why: str) -> KitError:
    return usage_error(f"{path.name}:{line}: {why}")
