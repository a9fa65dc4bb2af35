"""Threads of a worker: pinned before numerical libraries are imported, so that workers do not oversubscribe."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

__all__ = ["VARIABLES", "keep_out_of_home", "pin_threads"]

#: What OpenMP, the BLAS libraries and Numba read when they are loaded.
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def pin_threads(threads: int, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the number of threads for this process and its children.

    The variables count for libraries that are not loaded yet; torch, if loaded, is told as well.
    """
    for name in VARIABLES:
        environ[name] = str(threads)
    # Spinning OpenMP threads of an idle worker would steal the cores of the others.
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def keep_out_of_home(folder: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """Send what libraries would cache in the user's home to ``.cache`` in the job's folder, and scratch to ``scratch``.

    What the job's script or the workspace has set already is kept. Not the machine's temporary folder: Numba unpickles
    its cache, and in a shared folder another user could have put it there.
    """
    import matcompute_kernels

    cache = folder / ".cache"
    # Numba's own first choice is beside the kernels, where all jobs share what was compiled once.
    if not os.access(Path(str(matcompute_kernels.__file__)).parent, os.W_OK):
        environ.setdefault("NUMBA_CACHE_DIR", str(cache / "numba"))
    environ.setdefault("MATCOMPUTE_SCRATCH", str(folder / "scratch"))
    environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))
    environ.setdefault("XDG_CACHE_HOME", str(cache))
    environ.setdefault("MPLBACKEND", "agg")
