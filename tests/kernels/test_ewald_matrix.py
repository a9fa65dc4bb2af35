from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute_kernels import KernelInputError, ewald_matrix, feature_labels


def energy(atoms: Atoms, **keywords: float) -> float:
    matrix = ewald_matrix(atoms, permutation="none", **keywords)[0].reshape(len(atoms), -1)
    return float(np.triu(matrix).sum())


def test_reference(reference, reference_atoms):
    expected = np.load(reference / "dscribe_matrices.npz")
    for k, atoms in enumerate(reference_atoms):
        for name, accuracy in (("ewald", 1e-5), ("ewald_tight", 1e-12)):
            rows = ewald_matrix(atoms, permutation="none", accuracy=accuracy)
            np.testing.assert_allclose(
                rows[0].reshape(len(atoms), -1), expected[f"{name}{k}"], rtol=1e-9, atol=1e-10
            )


def test_peer(peer_cases):
    n = 0
    for _, atoms, case, expected in peer_cases("dscribe_other.npz", "ewald_matrix"):
        np.testing.assert_allclose(ewald_matrix(atoms, **case["keywords"])[0], expected, rtol=1e-9, atol=1e-9)
        n += 1
    assert n == 12


def test_energy_does_not_depend_on_the_screening(crystal, rotated, supercell):
    exact = energy(crystal, accuracy=1e-15)
    for w in (0.3, 5.0):
        assert energy(crystal, accuracy=1e-15, w=w) == pytest.approx(exact, rel=1e-12)
    assert energy(rotated(crystal), accuracy=1e-15) == pytest.approx(exact, rel=1e-12)
    assert energy(supercell(crystal), accuracy=1e-15) == pytest.approx(6 * exact, rel=1e-12)
    values = ewald_matrix(crystal, permutation="eigenspectrum")
    np.testing.assert_allclose(
        ewald_matrix(crystal[[4, 2, 0, 3, 1]], permutation="eigenspectrum"), values, rtol=1e-10
    )


def test_wigner_crystal():
    """Point charges on a body-centred cubic lattice in a background: -0.895929255682 per charge and Å radius."""
    atoms = bulk("H", "bcc", a=1.0)
    radius = (3.0 / (4.0 * np.pi * 2.0)) ** (1 / 3)
    assert energy(atoms, accuracy=1e-15) * radius == pytest.approx(-0.895929255682, rel=1e-11)


def test_bad_input(crystal, bad_structures):
    for structures in bad_structures.values():
        with pytest.raises(KernelInputError, match="structure 1"):
            ewald_matrix(structures)
    for wrong in ({"accuracy": 0.0}, {"accuracy": 2.0}, {"r_cut": 3.0}, {"a": -1.0}, {"w": 0}):
        with pytest.raises(KernelInputError):
            ewald_matrix(crystal, **wrong)
    assert (
        feature_labels("ewald_matrix", n_atoms_max=2, permutation="eigenspectrum")[1] == "ewald eigenvalue 1"
    )
