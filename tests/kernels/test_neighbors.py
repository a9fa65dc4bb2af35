from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from matcompute_kernels import Batch, KernelInputError, neighbor_list
from matcompute_kernels.cell_list import BRUTE_FORCE
from matcompute_kernels.neighbors import NeighborList, expected_pairs, site_chunks

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "kernels"


def brute_force(atoms: Atoms, r_cut: float) -> np.ndarray:
    """All (i, j, shift) within r_cut by testing every image of a box that is large enough."""
    cell, pbc = atoms.cell.array, atoms.pbc
    fractional = np.zeros((len(atoms), 3))
    reach = np.zeros(3, int)
    if pbc.any():
        complete = atoms.cell.complete().array
        inverse = np.linalg.inv(complete)
        fractional = atoms.positions @ inverse
        spread = np.ptp(fractional, axis=0)
        # Only periodic vectors count: heights of the parallelepiped they span.
        for k in range(3):
            if pbc[k]:
                others = [cell[m] for m in range(3) if pbc[m] and m != k]
                height = cell[k].copy()
                basis = np.linalg.qr(np.array(others).T)[0].T if others else []
                for b in basis:
                    height -= (height @ b) * b
                reach[k] = int(np.ceil(r_cut / np.linalg.norm(height) + spread[k] * 1.0001)) + 1
        if not pbc.all():
            reach = np.where(pbc, reach + 2 * int(np.ceil(np.abs(spread).max())), 0)
    rows = []
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        offset = np.array(shift) @ np.where(pbc[:, None], cell, 0.0)
        d = np.linalg.norm(atoms.positions[None] + offset - atoms.positions[:, None], axis=2)
        for i, j in np.argwhere(d < r_cut):
            if i != j or any(shift):
                rows.append((i, j, *shift))
    return sort_rows(np.array(rows, dtype=int).reshape(-1, 5))


def sort_rows(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T[::-1])]


def rows_of(pairs: NeighborList) -> np.ndarray:
    return sort_rows(np.column_stack([pairs.i, pairs.j, pairs.shift]).astype(int).reshape(-1, 5))


def check_geometry(atoms: Atoms, pairs: NeighborList) -> None:
    vector = atoms.positions[pairs.j] - atoms.positions[pairs.i] + pairs.shift @ atoms.cell.array
    assert np.allclose(vector, pairs.vector, rtol=0, atol=1e-10 * max(1.0, np.abs(atoms.positions).max()))
    assert np.allclose(np.linalg.norm(pairs.vector, axis=1), pairs.distance, rtol=1e-14, atol=0)
    assert (pairs.distance < pairs.r_cut).all()
    assert (np.diff(pairs.i) >= 0).all()


vectors = st.lists(st.floats(-4, 4), min_size=9, max_size=9)


@settings(max_examples=120, deadline=None)
@given(
    cell=vectors,
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    n=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    r_cut=st.floats(0.3, 5.0),
    spread=st.sampled_from([1.0, 3.0]),
)
def test_random_triclinic(cell, pbc, n, seed, r_cut, spread):
    rng = np.random.default_rng(seed)
    matrix = np.array(cell).reshape(3, 3) + 1.5 * np.eye(3)
    if abs(np.linalg.det(matrix)) < 4.0:
        matrix = matrix + 6 * np.eye(3)
    if abs(np.linalg.det(matrix)) < 4.0:
        return
    atoms = Atoms("H" * n, scaled_positions=(rng.random((n, 3)) - 0.4) * spread, cell=matrix, pbc=pbc)
    pairs = neighbor_list(atoms, r_cut)
    check_geometry(atoms, pairs)
    expected = brute_force(atoms, r_cut)
    got = rows_of(pairs)
    if got.shape != expected.shape:  # a pair exactly at the cutoff may fall on either side
        d = pairs.distance
        assert min(np.abs(d - r_cut).min(initial=1.0), 1.0) < 1e-9
    else:
        assert (got == expected).all()


