"""Memory of a GPU and a stream, through the CUDA runtime's C interface."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BackendError

if TYPE_CHECKING:
    from .tensors import Array

_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind
# cudaDeviceAttr: what a plan is tied to beside the software.
_MAJOR, _MINOR = 75, 76


class Device:
    """The first GPU that the process sees, with one stream."""

    def __init__(self) -> None:
        self._runtime = load("cuda_runtime/lib/libcudart.so.12")
        self._runtime.cudaGetErrorString.restype = ctypes.c_char_p
        count = ctypes.c_int()
        try:
            self._call("cudaGetDeviceCount", ctypes.byref(count))
        except BackendError as error:
            raise BackendError(f"no GPU: {error}; kit run EXAMPLE --gpus all") from error
        self._stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(self._stream))

    @property
    def stream(self) -> int:
        """The handle that TensorRT takes."""
        return int(self._stream.value or 0)

    @property
    def compute_capability(self) -> str:
        """`9.0`."""
        return ".".join(str(self._attribute(number)) for number in (_MAJOR, _MINOR))

    def allocate(self, size: int) -> int:
        """The address of that many bytes."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(max(1, size)))
        return int(address.value or 0)

    def upload(self, values: np.typing.NDArray[Any], address: int) -> None:
        """Copy to the GPU."""
        values = np.ascontiguousarray(values)
        self._copy(address, values.ctypes.data, values.nbytes, _TO_DEVICE)

    def download(self, address: int, shape: tuple[int, ...]) -> Array:
        """Copy float32 values from the GPU, once the stream has done its work."""
        self._call("cudaStreamSynchronize", self._stream)
        values = np.empty(shape, dtype=np.float32)
        self._copy(values.ctypes.data, address, values.nbytes, _TO_HOST)
        return values

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        places = ctypes.c_void_p(target), ctypes.c_void_p(source)
        self._call("cudaMemcpy", *places, ctypes.c_size_t(size), ctypes.c_int(kind))

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        words = ctypes.byref(value), ctypes.c_int(number), ctypes.c_int(0)
        self._call("cudaDeviceGetAttribute", *words)
        return value.value

    def _call(self, name: str, *words: Any) -> None:
        status = getattr(self._runtime, name)(*words)
        if status:
            said = self._runtime.cudaGetErrorString(status)
            text = said.decode("ascii", "replace") if said else "unknown error"
            raise BackendError(f"{name}: CUDA error {status}: {text}")


def load(place: str) -> Any:
    """A library of NVIDIA's wheels, by its place in the package `nvidia`.

    Found by its path, so that a variable for other libraries (a driver's) does not hide it.
    """
    found = importlib.util.find_spec("nvidia")
    folders = found.submodule_search_locations if found is not None else None
    for folder in folders or ():
        path = Path(folder) / place
        if path.is_file():
            try:
                return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                raise BackendError(f"{path} cannot be loaded: {error}") from error
    raise BackendError(f"no {Path(place).name} in the Python packages of NVIDIA")
