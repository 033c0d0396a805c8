"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BackendError

if TYPE_CHECKING:
    from .tensors import Array


def write_bytes(path: Path, data: bytes) -> None:
    """Write through a temporary file in the same folder, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: dict[str, Any], *, indent: int, sort_keys: bool = False) -> None:
    """JSON in the release's indentation, atomically."""
    write_text(path, json.dumps(value, indent=indent, sort_keys=sort_keys))


def write_npy(path: Path, array: Array) -> None:
    """A NumPy file, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; BackendError when it is missing or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BackendError(f"{path}: no such file") from None
    except ValueError as error:
        raise BackendError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BackendError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
