"""A stand-in for CuPy whose device is the emulator: what ``CupyDevice`` does with streams and copies can be run.

Work in a stream is put off until somebody waits for it, as on a GPU: a buffer that is freed or filled anew too early, a
stream that is not waited for, or an array of another stream that is not ready gives wrong numbers. Work in the default
stream waits for all streams, as CUDA's does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from matcompute_kernels.cuda.emulator import Emulator, _Array


class Stream:
    """A queue of work."""

    def __init__(self, cupy: StandIn, ptr: int) -> None:
        self.cupy, self.ptr, self.queue = cupy, ptr, []

    def __enter__(self) -> Stream:
        self.cupy.current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.cupy.current.pop()

    def do(self, what: str, work: Callable[[], object]) -> None:
        self.cupy.log.append((self.ptr, what))
        self.queue.append(work)
        if self.ptr == 0:
            self.cupy.wait_for_all()

    def synchronize(self) -> None:
        # The order of what two streams do is not defined: here the others' work is done as late as can be.
        self.cupy.log.append((self.ptr, "wait"))
        queue, self.queue = self.queue, []
        for work in queue:
            work()


class DeviceArray(_Array):
    """An array of the emulated device that copies by stream."""

    def set(self, host: np.ndarray, stream: Stream) -> None:
        assert stream.cupy.is_pinned(host), "from pageable memory a copy does not run beside kernels"
        memory = host.base  # not the pinned array itself: the copy does not keep it alive
        stream.do("copy in", lambda: np.copyto(self, memory))


class Pinned(np.ndarray):
    """Pinned memory: what it holds is lost with the last name for it."""


class StandIn(ModuleType):
    """The part of ``cupy`` (and ``cupyx``) that ``CupyDevice`` uses, with a number of devices."""

    __version__ = "stand-in"

    def __init__(self, emulator: Emulator, devices: int = 1) -> None:
        super().__init__("cupy")
        self.emulator, self.log = emulator, []
        self.default = Stream(self, 0)
        self.streams = [self.default]
        self.current = [self.default]
        self.device = 0
        self.compiled: list[str] = []
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                getDeviceCount=lambda: devices,
                getDeviceProperties=lambda k: {"name": b"Stand-in", "warpSize": emulator.warp},
            ),
            Device=lambda k: SimpleNamespace(
                use=lambda: setattr(self, "device", k), mem_info=(emulator.free, 0)
            ),
            Stream=self.new_stream,
            get_current_stream=lambda: self.current[-1],
        )
        self.x = ModuleType("cupyx")
        self.x.empty_pinned = self.empty_pinned

    # -- streams ----------------------------------------------------------------------------------------------

    def new_stream(self) -> Stream:
        self.streams.append(Stream(self, len(self.streams)))
        return self.streams[-1]

    def wait_for_all(self) -> None:
        for stream in self.streams:
            queue, stream.queue = stream.queue, []
            for work in queue:
                work()

    def do(self, what: str, work: Callable[[], object]) -> None:
        self.current[-1].do(what, work)

    # -- arrays -----------------------------------------------------------------------------------------------

    def empty_pinned(self, shape: Any, dtype: Any) -> Pinned:
        owner = np.empty(shape, dtype)
        pinned = owner.view(Pinned)
        # What is freed is filled with rubbish at once.
        weakref.finalize(pinned, owner.reshape(-1).view(np.uint8).fill, 0xEE)
        return pinned

    @staticmethod
    def is_pinned(host: Any) -> bool:
        return isinstance(host, Pinned)

    def empty(self, shape: Any, dtype: Any) -> DeviceArray:
        return self.emulator.empty(shape, dtype).view(DeviceArray)

    def zeros(self, shape: Any, dtype: Any) -> DeviceArray:
        array = self.empty(shape, dtype)
        self.do("zeros", lambda: array.fill(0))
        return array

    def asarray(self, array: Any) -> DeviceArray:
        if isinstance(array, DeviceArray):
            return array
        result = self.empty(np.shape(array), np.asarray(array).dtype)
        host = np.array(array)
        self.do("copy in", lambda: np.copyto(result, host))
        return result

    def ascontiguousarray(self, array: Any) -> Any:
        return array

    def asnumpy(self, array: Any, stream: Stream) -> np.ndarray:
        result = np.empty(array.shape, array.dtype)
        stream.do("copy out", lambda: np.copyto(result, array))
        stream.synchronize()  # to pageable memory: the call returns when the copy is done
        return result

    def cumsum(self, counts: Any, dtype: Any, out: Any) -> None:
        self.do("cumsum", lambda: np.cumsum(counts, dtype=dtype, out=out))

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_bytes=lambda: 0)

    def RawModule(self, code: str, options: tuple[str, ...]) -> Any:
        self.compiled.append(code)

        def get_function(name: str) -> Callable[..., None]:
            def launch(grid: Any, block: Any, arguments: Any) -> None:
                self.do(name, lambda: self.emulator.run(code, name, grid, block, arguments))

            return launch

        return SimpleNamespace(get_function=get_function)
