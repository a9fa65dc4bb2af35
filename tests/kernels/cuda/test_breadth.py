"""Every kernel against its Numba kernel on the reference structures and on random ones of many sizes."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from matcompute_kernels import Batch, acsf, fps, kernel_matrix, knn, mbtr, neighbor_list, rdf, soap
from matcompute_kernels import cuda as gpu
from matcompute_kernels.cuda.neighbors import device_pairs, put_sites
from matcompute_kernels.neighbors import NeighborList

from .structures import near, quiet_cutoff, same_pairs, solid

#: Atoms: around the limits of warps and blocks.
SIZES = (1, 2, 3, 7, 8, 9, 31, 33, 63, 65, 127, 128, 129)
G2, G4, G5 = [[0.4, 2.0]], [[0.05, 2.5, 0.5]], [[0.01, 2, 1]]


@pytest.fixture(scope="module")
def sizes() -> Batch:
    """1 to 129 atoms, 1 to 8 species, closed and open directions; two structures of atoms with no neighbour."""
    rng = np.random.default_rng(31)
    kinds = [True, (True, True, False), (False, True, False), False]
    items = [solid(rng, n, min(n, 1 + k % 8), kinds[k % 4]) for k, n in enumerate(SIZES)]
    items.insert(3, Atoms("H", cell=[15.0] * 3, pbc=True))
    items.append(Atoms("LiO", [[0, 0, 0], [0, 0, 9]]))
    return Batch.from_atoms(items)


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


@pytest.fixture(scope="module")
def large() -> Batch:
    """3,000 atoms in a crystal, 500 of eight elements in a cluster, an atom alone."""
    rng = np.random.default_rng(32)
    return Batch.from_atoms([solid(rng, 3000, 2, True), Atoms("H"), solid(rng, 500, 8, False)])


def test_three_thousand_atoms(emulator, few_ways, large):
    """All descriptors of large structures; also with brute force, for some centres over the edges of structures."""
    device, r_cut = emulator(*few_ways), 2.6
    same_pairs(gpu.neighbor_list(large, r_cut, device=device), neighbor_list(large, r_cut), 1e-10)
    species = sorted(set(large.numbers.tolist()))
    near(gpu.acsf(large, species, r_cut, G2, device=device), acsf(large, species, r_cut, G2), 1e-10)
    got = gpu.soap(large, species, 1.6, 2, 1, 0.25, average="outer", device=device)
    near(got, soap(large, species, 1.6, 2, 1, 0.25, average="outer"), 1e-10)
    crystal = large[:1]
    near(gpu.rdf(crystal, r_cut, 0.1, device=device), rdf(crystal, r_cut, 0.1), 1e-10)
    grid, weights = (
        {"min": 1, "max": 2.6, "sigma": 0.05, "n": 30},
        {"function": "inverse_square", "r_cut": r_cut},
    )
    got = gpu.mbtr(large, species, "distance", grid, weights, sparse=True, device=device)
    expected = mbtr(large, species, "distance", grid, weights, sparse=True)
    near(got.values / expected.values.max(), expected.values / expected.values.max(), 1e-10)
    assert "find_pairs" not in device.launched
    assert "count_pairs" not in device.launched
    sites = put_sites(large, np.dtype("f8"), device, r_cut, "brute")
    first, last = 2999, 3002
    pairs = device_pairs(sites, r_cut, device, first=first, last=last, shifts=True)
    expected = neighbor_list(large, r_cut, sites=(first, last))
    fields = [device.get(getattr(pairs, name)) for name in ("ptr", "j", "shift", "distance", "vector")]
    same_pairs(NeighborList(*fields, r_cut, first=first), expected, 1e-10)
    assert len(expected)
