from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute_kernels import Batch, KernelInputError, neighbor_list
from matcompute_kernels.cuda import neighbor_list as on_device
from matcompute_kernels.cuda.cells import make_grid
from matcompute_kernels.cuda.neighbors import chosen_method, device_pairs, put_sites
from matcompute_kernels.neighbors import NeighborList

from .structures import quiet_cutoff, solid


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
    pairs = device_pairs(centres, 4.1, device, first=2700, last=2706, shifts=True)
    expected = neighbor_list(batch, 4.1, sites=(2700, 2706))
    assert (device.get(pairs.ptr) == expected.ptr).all()
    assert np.abs(np.sort(device.get(pairs.distance)) - np.sort(expected.distance)).max() < 1e-10


@pytest.fixture(scope="module")
def large():
    """Structures that bins pay for, closed and open, one of them long and thin; an atom alone; a few small ones."""
    rng = np.random.default_rng(33)
    kinds = [(700, True), (600, (True, False, True)), (500, (False, True, False)), (400, False)]
    items = [solid(rng, n, 2, pbc) for n, pbc in kinds]
    items[2].positions += [3.0, -70.0, 50.0]
    items.insert(1, Atoms("H"))
    items += [solid(rng, n, 1, True) for n in (1, 2, 33)]
    rod = Atoms("C60", np.outer(np.arange(60) * 2.5, [0.6, 0.8, 0.0]), cell=[0, 0, 6], pbc=[0, 0, 1])
    return Batch.from_atoms([*items, rod])


@pytest.mark.parametrize(("dtype", "tolerance"), [("f8", 1e-10), ("f4", 1e-5)])
def test_cell_lists_equal_the_cpu(emulator, way, large, dtype, tolerance):
    device = emulator(*way)
    r_cut = quiet_cutoff(large, 2.9)
    got = on_device(large, r_cut, dtype=dtype, device=device)
    assert "find_near" in device.launched
    assert "find_pairs" not in device.launched
    check(got, neighbor_list(large, r_cut), tolerance)


def test_cell_lists_of_small_cells(emulator, mixed):
    """Cutoffs beyond the cell: bins are then whole cells, and images take part."""
    device = emulator("shuffled")
    skewed = bulk("Cu", "fcc", a=3.61, cubic=True)
    skewed.set_cell(np.array([[1, 0, 0], [3, 1, 0], [-2, 4, 1]]) @ skewed.cell.array)
    batch = Batch.concatenate([mixed, Batch.from_atoms([skewed, bulk("Al")])])
    check(on_device(batch, 5.5, method="cells", device=device), neighbor_list(batch, 5.5), 1e-10)
    assert len(on_device(Batch.empty(), 5.0, method="cells", device=device)) == 0


def test_the_method_is_chosen_by_the_candidates(large, mixed):
    assert chosen_method(large, 2.9) == "cells"
    assert chosen_method(large, 60.0) == "brute"  # every atom is near every other
    assert chosen_method(mixed, 5.0) == chosen_method(Batch.empty(), 5.0) == "brute"
    with pytest.raises(KernelInputError, match="method must be one of auto, brute, cells, not 'tree'"):
        chosen_method(mixed, 5.0, "tree")
    grid = make_grid(large, 2.9)
    bins = grid.numbers[:, :3].prod(axis=1)
    assert (bins <= large.n_sites).all()
    assert (np.diff(grid.first) == bins).all()


def test_order_within_a_site_is_the_same_in_every_run(emulator, large):
    first = on_device(large, 2.9, device=emulator("forward"))
    second = on_device(large, 2.9, device=emulator("shuffled", seed=5))
    for name in ("ptr", "j", "shift", "distance", "vector"):
        assert (getattr(first, name) == getattr(second, name)).all()


def test_chunks_give_the_same(emulator, large):
    whole = on_device(large, 2.9, device=emulator())
    cut = on_device(large, 2.9, device=emulator(free=2_000_000))
    for name in ("ptr", "j", "shift", "distance", "vector"):
        assert (getattr(whole, name) == getattr(cut, name)).all()


def test_bad_input(emulator):
    device = emulator()
    with pytest.raises(KernelInputError, match="r_cut"):
        on_device(bulk("Al"), -1.0, device=device)
    flat = bulk("Al")
    flat.set_cell([[1, 0, 0], [2, 0, 0], [0, 0, 1]])
    with pytest.raises(KernelInputError, match="structure 1: singular"):
        on_device([bulk("Al"), flat], 5.0, device=device)
