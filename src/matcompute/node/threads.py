"""Threads of a worker: pinned before numerical libraries are imported, so that workers do not oversubscribe."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

__all__ = ["VARIABLES", "pin_threads"]

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
