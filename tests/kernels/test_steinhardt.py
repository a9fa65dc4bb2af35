from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.special import sph_harm_y

from matcompute_kernels import KernelInputError, feature_labels, neighbor_list, steinhardt
from matcompute_kernels.descriptors import steinhardt as module


@pytest.mark.parametrize(
    ("atoms", "r_cut", "expected"),
    [
        # Mickel et al., J. Chem. Phys. 138, 044501 (2013), and the paper itself.
        (bulk("Al", "fcc", a=4.0), 3.4, [0.19094, 0.57452, -0.159317, -0.013161]),
        (bulk("Mg", "hcp", a=3.0, c=3.0 * np.sqrt(8 / 3)), 3.6, [0.09722, 0.48476, 0.134097, -0.012442]),
        (bulk("Fe", "bcc", a=2.0), 2.2, [0.03637, 0.51069, 0.159317, 0.013161]),
        (bulk("Po", "sc", a=2.0), 2.2, [0.76376, 0.35355, 0.159317, 0.013161]),
    ],
)
def test_known_crystals(atoms, r_cut, expected):
    np.testing.assert_allclose(steinhardt(atoms, r_cut)[0], expected, atol=6e-6)
    np.testing.assert_allclose(steinhardt(atoms, r_cut, average=True)[0, :1], expected[:1], atol=0.1)


@pytest.mark.parametrize("degree", [0, 1, 2, 4, 7, 12, 30])
def test_against_scipy(crystal, degree):
    pairs = neighbor_list(crystal, 4.4)
    theta = np.arccos(pairs.vector[:, 2] / pairs.distance)
    phi = np.arctan2(pairs.vector[:, 1], pairs.vector[:, 0])
    m = np.arange(-degree, degree + 1)
    y = sph_harm_y(degree, m, theta[:, None], phi[:, None])
    q = np.zeros((5, 2 * degree + 1), complex)
    np.add.at(q, pairs.i, y)
    q /= pairs.counts[:, None]
    averaged = q.copy()
    np.add.at(averaged, pairs.i, q[pairs.j])
    averaged /= pairs.counts[:, None] + 1
    m1, m2, three_j = module._three_j(degree)
    for values, average in ((q, False), (averaged, True)):
        norm = (np.abs(values) ** 2).sum(axis=1)
        w = (three_j * values[:, m1 + degree] * values[:, m2 + degree] * values[:, degree - m1 - m2]).sum(
            axis=1
        )
        rows = steinhardt(crystal, 4.4, degree, average=average)
        np.testing.assert_allclose(
            rows[:, 0], np.sqrt(4 * np.pi / (2 * degree + 1) * norm), rtol=1e-11, atol=1e-14
        )
        np.testing.assert_allclose(rows[:, 1], w.real / norm**1.5, rtol=1e-9, atol=1e-12)
        raw = steinhardt(crystal, 4.4, degree, average=average, normalize_w=False)
        np.testing.assert_allclose(raw[:, 1], w.real, rtol=1e-9, atol=1e-14)


def test_three_j_is_normalized():
    for degree in (0, 1, 5, 30):
        assert (module._three_j(degree)[2] ** 2).sum() == pytest.approx(1.0, rel=1e-13)
    m1, m2, value = module._three_j(2)
    symbol = {(a, b): v for a, b, v in zip(m1.tolist(), m2.tolist(), value.tolist())}
    assert symbol[0, 0] == pytest.approx(-np.sqrt(2 / 35))
    assert symbol[2, -2] == pytest.approx(np.sqrt(2 / 35))


def test_invariances(crystal, rotated, supercell, monkeypatch):
    rows = steinhardt(crystal, 4.4, (2, 4, 6), average=True)
    np.testing.assert_allclose(steinhardt(rotated(crystal), 4.4, (2, 4, 6), average=True), rows, rtol=1e-9)
    order = [3, 1, 4, 0, 2]
    np.testing.assert_allclose(
        steinhardt(crystal[order], 4.4, (2, 4, 6), average=True), rows[order], rtol=1e-9
    )
    large = supercell(crystal)
    big = steinhardt(large, 4.4, (2, 4, 6), average=True)
    np.testing.assert_allclose(big[large.numbers == 17], np.tile(rows[1], (6, 1)), rtol=1e-9)
    monkeypatch.setattr(module, "MAX_PAIRS", 30)
    np.testing.assert_array_equal(steinhardt(crystal, 4.4, (2, 4, 6), average=True), rows)


def test_columns(crystal):
    both = steinhardt(crystal, 4.0, [6, 4, 6])
    assert feature_labels("steinhardt", l=[6, 4, 6]) == ["q6", "q4", "q6", "w6", "w4", "w6"]
    np.testing.assert_array_equal(both[:, 0], both[:, 2])
    np.testing.assert_array_equal(both[:, 3], both[:, 5])
    np.testing.assert_array_equal(steinhardt(crystal, 4.0, [6, 4, 6], w=False), both[:, :3])
    assert (steinhardt(Atoms("O"), 3.0) == 0).all()
    assert steinhardt(crystal, 3.0, dtype="float32").dtype == np.float32


def test_bad_input(crystal, bad_structures):
    for structures in bad_structures.values():
        with pytest.raises(KernelInputError, match="structure 1"):
            steinhardt(structures, 3.0)
    for wrong in ({"r_cut": -1.0}, {"l": 31}, {"l": [-1]}, {"l": []}, {"l": [2.5]}):
        with pytest.raises(KernelInputError):
            steinhardt(crystal, **{"r_cut": 3.0} | wrong)
