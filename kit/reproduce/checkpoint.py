"""L2, the converted model: every tensor of every rank, and what the configuration says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kit.artifacts import bounded
from kit.artifacts import tensors as artifact_tensors
from kit.errors import KitError
from kit.reproduce import request, tensors
from kit.reproduce.ladder import LEVELS, Difference, Rung
from kit.reproduce.side import digest
from kit.reproduce.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kit.reproduce.side import Side

LEVEL = LEVELS[2]
_FT = re.compile(r"(?:.*/)?[^/]+\.bin")
_SECTION = re.compile(
    r"^\s*(?:weight_data_type|storage_dtype|storage_type)\s*=\s*(\w+)", re.MULTILINE
)
_FT_TYPES = {"float32": "F32", "fp32": "F32", "float16": "F16", "fp16": "F16", "bfloat16": "BF16"}


def compare(first: Side, second: Side) -> Rung:
    """Hold two checkpoints against each other."""
    one, other = first.select("checkpoint"), second.select("checkpoint")
    if not one and not other:
        return Rung(LEVEL, "absent", "the engine is built without a checkpoint in between")
    equal = [path for path in one if path in other and one[path].sha256 == other[path].sha256]
    differences: list[Difference] = []
    is_quantized = _is_quantized(second)
    for path in sorted({*one, *other} - set(equal)):
        differences += _file(first, second, path, is_quantized=is_quantized)
    total = len({*one, *other})
    evidence = (f"{len(equal)} of {total} files have the same digest", *_counted(second, equal))
    if any(item.counts for item in differences):
        return Rung(LEVEL, "failed", "the checkpoint is another one", evidence, tuple(differences))
    reason = f"all tensors of {total} files are equal"
    if any(item.note.endswith(tensors.WITHIN) for item in differences):
        reason = "all tensors are equal but scales, which are within their tolerance"
    elif differences:
        reason += ", what else differs does not count"
    return Rung(LEVEL, "passed", reason, evidence, tuple(differences))


def _counted(side: Side, paths: Iterable[str]) -> Iterator[str]:
    """How many tensors each of these files holds."""
    for path in paths:
        if path.endswith(".safetensors") and path in side.whole:
            found = artifact_tensors.look(side.whole[path])
            if found.problem is None:
                yield f"{path}: {found.tensors} tensors, each the same"


def _file(first: Side, second: Side, path: str, *, is_quantized: bool) -> Iterator[Difference]:
    one, other = first.select("checkpoint").get(path), second.select("checkpoint").get(path)
    recorded, found = digest(one), digest(other)
    if one is None or other is None:
        yield Difference(path, recorded, found)
        return
    here, there = first.whole.get(path), second.whole.get(path)
    if here is None or there is None:
        yield Difference(path, recorded, found, "one of them is not here to be looked into")
        return
    try:
        if path.endswith(".safetensors"):
            left, right = tensors.of_safetensors(here), tensors.of_safetensors(there)
        elif path.endswith("config.json"):
            yield from request.documents(path, here, there)
            return
        elif _FT.fullmatch(path):
            dtype = _ft_type(second)
            left = {"": Tensor(here, dtype, (one.size,), 0, one.size)}
            right = {"": Tensor(there, dtype, (other.size,), 0, other.size)}
        else:
            yield Difference(path, recorded, found)
            return
        inside = list(tensors.compare(path, left, right, is_quantized=is_quantized))
    except KitError as error:
        yield Difference(path, recorded, found, str(error))
        return
    yield from inside
    if not inside:
        yield Difference(
            path, recorded, found, "the file differs, every tensor in it is equal", counts=False
        )


def _is_quantized(side: Side) -> bool:
    for path, file in side.whole.items():
        if path.startswith("checkpoint/") and path.endswith("config.json"):
            try:
                content: Any = bounded.json_object(file)
            except KitError:
                continue
            if bounded.text(content, "quantization", "quant_algo"):
                return True
    return any("scal" in path for path in side.select("checkpoint"))


def _ft_type(side: Side) -> str:
    """The type of an old checkpoint's numbers; quantized parts of it are compared as bytes."""
    for path, file in side.whole.items():
        if path.startswith("checkpoint/") and path.endswith("config.ini"):
            match = _SECTION.search(bounded.content(file).decode("utf-8", "replace"))
            if match:
                return _FT_TYPES.get(match[1].lower(), "bytes")
    return "bytes"
