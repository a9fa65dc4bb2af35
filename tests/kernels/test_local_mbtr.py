from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from matcompute_kernels import Batch, KernelInputError, feature_labels, local_mbtr, mbtr
from matcompute_kernels.descriptors import local_mbtr as module

SPECIES = ["O", "Na", "Cl"]
WEIGHTING = {"function": "exp", "r_cut": 5, "threshold": 1e-3}
K2 = {
    "geometry": "distance",
    "grid": {"min": 0, "max": 6, "n": 40, "sigma": 0.1},
    "weighting": WEIGHTING,
}
K3 = {
    "geometry": "cosine",
    "grid": {"min": -1, "max": 1, "n": 40, "sigma": 0.05},
    "weighting": WEIGHTING,
}


def test_peer(peer_cases):
    n = 0
    for name, atoms, case, expected in peer_cases("dscribe_other.npz", "local_mbtr"):
        rows = local_mbtr(atoms, **case["keywords"])
        angle = case["keywords"]["geometry"]["function"] == "angle"
        tolerance = (1e-7 if angle else 1e-10) * np.abs(expected).max()
        np.testing.assert_allclose(rows, expected, rtol=1e-9, atol=tolerance, err_msg=f"{name} {case}")
        n += 1
    assert n > 15


@pytest.mark.parametrize("setting", [K2, K3], ids=["k2", "k3"])
def test_invariances(crystal, rotated, supercell, setting):
    rows = local_mbtr(crystal, SPECIES, **setting)
    tolerance = {"rtol": 1e-8, "atol": 1e-10 * rows.max()}
    np.testing.assert_allclose(local_mbtr(rotated(crystal), SPECIES, **setting), rows, **tolerance)
    order = [3, 1, 4, 0, 2]
    np.testing.assert_allclose(local_mbtr(crystal[order], SPECIES, **setting), rows[order], **tolerance)
    large = supercell(crystal)
    total = local_mbtr(large, SPECIES, **setting)[large.numbers == 11].sum(axis=0)
    np.testing.assert_allclose(total, 6 * rows[crystal.numbers == 11].sum(axis=0), rtol=1e-8, atol=1e-9)


def test_sums_to_the_global_one(crystal):
    """Every pair is seen from both ends, every angle from its middle atom."""
    pairs = local_mbtr(crystal, SPECIES, **K2).reshape(5, 4, 40)
    whole = mbtr(crystal, SPECIES, **K2)[0].reshape(6, 40)
    oxygen, sodium = crystal.numbers == 8, crystal.numbers == 11
    np.testing.assert_allclose(pairs[oxygen, 2].sum(axis=0), whole[1], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(pairs[sodium, 2].sum(axis=0), 2 * whole[3], rtol=1e-9, atol=1e-10)
    angles = local_mbtr(crystal, SPECIES, **K3).reshape(5, 22, 40)
    whole = mbtr(crystal, SPECIES, **K3)[0].reshape(3, 6, 40)
    # Block O-X-Na of the sodium atoms is O-Na-Na of the whole.
    np.testing.assert_allclose(angles[sodium, 4 + 1].sum(axis=0), whole[1, 1], rtol=1e-9, atol=1e-10)


def test_batch_of_parts(crystal, rotated, monkeypatch):
    batch = Batch.from_atoms([crystal, rotated(crystal), crystal[[0]]])
    for setting in (K2, K3):
        rows = local_mbtr(batch, SPECIES, **setting)
        monkeypatch.setattr(module, "MAX_PAIRS", 100)
        np.testing.assert_allclose(local_mbtr(batch, SPECIES, **setting), rows, rtol=1e-12)
        monkeypatch.undo()
        single = local_mbtr(batch, SPECIES, **setting, dtype="float32")
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, rows, rtol=1e-6, atol=1e-6)
    unit = local_mbtr(batch, SPECIES, **K2, normalization="l2")
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0)


@pytest.mark.parametrize(
    ("geometry", "weighting"),
    [
        ("distance", {"function": "inverse_square", "r_cut": 5}),
        ("angle", {"function": "smooth_cutoff", "r_cut": 4}),
    ],
)
def test_other_weightings(crystal, geometry, weighting):
    grid = {
        "min": 0,
        "max": 180 if geometry == "angle" else 6,
        "n": 30,
        "sigma": 6 if geometry == "angle" else 0.2,
    }
    rows = local_mbtr(crystal, SPECIES, geometry, grid, weighting)
    whole = mbtr(crystal, SPECIES, geometry, grid, weighting)[0]
    if geometry == "distance":
        assert rows.sum() == pytest.approx(2 * whole.sum(), rel=1e-9)
    else:
        middle = rows.reshape(5, 22, 30)[:, :10].sum()
        assert middle == pytest.approx(whole.sum(), rel=1e-9)
        assert rows.reshape(5, 22, 30)[:, 10:].sum() == pytest.approx(2 * whole.sum(), rel=1e-6)


def test_labels():
    assert feature_labels("local_mbtr", species=SPECIES, **K2)[40] == "X-O distance=0"
    names = feature_labels("local_mbtr", species=SPECIES, **K3)
    assert names[40] == "X-X-O cosine=-1"
    assert names[10 * 40] == "X-O-X cosine=-1"
    assert len(names) == 22 * 40
    assert len(set(names)) == len(names)


def test_bad_input(crystal, bad_structures):
    for structures in bad_structures.values():
        with pytest.raises(KernelInputError, match="structure 1"):
            local_mbtr(structures, SPECIES, **K2)
    with pytest.raises(KernelInputError, match="structure 0: a periodic"):
        local_mbtr(crystal, SPECIES, **K2 | {"weighting": None})
    for wrong in ({"geometry": "atomic_number"}, {"normalization": "n_atoms"}):
        with pytest.raises(KernelInputError):
            local_mbtr(crystal, SPECIES, **K2 | wrong)
    with pytest.raises(KernelInputError, match="central atom"):
        local_mbtr(Atoms("O"), ["X", "O"], **K2)
