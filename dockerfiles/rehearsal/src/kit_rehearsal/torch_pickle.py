"""PyTorch's files of tensors, read without PyTorch and without running what is in them.

A file is a zip archive: `<name>/data.pkl` is a pickle of dictionaries in which tensors refer to the
storages `<name>/data/<key>`. A pickle can name any function to be called; here only those that make
tensors and ordered dictionaries are known, and any other is refused by its name.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import struct
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .errors import BackendError
from .tensors import Array, decode

if TYPE_CHECKING:
    from collections.abc import Callable

_FLOATS = {
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
}
_PICKLE_LIMIT = 64 << 20
# What zipfile and pickle raise when bytes are wrong.
_DAMAGED = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, struct.error),
    *(pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError),
    *(OverflowError, MemoryError),
)


@dataclass(frozen=True)
class _StorageType:
    name: str


@dataclass(frozen=True)
class _Storage:
    """A storage that is not read yet: its type, its key, how many values it has."""

    kind: str
    key: str
    count: int


def load(file: IO[bytes], source: str) -> dict[str, Any]:
    """What the file holds, tensors as float32 arrays; `source` names it in errors.

    Raises:
        BackendError: it is another kind of file, or names anything but tensors.
    """
    try:
        if not zipfile.is_zipfile(file):
            raise BackendError(
                f"{source}: not a file of PyTorch 1.6 or later, whose files are zip archives"
            )
        with zipfile.ZipFile(file) as archive:
            return _Reader(archive, source).load()
    except _DAMAGED as error:
        raise BackendError(f"{source}: damaged: {error}") from error


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, source: str) -> None:
        self._archive = archive
        self._source = source
        self._members = {entry.filename: entry for entry in archive.infolist()}
        found = [name for name in self._members if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise BackendError(f"{source}: expected one data.pkl, found {found}")
        self._root = found[0].removesuffix("data.pkl")

    def load(self) -> dict[str, Any]:
        byteorder = f"{self._root}byteorder"
        if byteorder in self._members and self._read(byteorder, 16) != b"little":
            raise BackendError(f"{self._source}: its bytes are not in little-endian order")
        pickled = io.BytesIO(self._read(f"{self._root}data.pkl", _PICKLE_LIMIT))
        loaded = _Unpickler(pickled, self._tensor, self._source).load()
        if not isinstance(loaded, dict):
            raise BackendError(
                f"{self._source}: expected a dictionary, found {type(loaded).__name__}"
            )
        return loaded

    def _read(self, name: str, limit: int) -> bytes:
        if name not in self._members:
            raise BackendError(f"{self._source}: no {name} in it")
        entry = self._members[name]
        if entry.file_size > limit or entry.compress_type != zipfile.ZIP_STORED:
            raise BackendError(
                f"{self._source}: {name}: expected at most {limit} bytes that are not compressed"
            )
        return self._archive.read(entry)

    def _tensor(
        self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> Array:
        if storage.kind not in _FLOATS:
            raise BackendError(
                f"{self._source}: a tensor in {storage.kind}: expected {', '.join(_FLOATS)}"
            )
        dtype, width = _FLOATS[storage.kind]
        data = self._read(f"{self._root}data/{storage.key}", storage.count * width)
        flat = decode(data, dtype, (storage.count,))
        numbers = (offset, *size, *stride)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride))
        # No more values than are stored: one value repeated could ask for any amount of memory.
        fits = math.prod(size) <= storage.count and (0 in size or last < storage.count)
        if min(numbers) < 0 or not fits:
            raise BackendError(
                f"{self._source}: a tensor {list(size)} does not lie in its storage {storage.key}"
            )
        view = np.lib.stride_tricks.as_strided(
            flat[offset:], size, [step * flat.itemsize for step in stride]
        )
        return np.array(view)


class _Unpickler(pickle.Unpickler):
    """Knows how tensors are made, and nothing else."""

    def __init__(
        self,
        file: IO[bytes],
        tensor: Callable[[_Storage, int, tuple[int, ...], tuple[int, ...]], Array],
        source: str,
    ) -> None:
        super().__init__(file)
        self._tensor = tensor
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return _StorageType(name)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuilt
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _same
        raise BackendError(
            f"{self._source}: refused: its pickle asks for {module}.{name}, which is no tensor"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        word, kind, key, _, count = pid
        if word != "storage" or not isinstance(kind, _StorageType):
            raise BackendError(f"{self._source}: refused: a reference to {word!r}")
        return _Storage(kind.name, str(key), int(count))

    def _rebuilt(
        self,
        storage: _Storage,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        *_: object,
    ) -> Array:
        return self._tensor(storage, offset, size, stride)


def _same(tensor: Array, *_: object) -> Array:
    return tensor
