"""Whether CUDA can be used, and which device a process takes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from matcompute_kernels.cuda.errors import CudaError
from matcompute_kernels.errors import KernelInputError

__all__ = ["BACKENDS", "choose_backend", "cuda_problem", "device_index", "local_rank", "on_gpu"]

BACKENDS = ("numba", "cuda", "auto")

#: Where MPI libraries, Slurm and Dask say which process of its machine this one is.
_RANKS = (
    "MATCOMPUTE_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "PMI_LOCAL_RANK",
    "PALS_LOCAL_RANKID",
    "SLURM_LOCALID",
)

_log = logging.getLogger("matcompute_kernels.cuda")


def cuda_problem() -> str | None:
    """Return in one line why CUDA cannot be used here, or None if it can."""
    try:
        import cupy
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "cupy":
            return "CuPy is not installed (pip install cupy-cuda12x, or cupy-cuda13x for CUDA 13)"
        return f"CuPy does not load: {_line(error)}"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy raises classes of its own
        return f"CuPy {cupy.__version__} finds no usable NVIDIA driver: {_line(error)}"
    return None if count else "no GPU is visible (CUDA_VISIBLE_DEVICES may hide it)"


def choose_backend(backend: str = "auto") -> str:
    """Return ``"numba"`` or ``"cuda"``.

    Parameters
    ----------
    backend
        ``"numba"``; ``"cuda"``, an error if there is none; ``"auto"``: CUDA if it can be used, else the CPU, and one
        line in the log (``matcompute_kernels.cuda``, level info, once a process) says why.

    Raises
    ------
    KernelInputError
        If it is none of the three.
    CudaError
        If ``"cuda"`` is asked for and cannot be used.
    """
    if backend not in BACKENDS:
        raise KernelInputError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
    if backend == "numba":
        return "numba"
    problem = cuda_problem()
    if problem is None:
        return "cuda"
    if backend == "cuda":
        raise CudaError(f"backend='cuda': {problem}; backend='auto' falls back to the CPU")
    _say_once(f"no CUDA, the CPU is used: {problem}")
    return "numba"


def on_gpu(backend: str, **only_cpu: bool) -> bool:
    """Return whether a call of a CPU function is to go to the GPU.

    Parameters
    ----------
    backend
        As of :func:`choose_backend`.
    only_cpu
        Parameters of the call that the GPU does not take: name → whether they are used.

    Raises
    ------
    KernelInputError
        If ``"cuda"`` is asked for with such a parameter.
    CudaError
        If ``"cuda"`` is asked for and cannot be used.
    """
    used = ", ".join(name for name, given in only_cpu.items() if given)
    if not used or backend not in ("cuda", "auto"):
        return choose_backend(backend) == "cuda"
    if backend == "cuda":
        raise KernelInputError(f"backend='cuda' does not take {used} as given; use backend='auto' or 'numba'")
    _say_once(f"no CUDA, the CPU is used: the GPU does not take {used} as given")
    return False


@cache
def _say_once(text: str) -> None:
    _log.info(text)


def local_rank(environment: Mapping[str, str] | None = None) -> int:
    """Return the number of this process among those of its machine (0 if nothing says it)."""
    environment = os.environ if environment is None else environment
    for name in _RANKS:
        value = environment.get(name, "")
        if value.isdigit():
            return int(value)
    return 0


def device_index(devices: int, environment: Mapping[str, str] | None = None) -> int:
    """Return the device of this process: one for each local rank, in turn.

    A launcher that shows each rank its own device only (``devices`` is 1) gives 0.

    Raises
    ------
    CudaError
        If there are no devices.
    """
    if devices < 1:
        raise CudaError("no GPU is visible (CUDA_VISIBLE_DEVICES may hide it)")
    return local_rank(environment) % devices


def _line(error: Any) -> str:
    return " ".join(str(error).split()) or type(error).__name__
