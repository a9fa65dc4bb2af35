"""Every kernel against its Numba kernel on the reference structures and on random ones of many sizes."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from matcompute_kernels import Batch, acsf, fps, kernel_matrix, knn, neighbor_list, rdf, soap
from matcompute_kernels import cuda as gpu
from matcompute_kernels.cuda.neighbors import device_pairs, put_sites
from matcompute_kernels.neighbors import NeighborList

Z = [1, 3, 8, 11, 13, 17, 26, 29]
#: Atoms: around the limits of warps and blocks.
SIZES = (1, 2, 3, 7, 8, 9, 31, 33, 63, 65, 127, 128, 129)
G2, G4, G5 = [[0.4, 2.0]], [[0.05, 2.5, 0.5]], [[0.01, 2, 1]]


def solid(rng: np.random.Generator, n: int, species: int, pbc: object, spacing: float = 2.2) -> Atoms:
    """Return a skewed block of n places of a jittered lattice, with vacancies."""
    side = int(np.ceil((1.2 * n) ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3)
    places = grid[rng.choice(len(grid), n, replace=False)] + rng.uniform(-0.12, 0.12, (n, 3))
    shape = np.eye(3) + np.tril(rng.uniform(-0.3, 0.3, (3, 3)), -1)
    numbers = rng.permutation(np.resize(rng.choice(Z, species, replace=False), n))
    return Atoms(numbers, spacing * places @ shape, cell=spacing * side * shape, pbc=pbc)


@pytest.fixture(scope="module")
def sizes() -> Batch:
    """1 to 129 atoms, 1 to 8 species, closed and open directions; two structures of atoms with no neighbour."""
    rng = np.random.default_rng(31)
    kinds = [True, (True, True, False), (False, True, False), False]
    items = [solid(rng, n, min(n, 1 + k % 8), kinds[k % 4]) for k, n in enumerate(SIZES)]
    items.insert(3, Atoms("H", cell=[15.0] * 3, pbc=True))
    items.append(Atoms("LiO", [[0, 0, 0], [0, 0, 9]]))
    return Batch.from_atoms(items)


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


def check_all(batch: Batch, r_cut: float, device: object, dtype: str) -> None:
    """Compare all that the device computes of structures."""
    species = sorted(set(batch.numbers.tolist()))
    options = {"dtype": dtype, "device": device}
    small = 1e-10 if dtype == "f8" else 2e-5
    pairs = neighbor_list(batch, r_cut)
    got = gpu.neighbor_list(batch, r_cut, **options)
    same_pairs(got, pairs, 1e-10 if dtype == "f8" else 1e-5)
    near(
        gpu.acsf(batch, species, r_cut, G2, G4, G5, **options),
        acsf(batch, species, r_cut, G2, None, G4, G5),
        small,
    )
    for average in ("outer", "inner") if dtype == "f8" else ("off",):
        got = gpu.soap(batch, species, r_cut - 1.0, 2, 2, 0.3, average=average, **options)
        near(got, soap(batch, species, r_cut - 1.0, 2, 2, 0.3, average=average), small)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_odd_sizes(emulator, way, sizes, dtype):
    r_cut, device = quiet_cutoff(sizes, 3.1), emulator(*way)
    bound = 1e-10 if dtype == "f8" else 1e-5
    same_pairs(
        gpu.neighbor_list(sizes, r_cut, dtype=dtype, device=device), neighbor_list(sizes, r_cut), bound
    )
    some = Batch.from_atoms([a for a in sizes.iter_atoms() if len(a) < 32])
    assert {1, 2, 3, 8} <= {len(set(a.numbers.tolist())) for a in sizes.iter_atoms()}
    check_all(some, r_cut, device, dtype)


def test_rdf_of_odd_sizes(emulator, way, sizes):
    crystals = Batch.from_atoms([a for a in sizes.iter_atoms() if a.cell.volume > 0])
    near(gpu.rdf(crystals, 4.0, 0.1, device=emulator(*way)), rdf(crystals, 4.0, 0.1), 1e-10)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_reference_structures(emulator, way, structures5, dtype):
    if not len(structures5):
        pytest.skip("the reference data is not beside the clone")
    check_all(structures5, quiet_cutoff(structures5, 3.0), emulator(*way), dtype)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_rows_of_the_reference_structures(emulator, way, structures5, dtype):
    if not len(structures5):
        pytest.skip("the reference data is not beside the clone")
    species = sorted(set(structures5.numbers.tolist()))
    x = acsf(structures5, species, 5.0, [[0.05, 1.0], [0.4, 2.0]])[:, :: 3 if dtype == "f8" else 1]
    x = np.unique(x.round(3), axis=0)[::-1].astype(dtype)  # equivalent atoms would leave a choice to rounding
    wide, device = x.astype("f8"), emulator(*way)
    bound = 1e-10 if dtype == "f8" else 2e-6
    for kernel in ("linear", "polynomial", "laplacian", "rbf"):
        got = gpu.kernel_matrix(x[:17], x[17:], kernel, device=device)
        assert got.dtype == np.dtype(dtype)
        near(got, kernel_matrix(wide[:17], wide[17:], kernel), bound)
    for metric in ("euclidean", "manhattan"):
        distances, rows = gpu.knn(x, 5, metric=metric, device=device)
        expected, _ = knn(wide, 5, metric=metric)
        near(distances, expected, 10 * bound)
        assert (rows != np.arange(len(x))[:, None]).all()
    picks = gpu.fps(x, 20, device=device)
    assert picks.tolist() == fps(x, 20).tolist()


def test_three_thousand_atoms(emulator, way):
    rng = np.random.default_rng(32)
    batch = Batch.from_atoms([solid(rng, 3000, 2, True), Atoms("H"), solid(rng, 1000, 3, False)])
    device, r_cut = emulator(*way), 2.8
    sites = put_sites(batch, np.dtype("f8"), device, r_cut)
    for first, last in ((2999, 3002), (3500, 3503)):  # over the edges of structures, some with no neighbour
        pairs = device_pairs(sites, r_cut, device, first=first, last=last)
        expected = neighbor_list(batch, r_cut, sites=(first, last))
        fields = [device.get(getattr(pairs, name)) for name in ("ptr", "j", "shift", "distance", "vector")]
        same_pairs(NeighborList(*fields, r_cut, first=first), expected, 1e-10)
        assert len(expected)
