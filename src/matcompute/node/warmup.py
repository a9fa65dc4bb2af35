"""Compile every kernel once for a centre: Numba keeps the machine code on disk, and jobs find it there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from matcompute_kernels import Batch

__all__ = ["Warmed", "cache_folder", "kernel_names", "warm_up"]

_SPECIES = {"species": ["Na", "Cl"]}
_GRID = {"grid": {"min": 0.0, "max": 1.0, "sigma": 0.05, "n": 20}}
_DECAY = {"weighting": {"function": "exp", "scale": 0.8, "threshold": 1e-2}}
_SOAP = {**_SPECIES, "r_cut": 3.0, "n_max": 2, "l_max": 2}
_ACSF = {
    **_SPECIES,
    "r_cut": 3.0,
    "g2": [[1.0, 0.0]],
    "g3": [1.0],
    "g4": [[0.1, 1.0, 1.0]],
    "g5": [[0.1, 1.0, 1.0]],
}
_TWO = ("float64", "float32")

#: Kernel → the calls that between them need all of its machine code: other types, other branches.
_CALLS: dict[str, tuple[Mapping[str, Any], ...]] = {
    "neighbor_list": ({"r_cut": 3.0}, {"r_cut": 3.0, "full": False}),
    "soap": (
        *({**_SOAP, "average": a, "dtype": d} for a in ("off", "inner", "outer") for d in _TWO),
        *({**_SOAP, "average": a, "sparse": True, "dtype": d} for a in ("off", "outer") for d in _TWO),
        {**_SOAP, "convention": "featomic-gto"},
        {**_SOAP, "convention": "polynomial"},
    ),
    "soap_derivatives": (_SOAP,),
    "acsf": (
        *({**_ACSF, "dtype": d} for d in _TWO),
        {**_ACSF, "sparse": True},
    ),
    "acsf_derivatives": tuple({**_ACSF, "dtype": d} for d in _TWO),
    "mbtr": tuple(
        {**_SPECIES, **_GRID, "dtype": d, "geometry": g, **({} if g == "atomic_number" else _DECAY)}
        for g in ("atomic_number", "inverse_distance", "cosine")
        for d in _TWO
    ),
    "local_mbtr": tuple(
        {**_SPECIES, **_GRID, **_DECAY, "dtype": d, "geometry": g}
        for g in ("inverse_distance", "cosine")
        for d in _TWO
    ),
    "valle_oganov": tuple(
        {**_SPECIES, "function": f, "n": 20, "r_cut": 3.0, "dtype": d}
        for f in ("distance", "angle")
        for d in _TWO
    ),
    "coulomb_matrix": tuple({"permutation": p} for p in ("sorted_l2", "eigenspectrum")),
    "sine_matrix": tuple({"permutation": p} for p in ("sorted_l2", "eigenspectrum")),
    "ewald_matrix": tuple({"permutation": p} for p in ("sorted_l2", "eigenspectrum")),
    "rdf": ({"r_cut": 4.0},),
    "prdf": ({**_SPECIES, "r_cut": 4.0},),
    "adf": ({"r_cut": 3.0}, {**_SPECIES, "r_cut": 3.0}),
    "steinhardt": tuple({"r_cut": 3.0, "dtype": d, "average": a} for d in _TWO for a in (False, True)),
    "magpie": ({},),
    "xrd": ({},),
    "orbital_field_matrix": ({},),
    "packing": ({},),
    "structure_hash": ({},),
    "duplicate_groups": ({},),
}


@dataclass(frozen=True)
class Warmed:
    """What a kernel took.

    Parameters
    ----------
    name
        Public name of the kernel.
    compiled
        Functions that were compiled now; 0: all came from the cache.
    seconds
        Wall time.
    """

    name: str
    compiled: int
    seconds: float


def kernel_names() -> list[str]:
    """Return the kernels that have something to compile, in the order in which they are warmed up."""
    return [*_CALLS, *_SCREENING]


def cache_folder() -> Path:
    """Return where Numba keeps the machine code of the kernels (``NUMBA_CACHE_DIR`` moves it).

    By default that is the ``__pycache__`` folders of the package, or of the user's cache if they are read-only.
    """
    from matcompute_kernels.checks import _all_fit

    path = _all_fit.stats.cache_path
    assert path is not None  # it is compiled with cache=True
    return Path(path).parent


def warm_up(
    names: Iterable[str] = (), progress: Callable[[Warmed, int, int], None] | None = None
) -> list[Warmed]:
    """Call kernels on tiny structures so that their machine code is on disk.

    Parameters
    ----------
    names
        Which; none: all.
    progress
        Called after each kernel with what it took, the number done and the number in all.

    Raises
    ------
    InputError
        If a name is no kernel's.
    """
    from numba.core import event

    wanted = list(dict.fromkeys(names)) or kernel_names()
    for name in wanted:
        if name not in kernel_names():
            raise InputError(f"no kernel '{name}' to warm up{did_you_mean(name, kernel_names())}")
    done: list[Warmed] = []
    for name in wanted:
        begun = time.perf_counter()
        with event.install_recorder("numba:compile") as recorder:
            _call(name)
        compiled = sum(1 for _, item in recorder.buffer if item.is_start)
        done.append(Warmed(name, compiled, time.perf_counter() - begun))
        if progress is not None:
            progress(done[-1], len(done), len(wanted))
    return done


def _call(name: str) -> None:
    import matcompute_kernels

    if name in _SCREENING:
        _SCREENING[name]()
        return
    kernel, batch = getattr(matcompute_kernels, name), _structures()
    if name in ("coulomb_matrix", "sine_matrix", "ewald_matrix"):
        batch = batch[:2]
    for keywords in _CALLS[name]:
        if name == "magpie":
            kernel(batch.formulas(), **keywords)
        else:
            kernel(batch, **keywords)


def _structures() -> Batch:
    """Two small cells, and one that is large enough for cell lists."""
    from ase.build import bulk

    from matcompute_kernels import Batch

    salt = bulk("NaCl", "rocksalt", a=5.64)
    large = salt.repeat((7, 7, 7))
    large.rattle(0.05, seed=1)
    return Batch.from_atoms([salt, salt.repeat((2, 1, 1)), large])


def _features() -> Any:
    import numpy as np

    return np.random.default_rng(0).random((64, 8))


def _hull() -> None:
    from matcompute_kernels import energy_above_hull

    energy_above_hull(["Na", "Cl", "NaCl", "Na2Cl", "Na", "Cl"], [0.0, 0.0, -1.0, -0.2, 0.1, 0.1])
    formulas = ["Na", "Cl", "K", "Br", "NaCl", "KCl", "NaBr", "KBr", "NaKClBr"]
    energy_above_hull(formulas, [0.0, 0.0, 0.0, 0.0, -1.0, -1.1, -0.9, -1.0, -0.5])


def _knn() -> None:
    from matcompute_kernels import knn

    for metric in ("euclidean", "manhattan", "cosine"):
        knn(_features(), 3, metric=metric)


def _kernel_matrix() -> None:
    from matcompute_kernels import kernel_matrix

    for kernel in ("linear", "polynomial", "laplacian", "average"):
        features = [_features()[:3], _features()[3:9]] if kernel == "average" else _features()
        kernel_matrix(features, kernel=kernel)


def _rematch() -> None:
    from matcompute_kernels import rematch

    rematch([_features()[:3], _features()[3:9]])


def _fps() -> None:
    from matcompute_kernels import fps

    for dtype in _TWO:
        fps(_features().astype(dtype), 5)


def _cur() -> None:
    from matcompute_kernels import cur

    cur(_features(), 3)


def _pareto() -> None:
    from matcompute_kernels import pareto_front

    pareto_front(_features()[:, :2])
    pareto_front(_features()[:, :3], fronts=2)


def _novelty() -> None:
    from matcompute_kernels import novelty

    novelty(_features(), _features()[:9])


_SCREENING: dict[str, Callable[[], None]] = {
    "energy_above_hull": _hull,
    "knn": _knn,
    "kernel_matrix": _kernel_matrix,
    "rematch": _rematch,
    "fps": _fps,
    "cur": _cur,
    "pareto_front": _pareto,
    "novelty": _novelty,
}
