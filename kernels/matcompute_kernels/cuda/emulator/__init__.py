"""Runs the CUDA kernels on the CPU, one fibre per thread: test support, far too slow for anything else.

g++ compiles the text that a GPU would get, unmodified. The threads of a block run one after the other, each until its
next barrier or warp exchange, forward, reversed or in an order shuffled anew after every barrier; so do the blocks.
Found are: barriers and warp exchanges that not all threads reach; reads and writes outside the arrays that were passed,
outside shared memory, or beyond the declared size of a shared or local array; two threads that touch the same word of
shared memory with no barrier between (one of them writing). New arrays and shared memory hold NaN, so that nothing
works because memory happened to be zero. Not modelled: fused multiply-add, the rounding of a GPU's exp, and races
in global memory between blocks except by running the blocks in other orders.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from matcompute_kernels.cuda.errors import CudaError

__all__ = ["ORDERS", "Emulator", "EmulatorError", "compiler"]

ORDERS = ("forward", "reversed", "shuffled")
_HERE = Path(__file__).parent
#: Bytes around each array that belong to nobody.
_GUARD = 4096
_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-w")


class EmulatorError(CudaError):
    """The emulator found a fault in a kernel, or could not compile it."""


def compiler() -> str | None:
    """Return the path of g++, or None."""
    return shutil.which("g++")


class _Array(np.ndarray):
    """An array of the emulated device."""


class Emulator:
    """A device that is none.

    Parameters
    ----------
    order
        Order of threads and blocks: one of :data:`ORDERS`.
    warp
        32 (CUDA) or 64 (the kernels then take their HIP branch).
    seed
        Of the shuffled order.
    folder
        Where compiled kernels are kept; None: a temporary folder of this object.
    free
        Bytes that :meth:`free_bytes` tells.
    edit
        Changes each text before it is compiled (seeded faults).
    """

    def __init__(
        self,
        order: str = "forward",
        warp: int = 32,
        *,
        seed: int = 1,
        folder: Path | None = None,
        free: int = 1 << 30,
        edit: Callable[[str], str] | None = None,
    ) -> None:
        if compiler() is None:
            raise EmulatorError("the emulator needs g++")
        self.order, self.warp, self.seed, self.free = order, warp, seed, free
        self._temporary = tempfile.TemporaryDirectory() if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary else Path(folder or "")
        self.edit = edit
        self._libraries: dict[str, ctypes.CDLL] = {}
        #: Texts that were launched, by function (for tests that look at them).
        self.launched: dict[str, str] = {}
        #: Bytes of the arrays that live, and the most that there were.
        self.used = self.peak = 0

    def use(self) -> None:
        """There is no other."""

    # -- arrays -----------------------------------------------------------------------------------------------

    def empty(self, shape: Any, dtype: Any) -> Any:
        kind = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        memory = np.full(size + 2 * _GUARD, 0xFF, np.uint8)
        self.used += size
        self.peak = max(self.peak, self.used)
        weakref.finalize(memory, self._freed, size)
        return memory[_GUARD : _GUARD + size].view(kind).reshape(shape).view(_Array)

    def _freed(self, size: int) -> None:
        self.used -= size

    def zeros(self, shape: Any, dtype: Any) -> Any:
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def put(self, array: Any) -> Any:
        if isinstance(array, _Array):
            return array
        host = np.ascontiguousarray(array)
        target = self.empty(host.shape, host.dtype)
        target[...] = host
        return target

    def get(self, array: Any) -> np.ndarray:
        return np.array(array, subok=False)

    def offsets(self, counts: Any) -> Any:
        return self.put(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    def free_bytes(self) -> int:
        return self.free

    def stream(self, number: int) -> AbstractContextManager[Any]:
        return nullcontext()

    # -- launch -----------------------------------------------------------------------------------------------

    def run(
        self, text: str, function: str, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any]
    ) -> None:
        """Compile and run; see :func:`matcompute_kernels.cuda.launch.launch`.

        Raises
        ------
        EmulatorError
            If the kernel does not compile or does something wrong; the text names block, thread and line.
        """
        text = text if self.edit is None else self.edit(text)
        self.launched[function] = text
        library = self._library(text, function)
        values, keep, bounds = (ctypes.c_void_p * max(1, len(arguments)))(), [], []
        for k, argument in enumerate(arguments):
            if isinstance(argument, _Array):
                if not argument.flags.c_contiguous:
                    raise EmulatorError(f"{function}: argument {k} is not contiguous")
                cell: Any = ctypes.c_void_p(argument.ctypes.data)
                bounds += [argument.ctypes.data, argument.ctypes.data + argument.nbytes]
                values[k] = ctypes.addressof(cell)
            elif isinstance(argument, np.generic):
                cell = np.array(argument)
                values[k] = cell.ctypes.data
            else:
                raise EmulatorError(f"{function}: argument {k} is no array of the device and no NumPy scalar")
            keep.append(cell)
        limits = (ctypes.c_size_t * max(2, len(bounds)))(*bounds)
        problem = library.mc_launch(
            library.mc_entry,
            values,
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            self.warp,
            ORDERS.index(self.order),
            ctypes.c_ulonglong(self.seed),
            limits,
            len(bounds) // 2,
        )
        if problem:
            raise EmulatorError(f"{function}: {problem.decode()}")

    def _library(self, text: str, function: str) -> ctypes.CDLL:
        key = hashlib.sha256(f"{text}\0{function}\0{self.warp}".encode()).hexdigest()[:24]
        if key not in self._libraries:
            path = self.folder / f"{key}.so"
            if not path.exists():
                self._compile(text, function, path)
            library = ctypes.CDLL(str(path))
            library.mc_launch.restype = ctypes.c_char_p
            self._libraries[key] = library
        return self._libraries[key]

    def _compile(self, text: str, function: str, path: Path) -> None:
        runtime = self.folder / "fibres.o"
        if not runtime.exists():
            made = runtime.with_suffix(f".{os.getpid()}.o")
            self._gxx(*_FLAGS, "-c", str(_HERE / "fibres.cpp"), "-o", str(made))
            made.replace(runtime)
        source = path.with_suffix(".cpp")
        source.write_text(
            ("#define MC_HIP\n" if self.warp == 64 else "")
            + f'#include "{_HERE / "shim.h"}"\n'
            + f"{text}\n"
            + "namespace mc {\n"
            + "template <unsigned...> struct List {};\n"
            + "template <unsigned N, unsigned... I> struct Count : Count<N - 1, N - 1, I...> {};\n"
            + "template <unsigned... I> struct Count<0, I...> { typedef List<I...> type; };\n"
            + "template <class... A, unsigned... I>\n"
            + '__attribute__((no_sanitize("thread")))\n'
            + "void call(void (*f)(A...), void **a, List<I...>) { f(*(A *)a[I]...); }\n"
            + "template <class... A> void call(void (*f)(A...), void **a) {\n"
            + "    call(f, a, typename Count<sizeof...(A)>::type());\n}\n}\n"
            + f'extern "C" void mc_entry(void **a) {{ mc::call({function}, a); }}\n',
            encoding="utf-8",
        )
        library = path.with_suffix(f".{os.getpid()}.so")
        checks = ("-fsanitize=thread", "-fsanitize=bounds-strict")
        made = path.with_suffix(f".{os.getpid()}.o")
        self._gxx(*_FLAGS, *checks, "-c", str(source), "-o", str(made))
        self._gxx("-shared", "-Wl,-Bsymbolic", str(made), str(runtime), "-o", str(library), "-lm")
        library.replace(path)

    def _gxx(self, *options: str) -> None:
        done = subprocess.run([str(compiler()), *options], capture_output=True, text=True, check=False)
        if done.returncode:
            raise EmulatorError("the kernel does not compile:\n" + done.stderr[:4000])
