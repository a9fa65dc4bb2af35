"""Offline build: every kernel to a cubin, with no GPU and no driver, and a table of what it takes of a chip.

NVRTC and ptxas come from the wheels ``nvidia-cuda-nvrtc-cu12`` and ``nvidia-cuda-nvcc-cu12`` (one version of both).
``python -m matcompute_kernels.cuda.build`` prints the table.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from matcompute_kernels.cuda.errors import CudaError
from matcompute_kernels.cuda.sources import KERNELS, render

__all__ = ["TARGETS", "Built", "build", "occupancy", "tools"]

#: Compute capability → bytes of shared memory of a multiprocessor (A100, H100, B200).
TARGETS = {"80": 164 * 1024, "90": 228 * 1024, "100": 228 * 1024}


@dataclass(frozen=True)
class Built:
    """What ptxas says of a kernel.

    Attributes
    ----------
    registers
        Of a thread.
    spills
        Bytes that a thread stores and loads because registers run out.
    stack
        Bytes of local memory of a thread.
    shared
        Bytes of a block.
    occupancy
        Warps that a multiprocessor can hold at a time, of those that it could at most.
    cubin
        Bytes of the binary.
    """

    kernel: str
    real: str
    target: str
    registers: int
    spills: int
    stack: int
    shared: int
    occupancy: float
    cubin: int


def tools() -> tuple[Path, Path] | None:
    """Return the NVRTC library and ptxas of the wheels, or None."""
    found = []
    for package, pattern in (("nvidia.cuda_nvrtc", "lib/libnvrtc.so.*"), ("nvidia.cuda_nvcc", "bin/ptxas")):
        try:
            spec = find_spec(package)
        except ModuleNotFoundError:
            return None
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        files = [file for place in places for file in sorted(Path(place).glob(pattern))]
        if not files:
            return None
        found.append(files[0])
    return found[0], found[1]


def build(kernel: str, real: str, target: str) -> Built:
    """Compile a kernel with the constants of its table row for a compute capability, such as ``"90"``.

    Raises
    ------
    CudaError
        If the wheels are not installed or the kernel does not compile.
    """
    there = tools()
    if there is None:
        raise CudaError(
            "the offline build needs the wheels nvidia-cuda-nvrtc-cu12 and nvidia-cuda-nvcc-cu12 (pip install both)"
        )
    entry = KERNELS[kernel]
    ptx = _ptx(there[0], render(kernel, real, 32, entry.constants), target)
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_bytes(ptx)
        done = subprocess.run(
            [str(there[1]), "-v", f"-arch=sm_{target}", str(source), "-o", str(binary)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CudaError(f"ptxas, kernel {kernel}, sm_{target}: {done.stderr.strip()}")
        size = binary.stat().st_size

    def number(pattern: str) -> int:
        return sum(int(n) for n in re.findall(pattern, done.stderr))

    registers, shared = number(r"Used (\d+) registers"), number(r"(\d+) bytes smem")
    return Built(
        kernel,
        real,
        target,
        registers,
        number(r"(\d+) bytes spill"),
        number(r"(\d+) bytes stack frame"),
        shared,
        occupancy(registers, shared, entry.threads, TARGETS[target]),
        size,
    )


def occupancy(registers: int, shared: int, threads: int, room: int) -> float:
    """Return the part of a multiprocessor's 64 warps that blocks can fill (65,536 registers, 32 blocks).

    Registers are given out by 256 to a warp; a block costs 1 kB of shared memory beside its own (CUDA C++ Programming
    Guide, compute capabilities 8.0, 9.0 and 10.0).
    """
    warps = threads // 32
    by_registers = 65536 // (-(-registers * 32 // 256) * 256) // warps if registers else 64
    blocks = min(32, 64 // warps, by_registers, room // (shared + 1024))
    return blocks * warps / 64


def _ptx(library: Path, text: str, target: str) -> bytes:
    nvrtc = ctypes.CDLL(str(library))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None):
        raise CudaError("NVRTC takes no program")
    try:
        options = [f"--gpu-architecture=compute_{target}".encode(), b"-std=c++17"]
        if nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)):
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise CudaError("NVRTC: " + log.value.decode(errors="replace").strip())
        nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
        ptx = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetPTX(program, ptx)
        return ptx.value
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def main() -> None:
    """Print the table."""
    print(f"{'kernel':12} {'real':8} {'sm':>4} {'registers':>9} {'spills':>6} {'shared':>7} {'occupancy':>9}")
    for kernel in KERNELS:
        for real in ("float64", "float32"):
            for target in TARGETS:
                b = build(kernel, real, target)
                print(
                    f"{kernel:12} {real:8} {target:>4} {b.registers:9d} {b.spills:6d} {b.shared:7d} "
                    f"{b.occupancy:9.0%}"
                )


if __name__ == "__main__":
    main()
