"""A device as the kernels see it: arrays in and out, memory, and the launch of a text.

Two kinds exist: :class:`CupyDevice` here, and the emulator (:mod:`matcompute_kernels.cuda.emulator`), on which every
kernel and the host code around it is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from matcompute_kernels.cuda.backend import choose_backend, cuda_problem, device_index
from matcompute_kernels.cuda.errors import CudaError

__all__ = ["CupyDevice", "Device", "chosen_device", "default_device"]


class Device(Protocol):
    """What :func:`matcompute_kernels.cuda.launch.launch` and the host code need."""

    warp: int

    def put(self, array: Any) -> Any:
        """Copy to the device (an array that is there already is returned as it is)."""

    def empty(self, shape: Any, dtype: Any) -> Any:
        """Make an array of undefined content."""

    def zeros(self, shape: Any, dtype: Any) -> Any:
        """Make an array of zeros."""

    def get(self, array: Any) -> np.ndarray:
        """Copy to the host; waits for the stream."""

    def offsets(self, counts: Any) -> Any:
        """Running sum with a zero in front, i8[n + 1], on the device."""

    def free_bytes(self) -> int:
        """Bytes that can still be had."""

    def stream(self, number: int) -> AbstractContextManager[Any]:
        """Work inside goes to stream ``number``."""

    def run(
        self, text: str, function: str, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any]
    ) -> None:
        """Compile a text (kept) and launch one of its functions; scalars come as NumPy scalars."""


class CupyDevice:
    """An NVIDIA device through CuPy (or an AMD or Hygon card through CuPy's ROCm build).

    Arrays are CuPy arrays; anything with ``__cuda_array_interface__`` goes in without a copy.

    Parameters
    ----------
    index
        Number of the device; None: by the local rank of the process.

    Raises
    ------
    CudaError
        If CUDA cannot be used.
    """

    def __init__(self, index: int | None = None) -> None:
        problem = cuda_problem()
        if problem is not None:
            raise CudaError(problem)
        import cupy

        self._cupy = cupy
        count = int(cupy.cuda.runtime.getDeviceCount())
        self.index = device_index(count) if index is None else index
        if not 0 <= self.index < count:
            raise CudaError(f"there is no device {index}; there are {count}")
        self._device = cupy.cuda.Device(self.index)
        self.use()
        properties = cupy.cuda.runtime.getDeviceProperties(self.index)
        self.name = properties["name"].decode()
        self.warp = int(properties["warpSize"])
        self._modules: dict[str, Any] = {}
        self._streams: dict[int, Any] = {}
        self._pinned: dict[int, list[Any]] = {}

    def use(self) -> None:
        """Make this the current device of the thread: CUDA keeps one for each."""
        self._device.use()

    def put(self, array: Any) -> Any:
        if hasattr(array, "__cuda_array_interface__"):
            return self._cupy.ascontiguousarray(self._cupy.asarray(array))
        host = np.ascontiguousarray(array)
        stream = self._cupy.cuda.get_current_stream()
        if stream.ptr == 0:  # tables: the default stream, which the others wait for
            return self._cupy.asarray(host)
        import cupyx

        # From pinned memory the copy runs beside the kernels of the other stream.
        staged = cupyx.empty_pinned(host.shape, host.dtype)
        staged[...] = host
        target = self._cupy.empty(host.shape, host.dtype)
        target.set(staged, stream=stream)
        self._keep(stream, staged)
        return target

    def _keep(self, stream: Any, staged: Any) -> None:
        """Hold pinned memory until the stream that copies it has been waited for."""
        self._pinned.setdefault(stream.ptr, []).append(staged)

    def empty(self, shape: Any, dtype: Any) -> Any:
        return self._cupy.empty(shape, dtype)

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return self._cupy.zeros(shape, dtype)

    def get(self, array: Any) -> np.ndarray:
        stream = self._cupy.cuda.get_current_stream()
        result = self._cupy.asnumpy(array, stream=stream)
        stream.synchronize()
        self._pinned.pop(stream.ptr, None)
        return result

    def offsets(self, counts: Any) -> Any:
        out = self._cupy.zeros(len(counts) + 1, np.int64)
        self._cupy.cumsum(counts, dtype=np.int64, out=out[1:])
        return out

    def free_bytes(self) -> int:
        free, _ = self._device.mem_info
        pool = self._cupy.get_default_memory_pool()
        return int(0.9 * (free + pool.free_bytes()))  # the pool rounds sizes up

    def stream(self, number: int) -> AbstractContextManager[Any]:
        if number not in self._streams:
            self._streams[number] = self._cupy.cuda.Stream()  # waits for the default stream
        stream: AbstractContextManager[Any] = self._streams[number]
        return stream

    def run(
        self, text: str, function: str, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any]
    ) -> None:
        if text not in self._modules:
            self._modules[text] = self._cupy.RawModule(code=text, options=("-std=c++17",))
        self._modules[text].get_function(function)(tuple(grid), tuple(block), tuple(arguments))


_default: Any = None  # a CupyDevice


def default_device() -> CupyDevice:
    """Return this process's device, by its local rank; made once, and the current one of this thread then.

    Raises
    ------
    CudaError
        If CUDA cannot be used.
    """
    global _default
    if _default is None:
        _default = CupyDevice()
    _default.use()
    return _default


def chosen_device(backend: str, device: Device | None) -> Device | None:
    """Return the device that a call with these arguments uses, or None for the CPU.

    Raises
    ------
    KernelInputError, CudaError
        As :func:`matcompute_kernels.cuda.backend.choose_backend`.
    """
    if device is not None:
        return device
    return default_device() if choose_backend(backend) == "cuda" else None
