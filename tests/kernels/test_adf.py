from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from matcompute_kernels import KernelInputError, adf, feature_labels, neighbor_list
from matcompute_kernels.descriptors import adf as module

SPECIES = ["O", "Na", "Cl"]


def test_against_a_plain_histogram(crystal):
    pairs = neighbor_list(crystal, 3.9)
    angles = []
    for i in range(len(crystal)):
        v = pairs.vector[pairs.i == i] / pairs.distance[pairs.i == i, None]
        j, k = np.triu_indices(len(v), 1)
        angles.append(np.degrees(np.arccos(np.clip((v[j] * v[k]).sum(axis=1), -1, 1))))
    counts = np.histogram(np.concatenate(angles) + 1e-6, bins=36, range=(0, 180 + 1e-5))[0]
    np.testing.assert_array_equal(adf(crystal, 3.9, 36, normalization="none")[0], counts)
    density = adf(crystal, 3.9, 36)[0]
    assert density.sum() * 5.0 == pytest.approx(1.0)
    np.testing.assert_allclose(density, counts / counts.sum() / 5.0)
    np.testing.assert_allclose(adf(crystal, 3.9, 36, normalization="per_atom")[0], counts / 5)


def test_face_centred_cubic():
    """12 neighbours: 24 angles of 60°, 12 of 90°, 24 of 120°, 6 of 180°, all on edges of bins."""
    counts = adf(bulk("Al", "fcc", a=4.05), 3.5, 180, normalization="none")[0]
    assert {int(k): int(counts[k]) for k in np.flatnonzero(counts)} == {60: 24, 90: 12, 120: 24, 179: 6}


def test_invariances(crystal, rotated, supercell, monkeypatch):
    setting = {"r_cut": 3.9, "n_bins": 30, "species": SPECIES, "normalization": "none"}
    row = adf(crystal, **setting)[0]
    np.testing.assert_array_equal(adf(rotated(crystal), **setting)[0], row)
    np.testing.assert_array_equal(adf(supercell(crystal), **setting)[0], 6 * row)
    whole = adf(crystal, 3.9, 30, normalization="none")[0]
    np.testing.assert_array_equal(row.reshape(-1, 30).sum(axis=0), whole)
    monkeypatch.setattr(module, "MAX_PAIRS", 40)
    np.testing.assert_array_equal(adf([crystal, crystal], **setting), [row, row])
    names = feature_labels("adf", **setting)
    assert len(names) == len(row)
    assert names[30] == "adf O-O-Na [0 - 6]"


def test_bad_input(crystal, bad_structures):
    for structures in bad_structures.values():
        with pytest.raises(KernelInputError, match="structure 1"):
            adf(structures, 3.0)
    for wrong in ({"r_cut": 0}, {"n_bins": 0}, {"normalization": "l2"}, {"species": ["O"]}, {"dtype": int}):
        with pytest.raises(KernelInputError):
            adf(crystal, **{"r_cut": 3.0} | wrong)
