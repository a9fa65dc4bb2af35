from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from matcompute_kernels import KernelInputError, soap, soap_derivatives
from matcompute_kernels.descriptors.soap import CONVENTIONS
from matcompute_kernels.descriptors.soap_gradient import harmonics_gradient
from matcompute_kernels.harmonics import recurrence

STEP = 1e-4


def difference(function, scale: float = STEP) -> np.ndarray:
    """Central difference of fourth order at 0."""
    return (8 * (function(scale) - function(-scale)) - (function(2 * scale) - function(-2 * scale))) / (
        12 * scale
    )


def crystal(pbc: bool | list[bool] = True) -> Atoms:
    rng = np.random.default_rng(8)
    atoms = bulk("ZnS", "wurtzite", a=3.3, c=5.0)
    atoms.set_cell(atoms.cell.array + rng.normal(0, 0.15, (3, 3)), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.1, (4, 3))
    atoms.pbc = pbc
    return atoms


OPTIONS = {"species": ["S", "Zn", "O"], "r_cut": 3.1, "n_max": 3, "l_max": 3, "sigma": 0.4}
CASES = [
    *({"convention": convention} for convention in CONVENTIONS),
    {"convention": "featomic-gto", "smoothing": 0.6, "scaling": {"scale": 2.0, "rate": 1.0, "exponent": 4}},
    {"weighting": {"function": "poly", "c": 1.0, "m": 2, "r0": 4.2}},
    {"weighting": {"function": "pow", "c": 1.0, "d": 1.0, "m": 3, "r0": 2.0, "w0": 0.5}},
    {"weighting": {"function": "exp", "c": 1.0, "d": 1.0, "r0": 2.0}},
    {"compression": "mu1nu1"},
    {"compression": "mu2"},
    {"compression": {"mode": "crossover", "species_weighting": {"S": 2.0, "Zn": 0.5, "O": 1.0}}},
]


def agrees(got: np.ndarray, expected: np.ndarray, scale: float) -> bool:
    return bool(np.abs(got - expected).max() < 2e-7 * scale)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_finite_differences(case):
    atoms, options = crystal(), {**OPTIONS, **case}
    result = soap_derivatives(atoms, **options)
    scale = max(np.abs(a).max() for a in (result.positions, result.strain, result.cell))
    n = len(atoms)
    dense = np.zeros((n, n, 3, result.positions.shape[2]))
    for i in range(n):
        rows = slice(result.ptr[i], result.ptr[i + 1])
        assert result.site[rows][0] == i
        dense[i, result.site[rows]] = result.positions[rows]
    for a in range(n):
        for k in range(3):

            def moved(step: float, a: int = a, k: int = k) -> np.ndarray:
                copy = atoms.copy()
                copy.positions[a, k] += step
                return soap(copy, **options)

            assert agrees(dense[:, a, k], difference(moved), scale)
    for g in range(3):
        for k in range(3):

            def strained(step: float, g: int = g, k: int = k) -> np.ndarray:
                strain = np.eye(3)
                strain[g, k] += step
                copy = atoms.copy()
                copy.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                return soap(copy, **options)

            def stretched(step: float, g: int = g, k: int = k) -> np.ndarray:
                cell = atoms.cell.array.copy()
                cell[g, k] += step
                copy = atoms.copy()
                copy.set_cell(cell, scale_atoms=False)
                return soap(copy, **options)

            assert agrees(result.strain[:, g, k], difference(strained), scale)
            assert agrees(result.cell[:, g, k], difference(stretched), scale)


@pytest.mark.parametrize("pbc", [False, [True, False, True]])
def test_open_directions(pbc):
    atoms = crystal(pbc)
    result = soap_derivatives(atoms, **OPTIONS, wrt=["positions"])
    assert result.strain is None
    assert result.cell is None

    def moved(step: float) -> np.ndarray:
        copy = atoms.copy()
        copy.positions[2, 1] += step
        return soap(copy, **OPTIONS)

    expected = difference(moved)
    for i in range(len(atoms)):
        rows = slice(result.ptr[i], result.ptr[i + 1])
        got = np.zeros_like(expected[i])
        for site, row in zip(result.site[rows], result.positions[rows]):
            if site == 2:
                got = row[1]
        assert agrees(got, expected[i], np.abs(result.positions).max())


def test_a_shift_of_everything_changes_nothing_and_batches_agree():
    items = [crystal(), molecule("H2O"), crystal([True, True, False])]
    options = {**OPTIONS, "species": [1, 8, 16, 30]}
    whole = soap_derivatives(items, **options)
    begin = 0
    for atoms in items:
        one = soap_derivatives(atoms, **options)
        sites = slice(begin, begin + len(atoms))
        rows = slice(whole.ptr[begin], whole.ptr[begin + len(atoms)])
        assert (whole.positions[rows] == one.positions).all()
        assert (whole.site[rows] - begin == one.site).all()
        assert (whole.strain[sites] == one.strain).all()
        assert (whole.cell[sites] == one.cell).all()
        begin += len(atoms)
    sums = np.add.reduceat(whole.positions, whole.ptr[:-1], axis=0)
    assert np.abs(sums).max() < 1e-12 * np.abs(whole.positions).max()


def test_harmonics_gradient():
    rng = np.random.default_rng(2)
    vector = rng.normal(size=3)
    r = np.linalg.norm(vector)
    value, slope = np.zeros(81), np.zeros((3, 81))

    def at(step: float, k: int) -> np.ndarray:
        moved = vector.copy()
        moved[k] += step
        out = np.zeros(81)
        harmonics_gradient(8, *(moved / np.linalg.norm(moved)), recurrence(8), out, np.zeros((3, 81)))
        return out

    harmonics_gradient(8, *(vector / r), recurrence(8), value, slope)
    for k in range(3):
        assert np.abs(slope[k] / r - difference(lambda step, k=k: at(step, k))).max() < 1e-9


def test_bad_choice():
    with pytest.raises(KernelInputError, match="wrt"):
        soap_derivatives(crystal(), **OPTIONS, wrt=["forces"])
