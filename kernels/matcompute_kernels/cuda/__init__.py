"""CUDA C++ kernels on packed structures, through CuPy; importing this needs neither CuPy nor a GPU."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# At once: later it would be the module of this name.
from matcompute_kernels.cuda.launch import launch as launch

_WHERE = {
    "CudaError": "errors",
    "choose_backend": "backend",
    "cuda_problem": "backend",
    "plan_chunks": "planner",
    "neighbor_list": "neighbors",
    "rdf": "radial",
    "acsf": "symmetry",
    "soap": "power_spectrum",
    "mbtr": "many_body",
    "kernel_matrix": "features",
    "knn": "features",
    "fps": "features",
}

__all__ = sorted([*_WHERE, "launch"])


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
