from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from matcompute_kernels import KernelInputError, feature_labels, prdf, rdf


def test_peer(peer_cases):
    n = 0
    for name, atoms, case, expected in peer_cases("matminer_rdf.npz", "prdf"):
        row = prdf(atoms, **case["keywords"])[0]
        np.testing.assert_allclose(row, expected, rtol=1e-9, err_msg=name)
        assert feature_labels("prdf", **case["keywords"])[::7] == case["labels"]
        n += 1
    assert n == 4


def test_invariances(crystal, rotated, supercell):
    species = ["Na", "Cl", "O", "H"]
    row = prdf(crystal, species, 9.0, 0.25)[0]
    for other in (rotated(crystal), supercell(crystal), crystal[[4, 0, 3, 1, 2]]):
        np.testing.assert_allclose(prdf(other, species, 9.0, 0.25)[0], row, rtol=1e-10)
    np.testing.assert_array_equal(prdf(crystal, [1, 8, 17, 11], 9.0, 0.25)[0], row)


def test_sums_to_the_whole(crystal):
    """Na-Na and 2 Na-Cl and so on, weighted by the atoms, are all the neighbours."""
    blocks = prdf(crystal, ["Na", "Cl", "O"], 7.0, 0.5)[0].reshape(6, -1)
    count = {"Na": 2, "Cl": 1, "O": 2}
    weights = [2, 2 * 2, 2 * 2, 1, 2 * 1, 2]  # Na-Na Na-Cl Na-O Cl-Cl Cl-O O-O, both directions
    assert sum(count.values()) == 5
    whole = rdf(crystal, 7.0, 0.5)[0] * 5 / crystal.cell.volume
    np.testing.assert_allclose(np.array(weights) @ blocks, whole, rtol=1e-10)


def test_bad_input(crystal, bad_structures):
    for structures in bad_structures.values():
        with pytest.raises(KernelInputError, match="structure 1"):
            prdf(structures, ["Na", "Cl", "O"])
    with pytest.raises(KernelInputError, match="structure 0: element O"):
        prdf(crystal, ["Na", "Cl"])
    with pytest.raises(KernelInputError):
        prdf(Atoms("O"), ["O"], 0.0)
