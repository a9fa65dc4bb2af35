"""Bad structures are recognised, whatever the cell."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from matcompute.structures.screening import CAUSES, screen
from matcompute_kernels.batch import Batch


def judge(*atoms: Atoms):
    return screen(Batch.from_atoms(atoms))


def broken(**changes: object) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    for name, value in changes.items():
        getattr(atoms, f"set_{name}")(value)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "cause", "words"),
    [
        (Atoms(cell=[3, 3, 3], pbc=True), "no_atoms", "no atoms"),
        (broken(atomic_numbers=[0, 17]), "unknown_species", "site 1"),
        (broken(cell=np.zeros((3, 3))), "bad_cell", "no lattice"),
        (broken(cell=np.diag([5.0, np.nan, 5.0])), "bad_cell", "not a number"),
        (broken(cell=np.diag([5.0, np.inf, 5.0])), "bad_cell", "not a number"),
        (broken(cell=np.diag([5.0, 0.0, 5.0])), "bad_cell", "vector 2"),
        (broken(cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0]]), "bad_cell", "plane"),
        (broken(positions=[[0, 0, 0], [np.nan, 0, 0]]), "bad_positions", "site 2"),
        (broken(positions=[[0, 0, 0], [0.3, 0, 0]]), "overlap", "0.300 Å"),
        (broken(positions=[[0, 0, 0], [0, 0, 0]]), "overlap", "0.000 Å"),
        (Atoms("Na", cell=[0.7, 4, 4], pbc=True), "overlap", "next cell"),
    ],
)
def test_causes(atoms: Atoms, cause: str, words: str) -> None:
    good = bulk("Cu")
    verdict = judge(good, atoms, good)
    assert verdict.good.tolist() == [True, False, True]
    assert verdict.cause(1) == cause
    assert words in verdict.reason(1)
    assert cause in CAUSES


def test_overlap_through_the_cell_wall() -> None:
    atoms = Atoms("Cu2", positions=[[0.05, 0, 0], [7.9, 0, 0]], cell=[8, 8, 8], pbc=True)
    verdict = judge(atoms)
    assert verdict.cause(0) == "overlap"
    assert verdict.distance[0] == pytest.approx(0.15)
    atoms.pbc = False
    assert judge(atoms).good.all()


def test_real_crystals_pass() -> None:
    crystals = [bulk(s) for s in ("H", "C", "Cu", "Cs", "W")[1:]] + [bulk("GaAs", "zincblende", a=5.65)]
    assert judge(*crystals).good.all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 90),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    skew=st.floats(0, 0.9),
)
def test_closest_pair_equals_ase(seed: int, n: int, pbc: tuple[bool, bool, bool], skew: float) -> None:
    """The verdict and the pair against ASE's neighbour list: any cell, any number of atoms, positions outside too."""
    rng = np.random.default_rng(seed)
    length = (n * 14.0) ** (1 / 3)
    cell = length * (np.eye(3) + skew * np.tril(rng.uniform(-1, 1, (3, 3)), -1))
    atoms = Atoms(rng.choice([6, 29, 55], n), cell=cell, pbc=pbc)
    atoms.set_scaled_positions(rng.uniform(-1.5, 1.5, (n, 3)))
    verdict = judge(atoms)
    radii = covalent_radii[atoms.numbers]
    i, j, d = neighbor_list("ijd", atoms, 2.5)
    ratio = d / (radii[i] + radii[j])
    assert bool(verdict.good[0]) == (len(ratio) == 0 or ratio.min() >= 0.5)
    if not verdict.good[0]:
        assert verdict.ratio[0] == pytest.approx(ratio.min(), abs=1e-9)
