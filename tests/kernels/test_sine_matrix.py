from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from matcompute_kernels import KernelInputError, feature_labels, sine_matrix


def test_reference(reference, reference_atoms):
    expected = np.load(reference / "dscribe_matrices.npz")
    for k, atoms in enumerate(reference_atoms):
        rows = sine_matrix(atoms, permutation="none")
        np.testing.assert_allclose(rows[0].reshape(len(atoms), -1), expected[f"sine{k}"], rtol=1e-10)
        values = sine_matrix(atoms, permutation="eigenspectrum")[0]
        np.testing.assert_allclose(values, expected[f"sine_eig{k}"], rtol=1e-10, atol=1e-9)


def test_peer(peer_cases):
    for _, atoms, case, expected in peer_cases("dscribe_other.npz", "sine_matrix"):
        np.testing.assert_allclose(sine_matrix(atoms, **case["keywords"])[0], expected, rtol=1e-9, atol=1e-11)


def test_invariances(crystal, rotated):
    values = sine_matrix(crystal, permutation="eigenspectrum")
    wrapped = crystal.copy()
    wrapped.positions[1] += crystal.cell.array[0] - 2 * crystal.cell.array[2]
    for other in (rotated(crystal), crystal[[4, 2, 0, 3, 1]], wrapped):
        np.testing.assert_allclose(sine_matrix(other, permutation="eigenspectrum"), values, rtol=1e-10)
    crystal.pbc = False
    np.testing.assert_allclose(sine_matrix(crystal, permutation="eigenspectrum"), values, rtol=1e-12)
    assert len(feature_labels("sine_matrix", n_atoms_max=5)) == 25


def test_bad_input(crystal, bad_structures):
    for structures in bad_structures.values():
        with pytest.raises(KernelInputError, match="structure 1"):
            sine_matrix(structures)
    image = Atoms("H2", [[0, 0, 0], [0, 0, 3.0]], cell=[3, 3, 3], pbc=True)
    with pytest.raises(KernelInputError, match="structure 0: two atoms"):
        sine_matrix(image)
    with pytest.raises(KernelInputError, match="singular"):
        sine_matrix(Atoms("H"))
