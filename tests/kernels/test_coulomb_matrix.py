from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from matcompute_kernels import KernelInputError, coulomb_matrix, feature_labels


def test_reference(reference, reference_atoms):
    expected = np.load(reference / "dscribe_matrices.npz")
    for k, atoms in enumerate(reference_atoms):
        rows = coulomb_matrix(atoms, permutation="none")
        np.testing.assert_allclose(rows[0].reshape(len(atoms), -1), expected[f"coulomb{k}"], rtol=1e-12)


def test_peer(peer_cases):
    for _, atoms, case, expected in peer_cases("dscribe_other.npz", "coulomb_matrix"):
        np.testing.assert_allclose(
            coulomb_matrix(atoms, **case["keywords"])[0], expected, rtol=1e-10, atol=1e-12
        )


def test_order_and_padding(crystal):
    small = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
    plain = coulomb_matrix([crystal, small], permutation="none")
    assert plain.shape == (2, 25)
    matrix = plain[1].reshape(5, 5)
    np.testing.assert_allclose(matrix[:2, :2], [[0.5, 1 / 0.74], [1 / 0.74, 0.5]])
    assert (matrix[2:] == 0).all()
    order = [4, 2, 0, 3, 1]
    for permutation in ("sorted_l2", "eigenspectrum"):
        a = coulomb_matrix(crystal, 7, permutation)
        np.testing.assert_allclose(coulomb_matrix(crystal[order], 7, permutation), a, rtol=1e-12, atol=1e-12)
        assert len(feature_labels("coulomb_matrix", n_atoms_max=7, permutation=permutation)) == a.shape[1]
    values = coulomb_matrix(crystal, permutation="eigenspectrum")[0]
    assert (np.diff(np.abs(values)) <= 0).all()
    assert coulomb_matrix(crystal, dtype="float32").dtype == np.float32


def test_bad_input(crystal, bad_structures):
    for name in ("nan", "no atoms"):
        with pytest.raises(KernelInputError, match="structure 1"):
            coulomb_matrix(bad_structures[name])
    twice = Atoms("H2", [[0, 0, 0], [0, 0, 0]])
    for permutation in ("none", "eigenspectrum"):
        with pytest.raises(KernelInputError, match="structure 1: two atoms"):
            coulomb_matrix([crystal, twice], permutation=permutation)
    with pytest.raises(KernelInputError, match="structure 0: 5 atoms"):
        coulomb_matrix(crystal, 4)
    with pytest.raises(KernelInputError, match="permutation"):
        coulomb_matrix(crystal, permutation="random")
