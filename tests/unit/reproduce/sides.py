"""Runs that were never made: a manifest with files of a test's own, on a platform that is known."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from kit.digest import Digest
from kit.manifests import record
from kit.reproduce import inputs
from kit.reproduce.compare import compare
from kit.reproduce.side import Side, of_run
from tests.unit.manifests.test_record import small

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kit.reproduce.ladder import Ladder

SITE = inputs.Site(None, (), ())
CONFIG = b'{"version": "0.16.0", "pretrained_config": {"dtype": "float16"}}'


def side(folder: Path, files: Mapping[str, bytes], **changes: Any) -> Side:
    """A run that wrote `files`; the folder above each is its role."""
    document = small()
    document["host"] |= {"cpu": "EPYC"}
    document["commands"] = []
    document["artifacts"] = []
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        row = {"path": path, "size": len(content), "role": path.partition("/")[0]}
        document["artifacts"].append({**row, "sha256": Digest.of_bytes(content).hex})
    return of_run(record.parse({**document, **changes}, "x"), folder)


def without(run: Side, path: str) -> Side:
    """The same run where a file of it is not here."""
    (next(iter(run.whole.values())).parents[1] / path).unlink()
    whole = {name: file for name, file in run.whole.items() if name != path}
    return Side(run.manifest, whole, run.altered, (*run.missing, path))


def ladder(first: Side, second: Side) -> Ladder:
    return compare(first, second, SITE)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def safetensors(header: Mapping[str, tuple[str, list[int], list[int]]], payload: bytes) -> bytes:
    """Name → type, shape, places; then the payload."""
    keys = ("dtype", "shape", "data_offsets")
    rows = {name: dict(zip(keys, entry, strict=True)) for name, entry in header.items()}
    text = json.dumps(rows).encode()
    return len(text).to_bytes(8, "little") + text + payload