@pytest.mark.parametrize("pbc", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("size", [1, 5])
def test_mixed_periodicity_and_binning(pbc, size):
    rng = np.random.default_rng(3)
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat(size)
    atoms.pbc = pbc
    atoms.positions += rng.normal(0, 0.1, (len(atoms), 3))
    pairs = neighbor_list(atoms, 4.1)
    check_geometry(atoms, pairs)
    from ase.neighborlist import neighbor_list as ase_list

    i, j, shift = ase_list("ijS", atoms, 4.1)
    assert (rows_of(pairs) == sort_rows(np.column_stack([i, j, shift]))).all()
    if size == 5:
        assert len(atoms) > 100
        assert len(pairs) > BRUTE_FORCE


def test_cutoff_beyond_the_cell():
    atoms = bulk("Al", "fcc", a=4.05)
    pairs = neighbor_list(atoms, 25.0)
    from ase.neighborlist import neighbor_list as ase_list

    i, j, shift = ase_list("ijS", atoms, 25.0)
    assert (rows_of(pairs) == sort_rows(np.column_stack([i, j, shift]))).all()


def test_skewed_cell_is_the_same_crystal():
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True)
    skewed = atoms.copy()
    skewed.set_cell(np.array([[1, 0, 0], [23, 1, 0], [-17, 31, 1]]) @ atoms.cell.array)
    a, b = neighbor_list(atoms, 6.0), neighbor_list(skewed, 6.0)
    check_geometry(skewed, b)
    assert np.allclose(np.sort(a.distance), np.sort(b.distance), atol=1e-10)


def test_supercell_and_rotation_keep_distances():
    rng = np.random.default_rng(1)
    atoms = bulk("ZnS", "wurtzite", a=3.8, c=6.2)
    atoms.positions += rng.normal(0, 0.2, (len(atoms), 3))
    large = make_supercell(atoms, [[2, 1, 0], [0, 3, 1], [0, 0, 2]])
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    reference = np.sort(neighbor_list(atoms, 5.5).distance)
    assert np.allclose(np.sort(neighbor_list(turned, 5.5).distance), reference, atol=1e-12)
    ratio = len(large) // len(atoms)
    assert np.allclose(np.sort(neighbor_list(large, 5.5).distance), np.repeat(reference, ratio), atol=1e-12)


def test_half_list_is_half_of_the_full():
    rng = np.random.default_rng(5)
    for atoms in (bulk("Al"), bulk("NaCl", "rocksalt", a=5.64) * (2, 3, 2), molecule("C6H6")):
        atoms.positions += rng.normal(0, 0.05, (len(atoms), 3))
        full, half = rows_of(neighbor_list(atoms, 6.0)), rows_of(neighbor_list(atoms, 6.0, full=False))
        mirrored = np.column_stack([half[:, 1], half[:, 0], -half[:, 2:]])
        assert (sort_rows(np.concatenate([half, mirrored])) == full).all()


def test_isolated_atoms_and_far_positions():
    assert len(neighbor_list(Atoms("H"), 5.0)) == 0
    assert len(neighbor_list(Atoms("H2", positions=[[0, 0, 0], [1e6, 0, 0]]), 5.0)) == 0
    spread = Atoms("H400", positions=np.random.default_rng(0).random((400, 3)) * 1e5)
    assert len(neighbor_list(spread, 5.0)) == len(brute_force(spread, 5.0))
    line = Atoms("H", cell=[[0, 0, 0], [0.0, 1.1, 0.3], [0, 0, 0]], pbc=[False, True, False])
    assert neighbor_list(line, 4.0).counts.tolist() == [6]
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    moved = atoms.copy()
    moved.positions[1] += 1000 * atoms.cell[0] - 700 * atoms.cell[2]
    a, b = neighbor_list(atoms, 5.0), neighbor_list(moved, 5.0)
    assert np.allclose(np.sort(a.distance), np.sort(b.distance), atol=1e-9)
    check_geometry(moved, b)


