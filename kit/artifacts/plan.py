"""Engine files by their first bytes: TensorRT plans and rehearsal engines, never deserialized.

A plan begins with `ftrt`, then a serialization version that is 0, and has TensorRT's version in
bytes 24 to 27 (`printPlanVersion` in samples/common/sampleEngines.cpp of NVIDIA/TensorRT). Nothing
else in it is documented, so a plan that is cut after its header cannot be told from a whole one.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

from kit.artifacts import bounded, pointer, tensors
from kit.errors import KitError
from kit.observation import Observation

if TYPE_CHECKING:
    from pathlib import Path

Backend = Literal["rehearsal", "TensorRT"]

REHEARSAL: Backend = "rehearsal"
TENSORRT: Backend = "TensorRT"
PLAN_MAGIC = b"ftrt"
REHEARSAL_MAGIC = b"KIT-REHEARSAL\0\0\0"
_PLAN_HEADER = 28
_REHEARSAL_FIXED = struct.Struct("<16sII")
_REHEARSAL_FORMATS = (1, 2)  # which differ only in what the header says of the model
_HEAD = pointer.LARGEST
_HEADER_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the header of a rehearsal engine says; None for what it leaves out."""

    release: str | None
    rank: int | None
    world_size: int | None
    dtype: str | None


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """The head of an engine file.

    Attributes:
        path: where it lies.
        size: bytes of the whole file.
        backend: by the magic; None for neither of the two.
        tensorrt: `a.b.c.d` of a plan.
        rehearsal: the header of a rehearsal engine.
        problem: why this cannot be a whole engine; None if nothing speaks against it.
    """

    path: str
    size: int
    backend: Backend | None = None
    tensorrt: str | None = None
    rehearsal: Rehearsal | None = None
    problem: str | None = None

    @property
    def observations(self) -> tuple[Observation, ...]:
        """TensorRT's version of a plan, the release of a rehearsal engine."""
        if self.backend == TENSORRT:
            return (Observation("tensorrt", self.tensorrt, self.path, "header"),)
        if self.rehearsal is not None:
            release = self.rehearsal.release
            version = f"{release}+{REHEARSAL}" if release else None
            return (Observation("tensorrt_llm", version, self.path, "header"),)
        return ()


def look(path: Path) -> PlanHeader:
    """Read the head of an engine file; what is wrong with it is its `problem`.

    Raises:
        KitError: there is no such file (exit 2), or it is none but a folder or a pipe (exit 4).
    """
    with bounded.opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(_HEAD)
        if head.startswith(REHEARSAL_MAGIC):
            return _rehearsal(str(path), size, stream)
    if head.startswith(PLAN_MAGIC):
        return _plan(str(path), size, head)
    return PlanHeader(str(path), size, problem=_otherwise(head, size))


def _plan(path: str, size: int, head: bytes) -> PlanHeader:
    version, problem = None, None
    if size < _PLAN_HEADER:
        problem = f"truncated: {size} bytes, the header alone has {_PLAN_HEADER}"
    elif head[4:8] != bytes(4):
        outer = int.from_bytes(head[4:8], "little")
        problem = f"plan of serialization version {outer}: only 0 is known"
    elif head[24] == 0:
        problem = "damaged header: it names no TensorRT version"
    else:
        version = ".".join(map(str, head[24:_PLAN_HEADER]))
    return PlanHeader(path, size, TENSORRT, tensorrt=version, problem=problem)


def _rehearsal(path: str, size: int, stream: BinaryIO) -> PlanHeader:
    """Magic, format 1 or 2, length of a JSON header, the header, then weights as safetensors."""
    stream.seek(0)
    fixed = stream.read(_REHEARSAL_FIXED.size)
    if len(fixed) < _REHEARSAL_FIXED.size:
        problem = f"truncated: {size} bytes, a rehearsal engine begins with {_REHEARSAL_FIXED.size}"
        return PlanHeader(path, size, REHEARSAL, problem=problem)
    _, form, length = _REHEARSAL_FIXED.unpack(fixed)
    start = _REHEARSAL_FIXED.size + length
    if form not in _REHEARSAL_FORMATS:
        problem = f"rehearsal engine of format {form}, not 1 or 2"
        return PlanHeader(path, size, REHEARSAL, problem=problem)
    if start > size or length > _HEADER_LIMIT:
        problem = f"truncated: the file ends at {size}, its header at {start}"
        return PlanHeader(path, size, REHEARSAL, problem=problem)
    said = None
    try:
        header = bounded.loads(stream.read(length), "header")
        said = Rehearsal(
            release=bounded.text(header, "release"),
            rank=bounded.count(header, "rank"),
            world_size=bounded.count(header, "world_size"),
            dtype=bounded.text(header, "dtype"),
        )
        tensors.read(stream, start, size)
    except KitError as error:
        return PlanHeader(path, size, REHEARSAL, rehearsal=said, problem=f"damaged: {error}")
    return PlanHeader(path, size, REHEARSAL, rehearsal=said)


_KNOWN = (
    (b"\x1f\x8b", "gzip data: an archive that was not unpacked"),
    (b"PK\x03\x04", "a zip archive: a PyTorch file or a package, not a plan"),
    (b"\x28\xb5\x2f\xfd", "zstd data: an archive that was not unpacked"),
    (b"BZh", "bzip2 data: an archive that was not unpacked"),
    (b"\xfd7zXZ\0", "xz data: an archive that was not unpacked"),
    (b"\x7fELF", "a program or library"),
    (b"\x80\x02", "a Python pickle"),
)


def _otherwise(head: bytes, size: int) -> str:
    """Say what a file is that has neither magic."""
    if not head:
        return "empty file"
    if size < len(PLAN_MAGIC) or REHEARSAL_MAGIC.startswith(head):
        return f"truncated: {size} bytes are too few for an engine"
    if (found := pointer.of(head)) is not None:
        return str(found)
    if not head.strip(b"\0"):
        return "zeros: space that was reserved and never written"
    for magic, name in _KNOWN:
        if head.startswith(magic):
            return name
    start = head.lstrip()[:15].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page: the answer of a server instead of the file"
    if head[4:5] == b"{" and int.from_bytes(head[:4], "little") < _HEADER_LIMIT:
        return "metadata in JSON before the plan, as Ultralytics writes it: not for TensorRT-LLM"
    if head[:1] in b"{[":
        return "JSON text"
    return f"neither a TensorRT plan nor a rehearsal engine: it begins with {head[:4].hex()}"
