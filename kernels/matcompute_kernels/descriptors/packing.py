"""Density and packing of crystal structures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.lattice import lll
from matcompute_kernels.tables import atomic_masses, atomic_radii

__all__ = ["labels", "packing"]

_DALTON = 1.66053906892  # g/cm^3 per u/Å^3 (CODATA 2022)


@njit(cache=True, parallel=True)
def _spheres(positions: np.ndarray, cell: np.ndarray, ptr: np.ndarray, out: np.ndarray) -> None:
    """Write Σ (half the distance to the nearest site)³ of each structure, OUTPUT f8[N]."""
    for i in prange(ptr.shape[0] - 1):
        reduced = lll(cell[i])
        inverse = np.linalg.inv(reduced)
        total = 0.0
        for a in range(ptr[i], ptr[i + 1]):
            nearest = np.inf
            for b in range(ptr[i], ptr[i + 1]):
                f0, f1, f2 = 0.0, 0.0, 0.0
                for k in range(3):
                    d = positions[b, k] - positions[a, k]
                    f0 += d * inverse[k, 0]
                    f1 += d * inverse[k, 1]
                    f2 += d * inverse[k, 2]
                f0 -= np.rint(f0)
                f1 -= np.rint(f1)
                f2 -= np.rint(f2)
                for h in range(-1, 2):
                    for k in range(-1, 2):
                        for m in range(-1, 2):
                            if a == b and h == 0 and k == 0 and m == 0:
                                continue
                            p, q, r = f0 + h, f1 + k, f2 + m
                            x = p * reduced[0, 0] + q * reduced[1, 0] + r * reduced[2, 0]
                            y = p * reduced[0, 1] + q * reduced[1, 1] + r * reduced[2, 1]
                            z = p * reduced[0, 2] + q * reduced[1, 2] + r * reduced[2, 2]
                            nearest = min(nearest, x * x + y * y + z * z)
            total += (0.5 * np.sqrt(nearest)) ** 3
        out[i] = total


def packing(batch: Any, *, dtype: Any = np.float64) -> np.ndarray:
    """Return density and packing features of each structure.

    Parameters
    ----------
    batch
        Batch, ASE Atoms or pymatgen Structures, periodic in three directions.
    dtype
        float64 or float32.

    Returns
    -------
    numpy.ndarray
        [N, 4]: density in g/cm^3, volume per atom in Å^3, packing fraction of spheres with Slater's atomic radii (NaN
        if one is not known), and the packing efficiency of the largest spheres that do not leave their Voronoi cells.

    Raises
    ------
    KernelInputError
        If a structure is unfit or has no full cell; ``index`` names it.

    Notes
    -----
    matminer's ``DensityFeatures`` and ``MaximumPackingEfficiency`` (L. Ward et al., Phys. Rev. B 96, 024104 (2017)).
    The nearest face of a Voronoi cell is half way to the nearest site, so no tessellation is needed.
    """
    batch = as_batch(batch)
    check_batch(batch)
    dtype = check_dtype(dtype)
    volumes = batch.volumes
    flat = np.flatnonzero(~(volumes > 0))
    if flat.size:
        raise KernelInputError("has no three-dimensional cell", int(flat[0]))
    out = np.empty((len(batch), 4))
    if len(batch) == 0:
        return out.astype(dtype)
    spheres = np.empty(len(batch))
    _spheres(batch.positions, batch.cell, batch.ptr, spheres)
    start = batch.ptr[:-1]
    out[:, 0] = np.add.reduceat(atomic_masses()[batch.numbers], start) / volumes * _DALTON
    out[:, 1] = volumes / batch.n_sites
    cubes = np.add.reduceat(atomic_radii()[batch.numbers] ** 3, start)
    out[:, 2] = 4.0 / 3.0 * np.pi * cubes / volumes
    out[:, 3] = 4.0 / 3.0 * np.pi * spheres / volumes
    return out.astype(dtype, copy=False)


def labels(**_: Any) -> list[str]:
    """Return the names of the four columns (matminer's)."""
    return ["density", "vpa", "packing fraction", "max packing efficiency"]
