"""Engine files by their first bytes: TensorRT plans and rehearsal engines, never deserialized.

A plan begins with `ftrt`, then a serialization version that is 0, and has TensorRT's version in
bytes 24 to 27 (`printPlanVersion` in samples/common/sampleEngines.cpp of NVIDIA/TensorRT). Nothing
else in it is documented, so a plan that is cut after its header cannot be told from a whole one.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from kit.artifacts import bounded, pointer, tensors
from kit.errors import KitError, content_error
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
_WEIGHTS, _PLAN = (1, 2), 3
"""Formats of rehearsal engines: 1 and 2 differ in what the header says of the model."""
_HEAD = pointer.LARGEST
_HEADER_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Built:
    """What a rehearsal engine says of the TensorRT plan in it.

    Attributes:
        tensorrt: `a.b.c.d`, by the plan's own header.
        compute_capability: of the GPU that it was built on.
        optimization_level: of the builder.
        layers: where its list of layers lies, in JSON: first byte and bytes.
    """

    tensorrt: str | None
    compute_capability: str | None
    optimization_level: int | None
    layers: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the header of a rehearsal engine says; None for what it leaves out.

    `plan` is None where the engine holds weights, to be computed with in NumPy.
    """

    release: str | None
    rank: int | None
    world_size: int | None
    dtype: str | None
    plan: Built | None = None


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
    def builder(self) -> Backend | None:
        """What chose the kernels: TensorRT also where a plan stands in a rehearsal engine."""
        has_plan = self.rehearsal is not None and self.rehearsal.plan is not None
        return TENSORRT if has_plan else self.backend

    @property
    def observations(self) -> tuple[Observation, ...]:
        """TensorRT's version of a plan, a rehearsal engine's release and the TensorRT in it."""
        if self.backend == TENSORRT:
            return (Observation("tensorrt", self.tensorrt, self.path, "header"),)
        if self.rehearsal is not None:
            release = self.rehearsal.release
            version = f"{release}+{REHEARSAL}" if release else None
            own = Observation("tensorrt_llm", version, self.path, "header")
            if (built := self.rehearsal.plan) is None:
                return (own,)
            return own, Observation("tensorrt", built.tensorrt, self.path, "header")
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
    """Magic, format, length of a JSON header, the header, then weights as safetensors or a plan."""
    stream.seek(0)
    fixed = stream.read(_REHEARSAL_FIXED.size)
    if len(fixed) < _REHEARSAL_FIXED.size:
        problem = f"truncated: {size} bytes, a rehearsal engine begins with {_REHEARSAL_FIXED.size}"
        return PlanHeader(path, size, REHEARSAL, problem=problem)
    _, form, length = _REHEARSAL_FIXED.unpack(fixed)
    start = _REHEARSAL_FIXED.size + length
    if form not in {*_WEIGHTS, _PLAN}:
        problem = f"rehearsal engine of format {form}, not 1, 2 or 3"
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
        if form == _PLAN:
            said = replace(said, plan=_built(header, stream, start, size))
        else:
            tensors.read(stream, start, size)
    except KitError as error:
        return PlanHeader(path, size, REHEARSAL, rehearsal=said, problem=f"damaged: {error}")
    return PlanHeader(path, size, REHEARSAL, rehearsal=said)


def _built(header: dict[str, Any], stream: BinaryIO, start: int, size: int) -> Built:
    """The plan of an engine of format 3: the list of its layers, then the plan, to the end."""
    told = bounded.mapping(header, "plan")
    layers, length = bounded.count(told, "layer_bytes"), bounded.count(told, "bytes")
    if layers is None or length is None or start + layers + length != size:
        raise content_error(f"truncated: {size} bytes, {layers} of layers and {length} of a plan")
    stream.seek(start + layers)
    inner = _plan("plan", length, stream.read(_PLAN_HEADER))
    if inner.problem is not None:
        raise content_error(inner.problem)
    return Built(
        inner.tensorrt,
        bounded.text(told, "compute_capability"),
        bounded.count(told, "optimization_level"),
        (start, layers),
    )


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