def test_batch_sites_and_chunks_agree():
    rng = np.random.default_rng(2)
    items = [molecule("H2O"), bulk("Al"), bulk("Si") * (3, 3, 3), Atoms("He"), bulk("Fe") * (2, 2, 2)]
    for atoms in items:
        atoms.positions += rng.normal(0, 0.1, (len(atoms), 3))
    batch = Batch.from_atoms(items)
    whole = neighbor_list(batch, 5.0)
    for k, atoms in enumerate(items):
        one = neighbor_list(atoms, 5.0)
        begin, end = batch.ptr[k], batch.ptr[k + 1]
        part = slice(whole.ptr[begin], whole.ptr[end])
        assert (whole.j[part] - begin == one.j).all()
        assert (whole.vector[part] == one.vector).all()
    ranges = list(site_chunks(batch, 5.0, 300))
    assert len(ranges) > 3
    assert ranges[0][0] == 0
    assert ranges[-1][1] == batch.ptr[-1]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
    assert all(first < last for first, last in ranges)
    parts = [neighbor_list(batch, 5.0, sites=r) for r in ranges]
    assert (np.concatenate([p.i for p in parts]) == whole.i).all()
    assert (sort_rows(np.concatenate([rows_of(p) for p in parts])) == rows_of(whole)).all()
    alone = neighbor_list(items[2], 5.0, sites=(0, 20))  # cut in the same way, whatever else there is
    begin = int(batch.ptr[2])
    assert (alone.vector == neighbor_list(batch, 5.0, sites=(begin, begin + 20)).vector).all()
    inside = [r for r in ranges if r[0] >= begin and r[1] <= batch.ptr[3]]
    assert [(a - begin, b - begin) for a, b in inside] == list(site_chunks(batch[2], 5.0, 300))


def test_room_grows_when_the_estimate_is_short():
    dense = Atoms("H300", positions=np.random.default_rng(0).random((300, 3)), cell=[50, 50, 50], pbc=True)
    assert len(neighbor_list(dense, 2.0)) == 300 * 299
    assert expected_pairs(Batch.from_atoms([dense]), 2.0)[0] < 300 * 299


def test_within_a_smaller_cutoff():
    atoms = bulk("NaCl", "rocksalt", a=5.64) * 2
    large, small = neighbor_list(atoms, 6.0), neighbor_list(atoms, 4.1)
    assert (rows_of(large.within(4.1)) == rows_of(small)).all()
    assert (large.within(4.1).ptr == small.ptr).all()
    assert large.within(6.0) is large
    with pytest.raises(ValueError, match="neighbors reach"):
        small.within(6.0)


@pytest.mark.parametrize("k", range(5))
def test_reference_of_vesin(k):
    from ase.io import read

    if not REFERENCE.is_dir():
        pytest.skip("reference data is not here")
    atoms = read(REFERENCE / "structures5.extxyz", index=k)
    data = np.load(REFERENCE / "vesin_nl_rc5.npz")
    pairs = neighbor_list(atoms, 5.0)
    expected = np.column_stack([data[f"i{k}"], data[f"j{k}"], data[f"S{k}"]]).astype(int)
    assert (rows_of(pairs) == sort_rows(expected)).all()
    assert np.allclose(np.sort(pairs.distance), np.sort(data[f"d{k}"]), atol=1e-12)


def test_bad_input_names_the_structure():
    good = bulk("Al")
    nan, flat, empty = bulk("Al"), bulk("Al"), Atoms(cell=[3, 3, 3], pbc=True)
    nan.positions[0, 1] = np.nan
    flat.set_cell([[1, 0, 0], [2, 0, 0], [0, 0, 1]])
    for bad, match in ((nan, "not finite"), (flat, "singular"), (empty, "no atoms")):
        with pytest.raises(KernelInputError, match=match) as error:
            neighbor_list([good, good, bad], 5.0)
        assert error.value.index == 2
    for r_cut in (0.0, -1.0, np.nan, np.inf, "5"):
        with pytest.raises(KernelInputError, match="r_cut"):
            neighbor_list(good, r_cut)
    with pytest.raises(KernelInputError) as error:
        neighbor_list([good, 3], 5.0)
    assert error.value.index == 1
