"""Random structures, and comparisons with the CPU, that the tests of the CUDA kernels share."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from matcompute_kernels import Batch, neighbor_list
from matcompute_kernels.neighbors import NeighborList

Z = [1, 3, 8, 11, 13, 17, 26, 29]


def solid(rng: np.random.Generator, n: int, species: int, pbc: object, spacing: float = 2.2) -> Atoms:
    """Return a skewed block of n places of a jittered lattice, with vacancies."""
    side = int(np.ceil((1.2 * n) ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3)
    places = grid[rng.choice(len(grid), n, replace=False)] + rng.uniform(-0.12, 0.12, (n, 3))
    shape = np.eye(3) + np.tril(rng.uniform(-0.3, 0.3, (3, 3)), -1)
    numbers = rng.permutation(np.resize(rng.choice(Z, species, replace=False), n))
    return Atoms(numbers, spacing * places @ shape, cell=spacing * side * shape, pbc=pbc)


def quiet_cutoff(batch: Batch, r_cut: float) -> float:
    """Return a cutoff near ``r_cut`` that no distance is close to: float32 cannot decide otherwise there."""
    distance = np.sort(neighbor_list(batch, r_cut + 0.05).distance)
    distance = np.concatenate([[r_cut], distance[distance > r_cut], [r_cut + 0.05]])
    widest = int(np.argmax(np.diff(distance)))
    assert distance[widest + 1] - distance[widest] > 4e-5
    return float(distance[widest : widest + 2].mean())


def same_pairs(got: NeighborList, expected: NeighborList, bound: float) -> None:
    """Check two lists whose neighbours of a site may come in another order."""
    orders = [np.lexsort((*p.shift.T, p.j, p.i)) for p in (got, expected)]
    a, b = orders
    assert (got.ptr == expected.ptr).all()
    assert (got.j[a] == expected.j[b]).all()
    assert (got.shift[a] == expected.shift[b]).all()
    assert np.abs(got.distance[a] - expected.distance[b]).max(initial=0) < bound
    assert np.abs(got.vector[a] - expected.vector[b]).max(initial=0) < bound


def near(got: np.ndarray, expected: np.ndarray, bound: float) -> None:
    assert got.shape == expected.shape
    assert expected.any()
    assert np.abs(got - expected).max() < bound * max(1.0, np.abs(expected).max())
