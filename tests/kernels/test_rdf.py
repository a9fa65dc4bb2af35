from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute_kernels import Batch, KernelInputError, feature_labels, rdf
from matcompute_kernels.descriptors import pair_histogram


def test_peer(peer_cases):
    n = 0
    for name, atoms, case, expected in peer_cases("matminer_rdf.npz", "rdf"):
        np.testing.assert_allclose(rdf(atoms, **case["keywords"])[0], expected, rtol=1e-9, err_msg=name)
        n += 1
    assert n == 4


def test_invariances(crystal, rotated, supercell):
    row = rdf(crystal, 9.0, 0.25)[0]
    np.testing.assert_allclose(rdf(rotated(crystal), 9.0, 0.25)[0], row, rtol=1e-10)
    np.testing.assert_allclose(rdf(supercell(crystal), 9.0, 0.25)[0], 6 * row, rtol=1e-10)
    np.testing.assert_allclose(rdf(crystal, 9.0, 0.25, per_atom=True)[0], row / 5, rtol=1e-12)


def test_distance_on_an_edge():
    """Neighbours at 4 Å of a perfect crystal, moved and turned: always in the bin that begins there."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        q, _r = np.linalg.qr(rng.normal(size=(3, 3)))
        atoms = Atoms("Po", positions=rng.normal(size=(1, 3)), cell=4.0 * q, pbc=True)
        counts = rdf(atoms, 5.0, 0.5)[0] > 0
        assert counts.tolist() == [False] * 8 + [True] + [False]


def test_batch_of_parts(crystal, small200, monkeypatch):
    batch = small200[:12]
    rows = rdf(batch, 8.0)
    monkeypatch.setattr(pair_histogram, "MAX_PAIRS", 500)
    np.testing.assert_array_equal(rdf(batch, 8.0), rows)
    assert rdf(crystal, dtype="f4").dtype == np.float32


def test_tends_to_one():
    assert rdf(bulk("Al", "fcc", a=4.05), 40.0, 4.0)[0][5:] == pytest.approx(1.0, abs=0.05)


def test_labels_and_bad_input(crystal, bad_structures):
    assert feature_labels("rdf")[1] == "rdf [0.10000 - 0.20000]A"
    assert len(feature_labels("rdf", r_cut=3.3, bin_size=0.7)) == rdf(crystal, 3.3, 0.7).shape[1]
    for structures in bad_structures.values():
        with pytest.raises(KernelInputError, match="structure 1"):
            rdf(structures)
    with pytest.raises(KernelInputError, match="structure 1: no cell volume"):
        rdf(Batch.from_atoms([crystal, Atoms("O2", [[0, 0, 0], [0, 0, 1.2]])]))
    for wrong in ({"r_cut": 0}, {"bin_size": -1}, {"bin_size": 30.0}):
        with pytest.raises(KernelInputError):
            rdf(crystal, **wrong)
