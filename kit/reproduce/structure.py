"""L5 and L8, the engine files: what they are made of, as far as a file shows it, and their bytes.

A TensorRT plan is never deserialized here: its layers and tactics are out of sight, its header and
its size are not. A rehearsal engine has a header in JSON, and named tensors, or a plan with a list
of its layers and tactics, as TensorRT's inspector told them where it was built.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.artifacts import bounded, plan
from kit.artifacts.plan import REHEARSAL, TENSORRT
from kit.digest import CHUNK
from kit.errors import KitError, content_error
from kit.reproduce import request, tensors
from kit.reproduce.ladder import LEVELS, Difference, Rung
from kit.reproduce.side import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kit.artifacts.plan import Backend, PlanHeader
    from kit.reproduce.side import Side
    from kit.reproduce.tensors import Tensor

_FIXED = struct.Struct("<16sII")
_ADDRESSES = re.compile(rb"nvrtc_prog_\d{1,20}_cu_|'\d{8,20}'\.\d")
"""Names of generated kernels: they hold an address of the process that built (TensorRT#3316)."""
_LONGEST = 64
_LENGTHS = {"plan.bytes", "plan.layer_bytes"}
"""Of the header: they follow from what is compared apart."""
_MOST_LAYERS, _LONGEST_TEXT = 20, 300
"""Layers that are told one by one, and characters of what is told of each."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """How two files differ.

    Attributes:
        sizes: of both.
        count: bytes that are others, as far as both go.
        first: where the first of them is, and both of its values.
        only_addresses: whether all lie in names that hold addresses.
    """

    sizes: tuple[int, int]
    count: int
    first: tuple[int, int, int] | None
    only_addresses: bool

    def __str__(self) -> str:
        if self.first is None:
            return f"{self.sizes[0]} → {self.sizes[1]} bytes, one is the beginning of the other"
        at, one, other = self.first
        text = f"{self.count} bytes differ, the first at byte {at}: {one:02x} → {other:02x}"
        if self.sizes[0] != self.sizes[1]:
            text += f"; {self.sizes[0]} → {self.sizes[1]} bytes long"
        if self.only_addresses:
            text += "; all in names of generated kernels, which hold addresses of the builder"
        return text


def backend(side: Side) -> Backend | None:
    """What chose the engine's kernels; None where no file of it is here."""
    for path in _ranks(side):
        if path in side.whole and (found := plan.look(side.whole[path]).builder) is not None:
            return found
    return None


def structure(first: Side, second: Side) -> Rung:
    """L5: headers, sizes, and the tensors or layers of rehearsal engines."""
    level = LEVELS[5]
    one, other = first.select("engine"), second.select("engine")
    both = [path for path in _ranks(first) if path in other]
    if not both:
        return Rung(level, "absent", "no engine file that both have")
    evidence: list[str] = []
    differences: list[Difference] = []
    gaps: list[str] = []
    for path in both:
        if one[path].sha256 == other[path].sha256:
            evidence.append(f"{path}: the same bytes")
        elif path not in first.whole or path not in second.whole:
            gaps.append(f"{path} is not here to be looked into")
        else:
            found = list(_inside(path, first.whole[path], second.whole[path]))
            differences += found
            head = plan.look(second.whole[path])
            if not found and head.backend == TENSORRT:
                gaps.append(f"{path}: header and size are equal, layers and tactics are not told")
            elif not found and head.builder == TENSORRT:
                evidence.append(f"{path}: the same header, the same layers with the same tactics")
            elif not found:
                evidence.append(f"{path}: the same header, the same tensors by name and shape")
    if differences:
        reason = "the engines are built of other parts"
        return Rung(level, "differs", reason, tuple(evidence), tuple(differences))
    if gaps:
        return Rung(level, "unchecked", "; ".join(gaps), tuple(evidence))
    return Rung(level, "passed", "the engines are built alike", tuple(evidence))


def same_bytes(first: Side, second: Side, *, is_promised: bool) -> Rung:
    """L8: every engine file, byte by byte; another one is a failure only where it `is_promised`."""
    level = LEVELS[8]
    one, other = first.select("engine"), second.select("engine")
    paths = sorted({*_ranks(first), *_ranks(second)})
    if not paths:
        return Rung(level, "absent", "no engine was built")
    differences = []
    for path in paths:
        recorded, found = one.get(path), other.get(path)
        if recorded is None or found is None or recorded.sha256 != found.sha256:
            note = ""
            if path in first.whole and path in second.whole:
                note = str(bytes_of(first.whole[path], second.whole[path]))
                note += _tensor_in(first.whole[path], second.whole[path])
            differences.append(
                Difference(
                    path,
                    digest(recorded),
                    digest(found),
                    note,
                )
            )
    evidence = (f"{len(paths) - len(differences)} of {len(paths)} engine files are equal",)
    if not differences:
        return Rung(level, "passed", "every engine file is bit-identical", evidence)
    if is_promised:
        return Rung(level, "failed", "engine files differ", evidence, tuple(differences))
    reason = "engine files differ, as two builds of TensorRT or on two platforms may"
    return Rung(level, "differs", reason, evidence, tuple(differences))


def bytes_of(first: Path, second: Path) -> Bytes:
    """Compare two files in flat memory."""
    sizes = (first.stat().st_size, second.stat().st_size)
    count, at = 0, 0
    found: tuple[int, int, int] | None = None
    only_addresses = sizes[0] == sizes[1]
    before = (b"", b"")
    with first.open("rb") as left, second.open("rb") as right:
        while (one := left.read(CHUNK)) and (other := right.read(CHUNK)):
            length = min(len(one), len(other))
            if one != other:
                mixed = _mixed(one[:length], other[:length])
                count += length - mixed.count(0)
                if found is None and (place := length - len(mixed.lstrip(b"\0"))) < length:
                    found = (at + place, one[place], other[place])
            is_last = at + length >= min(sizes)
            if only_addresses:
                pair = (before[0] + one, before[1] + other)
                start = _LONGEST if before[0] else 0
                only_addresses = _masked(pair[0], start, is_last=is_last) == _masked(
                    pair[1], start, is_last=is_last
                )
                before = (pair[0][-2 * _LONGEST :], pair[1][-2 * _LONGEST :])
            at += length
    return Bytes(sizes, count, found, only_addresses and found is not None)


def _mixed(one: bytes, other: bytes) -> bytes:
    """Zero wherever both have the same byte."""
    number = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return number.to_bytes(len(one), "big")


def _masked(content: bytes, start: int, *, is_last: bool) -> bytes:
    """Without addresses, and without the edges that a neighbour looks at."""
    end = len(content) if is_last else len(content) - _LONGEST
    return _ADDRESSES.sub(lambda match: bytes(len(match[0])), content)[start:end]


def _inside(path: str, first: Path, second: Path) -> Iterator[Difference]:
    one, other = plan.look(first), plan.look(second)
    for what, left, right in (
        ("made by", one.backend, other.backend),
        ("TensorRT", one.tensorrt, other.tensorrt),
        ("problem", one.problem, other.problem),
    ):
        if left != right:
            yield Difference(f"{path}: {what}", left, right)
    if one.backend == REHEARSAL == other.backend and not (one.problem or other.problem):
        header, again = _header(first), _header(second)
        for key in sorted({*header, *again} - _LENGTHS):
            if header.get(key) != again.get(key):
                yield Difference(f"{path}: header {key}", header.get(key), again.get(key))
        if one.builder == TENSORRT == other.builder:
            yield from _other_layers(path, _layers(first, one), _layers(second, other))
            return
        if one.builder != other.builder:
            return
        inner, others = _weights(first), _weights(second)
        for name in sorted({*inner, *others}):
            left, right = (
                table[name].shown if name in table else None for table in (inner, others)
            )
            if left != right:
                yield Difference(f"{path}: {name}", left, right)
    elif one.size != other.size:
        yield Difference(f"{path}: size", f"{one.size} bytes", f"{other.size} bytes")


def _header(path: Path) -> dict[str, str]:
    """The header of a rehearsal engine, flat."""
    with bounded.opened(path) as stream:
        _, _, length = _FIXED.unpack(stream.read(_FIXED.size))
        return request.flat(bounded.loads(stream.read(length), str(path)))


def _weights(path: Path) -> dict[str, Tensor]:
    """The weights of a rehearsal engine that holds some."""
    with bounded.opened(path) as stream:
        _, _, length = _FIXED.unpack(stream.read(_FIXED.size))
        return tensors.of_stream(stream, path, _FIXED.size + length)


def _layers(path: Path, head: PlanHeader) -> list[Any]:
    """What TensorRT's inspector said of each layer of a rehearsal engine's plan."""
    assert head.rehearsal is not None
    assert head.rehearsal.plan is not None
    start, size = head.rehearsal.plan.layers
    if size > bounded.DOCUMENT_LIMIT:
        raise content_error(f"{path}: {size} bytes of layers: more than anybody reads")
    with bounded.opened(path) as stream:
        stream.seek(start)
        found = bounded.loads(stream.read(size), f"{path}: layers").get("layers")
    return found if isinstance(found, list) else []


def _other_layers(path: str, first: list[Any], second: list[Any]) -> Iterator[Difference]:
    """Layers that are not the same, in their order; of many the first, and how many there are."""
    if len(first) != len(second):
        yield Difference(f"{path}: layers", str(len(first)), str(len(second)))
    told = 0
    for number, pair in enumerate(zip(first, second, strict=False), 1):
        if pair[0] == pair[1]:
            continue
        told += 1
        if told <= _MOST_LAYERS:
            one, other = map(_flat_layer, pair)
            changed = [key for key in {**one, **other} if one.get(key) != other.get(key)]
            left, right = (_shown(layer, changed) for layer in (one, other))
            name = one.get("Name", "")
            yield Difference(f"{path}: layer {number} {name}"[:_LONGEST_TEXT], left, right)
    if told > _MOST_LAYERS:
        yield Difference(f"{path}: layers that differ", None, f"{told} of {len(first)}")


def _flat_layer(layer: Any) -> dict[str, str]:
    """What is said of a layer: a text where the builder was told to keep names alone."""
    return request.flat(layer if isinstance(layer, dict) else {"Name": layer})


def _shown(layer: Mapping[str, str], keys: list[str]) -> str:
    text = "; ".join(f"{key} {layer.get(key, 'absent')}" for key in keys)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _tensor_in(first: Path, second: Path) -> str:
    """Which weights of a rehearsal engine differ, in words; nothing of another one."""
    try:
        if {plan.look(first).builder, plan.look(second).builder} != {REHEARSAL}:
            return ""
        found = list(tensors.compare("weights", _weights(first), _weights(second)))
    except (KitError, struct.error):
        return ""
    names = [f"{item.what.partition(': ')[2]} ({item.note})" for item in found[:3]]
    return f"; in {', '.join(names)}" if names else ""


def _ranks(side: Side) -> list[str]:
    return [path for path in side.select("engine") if path.endswith(".engine")]
