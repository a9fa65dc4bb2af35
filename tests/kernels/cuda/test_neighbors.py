from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute_kernels import Batch, KernelInputError, neighbor_list
from matcompute_kernels.cuda import neighbor_list as on_device
from matcompute_kernels.cuda.neighbors import device_pairs, put_sites
from matcompute_kernels.neighbors import NeighborList


def ordered(pairs: NeighborList) -> tuple[np.ndarray, ...]:
    rows = np.column_stack([pairs.i, pairs.j, pairs.shift]).astype(int)
    order = np.lexsort(rows.T[::-1])
    return rows[order], pairs.distance[order], pairs.vector[order]


def check(got: NeighborList, expected: NeighborList, tolerance: float) -> None:
    a, b = ordered(got), ordered(expected)
    assert a[0].shape == b[0].shape
    assert (a[0] == b[0]).all()
    assert (got.ptr == expected.ptr).all()
    for x, y in zip(a[1:], b[1:]):
        assert np.abs(x - y).max(initial=0) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [("f8", 1e-10), ("f4", 1e-5)])
def test_equals_the_cpu(emulator, way, mixed, structures5, dtype, tolerance):
    device = emulator(*way)
    for batch, r_cut in ((mixed, 5.0), (structures5, 4.3)):
        expected = neighbor_list(batch, r_cut + 1e-4)
        # No pair is so near the cutoff that float32 could decide otherwise.
        assert np.abs(expected.distance - r_cut).min(initial=1.0) > 2e-5
        got = on_device(batch, r_cut, dtype=dtype, device=device)
        assert got.vector.dtype == np.dtype(dtype)
        check(got, neighbor_list(batch, r_cut), tolerance)


def test_odd_sizes_and_no_neighbours(emulator):
    device = emulator("shuffled")
    rng = np.random.default_rng(0)
    for n in (1, 127, 128, 129):
        side = 5.0 * n ** (1 / 3)
        batch = Batch.from_atoms(
            [Atoms(f"H{n}", positions=rng.random((n, 3)) * side, cell=[side] * 3, pbc=True)]
        )
        check(on_device(batch, 2.9, device=device), neighbor_list(batch, 2.9), 1e-10)
    assert len(on_device(Atoms("H"), 5.0, device=device)) == 0
    assert len(on_device(Batch.empty(), 5.0, device=device)) == 0


def test_cutoff_beyond_the_cell_and_skewed_cells(emulator):
    device = emulator("reversed", 64)
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True)
    atoms.rattle(0.1, seed=2)
    skewed = atoms.copy()
    skewed.set_cell(np.array([[1, 0, 0], [3, 1, 0], [-2, 4, 1]]) @ atoms.cell.array)
    check(on_device([atoms, skewed], 9.0, device=device), neighbor_list([atoms, skewed], 9.0), 1e-10)


def test_thousands_of_sites(emulator):
    atoms = bulk("NaCl", "rocksalt", a=5.64) * 14
    atoms.rattle(0.05, seed=3)
    batch = Batch.from_atoms([bulk("Al"), atoms])
    assert len(atoms) > 2700
    device = emulator("shuffled")
    centres = put_sites(batch, np.dtype("f8"), device, 4.1)
    pairs = device_pairs(centres, 4.1, device, first=2700, last=2706)
    expected = neighbor_list(batch, 4.1, sites=(2700, 2706))
    assert (device.get(pairs.ptr) == expected.ptr).all()
    assert np.abs(np.sort(device.get(pairs.distance)) - np.sort(expected.distance)).max() < 1e-10


def test_bad_input(emulator):
    device = emulator()
    with pytest.raises(KernelInputError, match="r_cut"):
        on_device(bulk("Al"), -1.0, device=device)
    flat = bulk("Al")
    flat.set_cell([[1, 0, 0], [2, 0, 0], [0, 0, 1]])
    with pytest.raises(KernelInputError, match="structure 1: singular"):
        on_device([bulk("Al"), flat], 5.0, device=device)
