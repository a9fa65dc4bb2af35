from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute_kernels import KernelInputError, feature_labels, valle_oganov


def test_reference(reference, reference_atoms):
    expected = np.load(reference / "dscribe_valleoganov.npz")
    for k, atoms in enumerate(reference_atoms):
        row = valle_oganov(atoms, sorted(set(atoms.numbers.tolist())), n=100, sigma=0.05, r_cut=8.0)[0]
        np.testing.assert_allclose(
            row, expected[f"s{k}"], rtol=1e-9, atol=1e-11 * np.abs(expected[f"s{k}"]).max()
        )


def test_peer(peer_cases):
    for _, atoms, case, expected in peer_cases("dscribe_other.npz", "valle_oganov"):
        row = valle_oganov(atoms, **case["keywords"])[0]
        np.testing.assert_allclose(row, expected, rtol=1e-8, atol=1e-7 * expected.max())


@pytest.mark.parametrize(("function", "sigma"), [("distance", 0.1), ("angle", 5.0)])
def test_invariances(crystal, rotated, supercell, function, sigma):
    setting = {"species": ["O", "Na", "Cl"], "function": function, "n": 50, "sigma": sigma, "r_cut": 4.5}
    row = valle_oganov(crystal, **setting)[0]
    large = valle_oganov(supercell(crystal), **setting)[0]
    # The pair normalization takes the cell out; that of the triplets leaves 1/n (V n / n³ · n).
    factor = 1.0 if function == "distance" else 1.0 / 6.0
    np.testing.assert_allclose(large, factor * row, rtol=1e-8, atol=1e-10 * row.max())
    np.testing.assert_allclose(
        valle_oganov(rotated(crystal), **setting)[0], row, rtol=1e-8, atol=1e-10 * row.max()
    )
    assert len(feature_labels("valle_oganov", **setting)) == len(row)


def test_tends_to_the_density():
    """Sum over B of the fingerprint of an element tends to 1 at large distance."""
    row = valle_oganov(bulk("Al", "fcc", a=4.05), ["Al"], n=100, sigma=1.0, r_cut=30.0)[0]
    assert row[50:80] == pytest.approx(1.0, abs=0.02)


def test_bad_input(crystal, bad_structures):
    species = ["O", "Na", "Cl"]
    for structures in bad_structures.values():
        with pytest.raises(KernelInputError, match="structure 1"):
            valle_oganov(structures, species)
    with pytest.raises(KernelInputError, match="structure 0: the Valle-Oganov"):
        valle_oganov(Atoms("O"), species)
    for wrong in ({"function": "bond"}, {"n": 1}, {"sigma": 0}, {"r_cut": -1}):
        with pytest.raises(KernelInputError):
            valle_oganov(crystal, species, **wrong)
