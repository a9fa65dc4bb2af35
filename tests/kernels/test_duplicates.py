"""Duplicate groups against pymatgen's StructureMatcher."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.optimize import linear_sum_assignment

from matcompute_kernels import Batch, KernelInputError, duplicate_groups
from matcompute_kernels.screening.lattice import lll, niggli
from matcompute_kernels.screening.match import assign

PROTOTYPES = [
    bulk("NaCl", "rocksalt", 5.6),
    bulk("CsCl", "cesiumchloride", 4.1),
    bulk("NaCl", "rocksalt", 5.6, cubic=True),
    bulk("Si", "diamond", 5.43),
    bulk("Fe", "bcc", 2.87, cubic=True),
    bulk("Cu", "fcc", 3.6, cubic=True),
    bulk("Ti", "hcp", 2.95, c=4.68),
    bulk("ZnO", "wurtzite", 3.25, c=5.2),
    bulk("CaF2", "fluorite", 5.46),
]


def variants(atoms: Atoms, rng: np.random.Generator, n: int) -> list[Atoms]:
    """The same crystal described otherwise, and distorted a little or more."""
    out = []
    for _ in range(n):
        a = atoms.copy()
        kind = rng.integers(0, 6)
        if kind == 0:
            a = a * tuple(rng.permutation([1, 1, 2]))
        elif kind == 1:
            a = a[rng.permutation(len(a))]
        elif kind == 2:
            unimodular = np.eye(3)
            i, j = rng.permutation(3)[:2]
            unimodular[i, j] = rng.integers(-2, 3)
            a.set_cell(unimodular @ a.cell.array)
        elif kind == 3:
            a.set_cell(a.cell.array * rng.uniform(0.9, 1.1), scale_atoms=True)
        a.rattle(rng.choice([0, 0.02, 0.1, 0.25, 0.4, 0.6]), seed=int(rng.integers(1 << 30)))
        strain = np.eye(3) + rng.normal(size=(3, 3)) * rng.choice([0, 0.01, 0.05, 0.08])
        a.set_cell(a.cell.array @ strain, scale_atoms=True)
        a.translate(rng.uniform(0, 5, 3))
        a.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
        out.append(a)
    return out


def peer_groups(batch: Batch, **tolerances: float) -> list[list[int]]:
    structures = list(batch.iter_structures())
    number = {id(s): k for k, s in enumerate(structures)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        groups = StructureMatcher(**tolerances).group_structures(structures)
    return sorted(sorted(number[id(s)] for s in group) for group in groups)


def as_lists(groups: list[np.ndarray]) -> list[list[int]]:
    return [group.tolist() for group in groups]


@pytest.mark.parametrize("seed", range(6))
def test_same_groups_as_structure_matcher(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(PROTOTYPES), 5, replace=False)
    batch = Batch.from_atoms([v for i in chosen for v in variants(PROTOTYPES[i], rng, 7)])
    assert as_lists(duplicate_groups(batch)) == peer_groups(batch)


def test_same_groups_on_crystals(small200: Batch) -> None:
    assert as_lists(duplicate_groups(small200)) == peer_groups(small200)
    rng = np.random.default_rng(1)
    few = [small200.to_atoms(i) for i in range(0, 200, 25) if small200.n_sites[i] <= 24]
    batch = Batch.from_atoms([v for atoms in few for v in variants(atoms, rng, 4)])
    assert as_lists(duplicate_groups(batch)) == peer_groups(batch)


@pytest.mark.parametrize(
    "options",
    [
        {"ltol": 0.05, "stol": 0.1, "angle_tol": 2},
        {"ltol": 0.3, "stol": 0.5, "angle_tol": 10},
        {"scale": False},
        {"primitive_cell": False},
    ],
)
def test_other_tolerances(options: dict) -> None:
    rng = np.random.default_rng(3)
    batch = Batch.from_atoms([v for atoms in PROTOTYPES[:4] for v in variants(atoms, rng, 6)])
    assert as_lists(duplicate_groups(batch, **options)) == peer_groups(batch, **options)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_exact_copies_are_found(seed: int) -> None:
    """Random triclinic crystals; supercells, other bases, other orders, turned and moved."""
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * rng.uniform(3, 6, 3) + rng.normal(size=(3, 3)) * 0.7
    if np.linalg.det(cell) < 20:
        return
    atoms = Atoms(rng.choice(["Na", "Cl"], 5), rng.uniform(size=(5, 3)) @ cell, cell=cell, pbc=True)
    if np.min(atoms.get_all_distances(mic=True) + 9 * np.eye(5)) < 1.0:
        return
    other = atoms[rng.permutation(5)]
    other.set_cell(np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ cell)
    turned = atoms.copy()
    turned.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
    turned.translate(rng.normal(size=3))
    mirrored = atoms.copy()
    mirrored.set_cell(mirrored.cell.array * [1, 1, -1], scale_atoms=False)
    mirrored.positions *= [1, 1, -1]
    assert len(duplicate_groups([atoms, atoms * (1, 2, 1), other, turned, mirrored])) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_assignment_is_optimal(seed: int, n: int) -> None:
    cost = np.random.default_rng(seed).uniform(size=(n, n))
    column = assign(cost)
    assert sorted(column) == list(range(n))
    rows, best = linear_sum_assignment(cost)
    assert cost[np.arange(n), column].sum() == pytest.approx(cost[rows, best].sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_reduced_bases_span_the_same_lattice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) * 4
    if abs(np.linalg.det(cell)) < 5:
        return
    for reduced in (lll(cell), niggli(cell)):
        change = reduced @ np.linalg.inv(cell)
        np.testing.assert_allclose(change, np.rint(change), atol=1e-8)
        assert abs(np.linalg.det(change)) == pytest.approx(1)
    a, b, c = np.linalg.norm(niggli(cell), axis=1)
    assert a <= b + 1e-3 <= c + 2e-3


def test_bad_input() -> None:
    iron = bulk("Fe")
    broken = iron.copy()
    broken.positions[0] = np.inf
    with pytest.raises(KernelInputError, match="structure 1"):
        duplicate_groups([iron, broken])
    with pytest.raises(KernelInputError) as error:
        duplicate_groups([iron, iron, molecule("H2O")])
    assert error.value.index == 2
    with pytest.raises(KernelInputError, match="stol"):
        duplicate_groups([iron], stol=0)
    assert duplicate_groups([]) == []
