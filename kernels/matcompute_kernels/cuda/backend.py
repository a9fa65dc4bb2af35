"""Whether CUDA can be used, and which device a process takes."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from matcompute_kernels.cuda.errors import CudaError
from matcompute_kernels.errors import KernelInputError

__all__ = [
    "BACKENDS",
    "choose_backend",
    "claim_local_rank",
    "cuda_problem",
    "device_index",
    "local_rank",
    "on_gpu",
    "set_local_rank",
]

BACKENDS = ("numba", "cuda", "auto")

#: The user's word on which process of its machine this one is; before all others.
_GIVEN = "MATCOMPUTE_LOCAL_RANK"
#: Where MPI libraries and Slurm say it.
_RANKS = (
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "PMI_LOCAL_RANK",
    "PALS_LOCAL_RANKID",
    "SLURM_LOCALID",
)
#: What a driver has found out, and the lock that a claimed number is held by.
_found: int | None = None
_claims: dict[str, tuple[int, int]] = {}

_log = logging.getLogger("matcompute_kernels.cuda")


def cuda_problem() -> str | None:
    """Return in one line why CUDA cannot be used here, or None if it can."""
    if "cupy" not in sys.modules and find_spec("cupy") is not None and not _driver_loads():
        # Importing CuPy takes a second and makes a folder in the user's home: not for nothing.
        return "there is no driver of a GPU (libcuda does not load); run on a machine with a GPU"
    try:
        import cupy
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "cupy":
            return "CuPy is not installed (pip install cupy-cuda12x, or cupy-cuda13x for CUDA 13)"
        return f"CuPy does not load: {_line(error)}"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy raises classes of its own
        return (
            f"CuPy {cupy.__version__} finds no usable NVIDIA driver ({_line(error)}); run on a machine with a GPU, or "
            "update its driver (nvidia-smi shows it)"
        )
    return None if count else "no GPU is visible (CUDA_VISIBLE_DEVICES may hide it)"


@cache
def _driver_loads() -> bool:
    """Whether a GPU's driver is there; only Linux is asked, where its names are known."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():  # AMD's and Hygon's, for CuPy's ROCm build
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


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
    """Return the number of this process among those of its machine (0 if nothing says it).

    ``MATCOMPUTE_LOCAL_RANK``; what the MPI or Dask driver has found (a Dask worker inherits its batch job's variables,
    which are the same for all workers of the job); the variables of MPI launchers and Slurm.
    """
    environment = os.environ if environment is None else environment
    given = environment.get(_GIVEN, "")
    if given.isdigit():
        return int(given)
    if _found is not None:
        return _found
    return next((int(environment[name]) for name in _RANKS if environment.get(name, "").isdigit()), 0)


def set_local_rank(rank: int | None) -> None:
    """Say which process of its machine this one is (None: unknown again); before the first call on the GPU."""
    global _found
    _found = rank


def claim_local_rank(group: str) -> int:
    """Take the lowest number that no other living process of a group on this machine has, and keep it.

    The number is a lock on a file in the folder for temporary files: it is free again when the process ends, however it
    ends, so a worker that replaces another one takes its device.

    Parameters
    ----------
    group
        What the processes have in common, such as the address of their scheduler.
    """
    if group not in _claims:
        name = f"matcompute-{os.getuid()}-{sha256(group.encode()).hexdigest()[:12]}"
        rank = 0
        while (held := _lock(Path(tempfile.gettempdir()) / f"{name}-{rank}.rank")) is None:
            rank += 1
        _claims[group] = rank, held
    set_local_rank(_claims[group][0])
    return _claims[group][0]


def _lock(path: Path) -> int | None:
    """Lock a file for the life of this process; None if another one has it. It is removed at the end."""
    import fcntl

    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.fstat(file).st_ino == path.stat().st_ino:
                atexit.register(path.unlink, missing_ok=True)
                return file
        except BlockingIOError:
            os.close(file)
            return None
        os.close(file)  # its owner has just removed it


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
