"""Numba and CUDA kernels on packed structures; knows no other part of matcompute.

Names are imported on first use: ``import matcompute_kernels`` costs a few milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Public name → module that holds it.
_WHERE = {
    "Batch": "batch",
    "as_batch": "batch",
    "entry_ids": "hashing",
    "structure_hash": "hashing",
    "KernelInputError": "errors",
    "structure_problems": "checks",
    "feature_labels": "labels",
    "NeighborList": "neighbors",
    "neighbor_list": "neighbors",
    # descriptors
    "soap": "descriptors.soap",
    "soap_derivatives": "descriptors.soap_derivatives",
    "acsf": "descriptors.acsf",
    "acsf_derivatives": "descriptors.acsf_derivatives",
    "mbtr": "descriptors.mbtr",
    "local_mbtr": "descriptors.local_mbtr",
    "valle_oganov": "descriptors.valle_oganov",
    "coulomb_matrix": "descriptors.coulomb_matrix",
    "sine_matrix": "descriptors.sine_matrix",
    "ewald_matrix": "descriptors.ewald_matrix",
    "rdf": "descriptors.rdf",
    "prdf": "descriptors.prdf",
    "adf": "descriptors.adf",
    "steinhardt": "descriptors.steinhardt",
    "magpie": "descriptors.magpie",
    "xrd": "descriptors.xrd",
    "orbital_field_matrix": "descriptors.orbital_field_matrix",
    "packing": "descriptors.packing",
    # screening
    "energy_above_hull": "screening.hull",
    "knn": "screening.knn",
    "kernel_matrix": "screening.kernel_matrix",
    "rematch": "screening.rematch",
    "fps": "screening.fps",
    "cur": "screening.cur",
    "duplicate_groups": "screening.duplicates",
    "pareto_front": "screening.pareto",
    "novelty": "screening.novelty",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    try:
        module = _WHERE[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
