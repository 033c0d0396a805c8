"""L5 and L8, the engine files: what they are made of, as far as a file shows it, and their bytes.

A TensorRT plan is never deserialized here: its layers and tactics are out of sight, its header and
its size are not. A rehearsal engine has a header in JSON, and named tensors, or a plan with a list
of its layers and tactics, as TensorRT's inspector told them where it was built.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.artifacts import bounded, plan
from kit.artifacts.plan import REHEARSAL, TENSORRT
from kit.digest import CHUNK
from kit.errors import KitError
from kit.reproduce import layers, request, tensors
from kit.reproduce.ladder import LEVELS, Difference, Measured, Rung
from kit.reproduce.side import digest

if TYPE_CHECKING:
    from kit.artifacts.plan import Backend, PlanHeader
    from kit.reproduce.side import Side
    from kit.reproduce.tensors import Tensor

_FIXED = struct.Struct("<16sII")
_ADDRESSES = re.compile(rb"nvrtc_prog_\d{1,20}_cu_|'\d{8,20}'\.\d")
"""Names of generated kernels: they hold an address of the process that built (TensorRT#3316)."""
_LONGEST = 64
_LENGTHS = {"plan.bytes", "plan.layer_bytes"}
"""Of the header: they follow from what is compared apart."""


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
    """L5: headers, sizes, the tensors or layers of engines, and files that one of them lacks."""
    level = LEVELS[5]
    one, other = first.select("engine"), second.select("engine")
    # What a configuration says is L3's.
    paths = [
        path
        for path in sorted({*one, *other})
        if not path.endswith(".json") or path not in one or path not in other
    ]
    if not paths:
        return Rung(level, "absent", "no engine was built")
    parts = [_part(path, first, second) for path in paths]
    evidence = tuple(line for part in parts for line in part.evidence)
    gaps = tuple(line for part in parts for line in part.gaps)
    differences = tuple(item for part in parts for item in part.differences)
    if any(item.counts for item in differences):
        reason = "the engines are built of other parts"
        return Rung(level, "differs", reason, (*evidence, *gaps), differences)
    if gaps:
        return Rung(level, "unchecked", "; ".join(gaps), evidence, differences)
    return Rung(level, "passed", "the engines are built alike", evidence, differences)


def same_bytes(first: Side, second: Side, *, is_promised: bool) -> Rung:
    """L8: every file of the engine, byte by byte.

    Another one is a failure only where it `is_promised`; of a configuration, what varies by itself
    is told and does not count.
    """
    level = LEVELS[8]
    paths = sorted({*first.select("engine"), *second.select("engine")})
    if not paths:
        return Rung(level, "absent", "no engine was built")
    differences, gaps = _unlike(first, second, paths)
    evidence = (f"{len(paths) - len(differences) - len(gaps)} of {len(paths)} files are equal",)
    if any(item.counts for item in differences):
        told = (*evidence, *gaps)
        if is_promised:
            return Rung(level, "failed", "engine files differ", told, tuple(differences))
        reason = "engine files differ, as two builds of TensorRT may, or on another platform"
        return Rung(level, "differs", reason, told, tuple(differences))
    if gaps:
        return Rung(level, "unchecked", "; ".join(gaps), evidence, tuple(differences))
    but = ", ".join(item.what for item in differences)
    reason = "every engine file is bit-identical"
    reason += f", but for what varies by itself in {but}" if but else ""
    return Rung(level, "passed", reason, evidence, tuple(differences))


def _unlike(first: Side, second: Side, paths: list[str]) -> tuple[list[Difference], list[str]]:
    """Files of other bytes, and configurations of which nobody can say whether that counts."""
    one, other = first.select("engine"), second.select("engine")
    differences: list[Difference] = []
    gaps: list[str] = []
    for path in paths:
        recorded, found = digest(one.get(path)), digest(other.get(path))
        if recorded == found:
            continue
        is_here = path in first.whole and path in second.whole
        if path.endswith(".json") and recorded and found and not is_here:
            gaps.append(f"{path} has another digest, and what differs is not here to be looked at")
        else:
            note, counts = _otherwise(path, first, second) if is_here else ("", True)
            differences.append(Difference(path, recorded, found, note, counts))
    return differences, gaps


def _otherwise(path: str, first: Side, second: Side) -> tuple[str, bool]:
    """How a file differs, in words, and whether that counts."""
    one, other = first.whole[path], second.whole[path]
    if path.endswith(".json"):
        inside = list(request.documents(path, one, other))
        if inside and not any(item.counts for item in inside):
            keys = ", ".join(item.what.partition(": ")[2] for item in inside)
            return f"varies by itself: {keys}", False
    return str(bytes_of(one, other)) + _tensor_in(one, other), True


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


def _part(path: str, first: Side, second: Side) -> Measured:
    """What is found of one file; what cannot be read is a gap."""
    one, other = first.select("engine").get(path), second.select("engine").get(path)
    if one is None or other is None:
        return Measured((), (), (Difference(path, digest(one), digest(other)),))
    if one.sha256 == other.sha256:
        return Measured((f"{path}: the same bytes",), (), ())
    if path not in first.whole or path not in second.whole:
        return _gap(path, "is not here to be looked into")
    here, there = first.whole[path], second.whole[path]
    try:
        if path.endswith(".engine"):
            return _engines(path, here, there)
        if path.endswith(".safetensors"):
            return _tensors(path, here, there)
    except KitError as error:
        return _gap(path, str(error))
    return _gap(path, "another file, of a kind that the kit does not look into")


def _gap(path: str, why: str) -> Measured:
    return Measured((), (f"{path}: {why}",), ())


def _tensors(path: str, first: Path, second: Path) -> Measured:
    """Weights beside an engine, such as those that it is told to manage apart."""
    one, other = tensors.of_safetensors(first), tensors.of_safetensors(second)
    if found := tuple(tensors.compare(path, one, other)):
        return Measured((), (), found)
    return Measured((f"{path}: the same {len(one)} tensors",), (), ())


def _engines(path: str, first: Path, second: Path) -> Measured:
    one, other = plan.look(first), plan.look(second)
    if one.backend is None and other.backend is None:
        return _gap(path, f"no engine that the kit knows ({other.problem}), and its bytes differ")
    differences = [
        Difference(f"{path}: {what}", left, right)
        for what, left, right in (
            ("made by", one.backend, other.backend),
            ("TensorRT", one.tensorrt, other.tensorrt),
            ("problem", one.problem, other.problem),
        )
        if left != right
    ]
    is_whole = one.problem is None and other.problem is None
    if one.backend == REHEARSAL == other.backend and is_whole:
        return _rehearsals(path, one, other)
    if one.size != other.size:
        differences.append(Difference(f"{path}: size", f"{one.size} bytes", f"{other.size} bytes"))
    if differences:
        return Measured((), (), tuple(differences))
    if not is_whole:
        return _gap(path, f"{other.problem}, in both")
    return _gap(path, "header and size are equal, layers and tactics are not told")


def _rehearsals(path: str, one: PlanHeader, other: PlanHeader) -> Measured:
    """Two whole engines of the rehearsal: headers, then layers or tensors."""
    first, second = Path(one.path), Path(other.path)
    header, again = _header(first), _header(second)
    headers = tuple(
        Difference(f"{path}: header {key}", header.get(key), again.get(key))
        for key in sorted({*header, *again} - _LENGTHS)
        if header.get(key) != again.get(key)
    )
    if one.builder != other.builder:
        return Measured((), (), headers)
    if one.builder == TENSORRT:
        found = _layers(path, one, other)
    else:
        found = _weights_by_name(path, first, second)
    evidence = () if headers else found.evidence
    return Measured(evidence, found.gaps, (*headers, *found.differences))


def _layers(path: str, one: PlanHeader, other: PlanHeader) -> Measured:
    """The layers of two plans; that nobody tells of them is a gap."""
    found = []
    for head in (one, other):
        assert head.rehearsal is not None
        assert head.rehearsal.plan is not None
        try:
            found.append(layers.read(Path(head.path), head.rehearsal.plan))
        except KitError as error:
            return _gap(path, str(error))
    if differences := tuple(layers.compare(path, *found)):
        return Measured((), (), differences)
    if not all(map(layers.have_tactics, found)):
        return _gap(path, "the same header, layers by the same names, tactics are not told")
    return Measured((f"{path}: the same header, the same layers with the same tactics",), (), ())


def _weights_by_name(path: str, first: Path, second: Path) -> Measured:
    """The tensors of two engines by name, type and shape; their numbers are L8's."""
    one, other = (
        {name: tensor.shown for name, tensor in _weights(file).items()} for file in (first, second)
    )
    differences = tuple(
        Difference(f"{path}: {name}", one.get(name), other.get(name))
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    )
    evidence = f"{path}: the same header, the same tensors by name and shape"
    return Measured(() if differences else (evidence,), (), differences)


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
