from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from matcompute_kernels import Batch, KernelInputError, feature_labels, mbtr
from matcompute_kernels.descriptors import mbtr as module

SPECIES = ["O", "Na", "Cl"]
K2 = {
    "geometry": "inverse_distance",
    "grid": {"min": 0, "max": 1, "n": 100, "sigma": 0.02},
    "weighting": {"function": "exp", "r_cut": 8, "threshold": 1e-3},
}
K3 = {
    "geometry": "cosine",
    "grid": {"min": -1, "max": 1, "n": 100, "sigma": 0.05},
    "weighting": {"function": "exp", "r_cut": 6, "threshold": 1e-3},
}
ANGLE = {
    "geometry": "angle",
    "grid": {"min": 0, "max": 180, "n": 40, "sigma": 6},
    "weighting": {"function": "smooth_cutoff", "r_cut": 3.7},
}


def close(actual: np.ndarray, expected: np.ndarray, rtol: float = 1e-10) -> None:
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize(("file", "setting"), [("dscribe_mbtr_k2", K2), ("dscribe_mbtr_k3", K3)])
def test_reference(reference, reference_atoms, file, setting):
    expected = np.load(reference / f"{file}.npz")
    for k, atoms in enumerate(reference_atoms):
        close(mbtr(atoms, sorted(set(atoms.numbers.tolist())), **setting)[0], expected[f"s{k}"])


def test_peer(peer_cases):
    n = 0
    for name, atoms, case, expected in peer_cases("dscribe_other.npz", "mbtr"):
        row = mbtr(atoms, **case["keywords"])[0]
        # Collinear atoms: the arccos of a rounded 1 is good to 1e-8.
        angle = case["keywords"]["geometry"]["function"] == "angle"
        tolerance = (1e-7 if angle else 1e-10) * np.abs(expected).max()
        np.testing.assert_allclose(row, expected, rtol=1e-9, atol=tolerance, err_msg=f"{name} {case}")
        n += 1
    assert n == 70


@pytest.mark.parametrize("setting", [K2, K3, ANGLE], ids=["k2", "k3", "angle"])
def test_invariances(crystal, rotated, supercell, setting):
    row = mbtr(crystal, SPECIES, **setting)[0]
    tolerance = 1e-10
    for other, times in ((rotated(crystal), 1), (crystal[[3, 1, 4, 0, 2]], 1), (supercell(crystal), 6)):
        np.testing.assert_allclose(
            mbtr(other, SPECIES, **setting)[0], times * row, rtol=1e-8, atol=tolerance * row.max() * times
        )
    # A row of more elements has the same spectra among zeros.
    wide = mbtr(crystal, ["Cl", "H", "Na", "O"], **setting)[0]
    assert np.sort(wide[wide != 0]) == pytest.approx(np.sort(row[row != 0]))


@pytest.mark.parametrize("setting", [K2, K3], ids=["k2", "k3"])
def test_batch_of_parts(crystal, rotated, monkeypatch, setting):
    batch = Batch.from_atoms([crystal, rotated(crystal), crystal[[0]], crystal[[1, 2]]])
    rows = mbtr(batch, SPECIES, **setting)
    for k in range(len(batch)):
        close(rows[k], mbtr(batch[k], SPECIES, **setting)[0])
    monkeypatch.setattr(module, "MAX_PAIRS", 200)
    close(mbtr(batch, SPECIES, **setting), rows)
    single = mbtr(batch, SPECIES, **setting, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, mbtr(batch, SPECIES, **setting).astype(np.float32))


def test_normalization(crystal):
    row = mbtr(crystal, SPECIES, **K2)[0]
    close(mbtr(crystal, SPECIES, **K2, normalization="l2")[0], row / np.linalg.norm(row))
    close(mbtr(crystal, SPECIES, **K2, normalization="n_atoms")[0], row / 5)
    height = np.sqrt(2 * np.pi) * K2["grid"]["sigma"]
    close(mbtr(crystal, SPECIES, **K2, normalize_gaussians=False)[0], row * height)
    assert (mbtr(Atoms("O"), SPECIES, **K2, normalization="l2") == 0).all()


def test_unity_needs_a_finite_structure(crystal):
    grid = {"min": 0, "max": 8, "n": 20, "sigma": 0.1}
    with pytest.raises(KernelInputError, match="structure 0: a periodic structure"):
        mbtr(crystal, SPECIES, "distance", grid)
    row = mbtr(crystal, SPECIES, "distance", grid, periodic=False)[0]
    assert row.sum() * 8 / 19 == pytest.approx(10, rel=1e-6)  # ten pairs
    k1 = mbtr(crystal, SPECIES, "atomic_number", {"min": 0, "max": 30, "n": 61, "sigma": 0.5})[0]
    assert (k1.reshape(3, 61).sum(axis=1) * 0.5) == pytest.approx([2, 2, 1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_any_cell_as_supercell(seed, triplets):
    rng = np.random.default_rng(seed)
    cell = rng.uniform(2.0, 5.0, 3)[:, None] * (np.eye(3) + rng.uniform(-0.35, 0.35, (3, 3)))
    atoms = Atoms(["Na", "Cl"], positions=[[0, 0, 0], 0.5 * cell.sum(axis=0)], cell=cell, pbc=True)
    setting = (
        {**K3, "weighting": {"function": "exp", "r_cut": 4, "threshold": 1e-3}}
        if triplets
        else {**K2, "weighting": {"function": "exp", "r_cut": 5.5, "threshold": 1e-3}}
    )
    row = mbtr(atoms, ["Na", "Cl"], **setting)[0]
    double = mbtr(atoms.repeat((1, 1, 2)), ["Na", "Cl"], **setting)[0]
    np.testing.assert_allclose(double, 2 * row, rtol=1e-8, atol=1e-10 * max(row.max(), 1e-3))


def test_labels(crystal):
    for setting, first, last in (
        (K2, "O-O inverse_distance=0", "Cl-Cl inverse_distance=1"),
        (K3, "O-O-O cosine=-1", "Cl-Cl-Cl cosine=1"),
        ({**K2, "geometry": "atomic_number"}, "O atomic_number=0", "Cl atomic_number=1"),
    ):
        names = feature_labels("mbtr", species=SPECIES, **setting)
        assert (names[0], names[-1]) == (first, last)
        assert len(set(names)) == len(names)
    row = mbtr(Atoms("NaCl", [[0, 0, 0], [0, 0, 2.0]]), SPECIES, **K2)[0]
    assert feature_labels("mbtr", species=SPECIES, **K2)[row.argmax()].startswith(
        "Na-Cl inverse_distance=0.49"
    )


def test_bad_input(crystal, bad_structures):
    for structures in bad_structures.values():
        with pytest.raises(KernelInputError, match="structure 1"):
            mbtr(structures, SPECIES, **K2)
    with pytest.raises(KernelInputError, match="structure 1: element"):
        mbtr([crystal, Atoms("Fe")], SPECIES, **K2)
    with pytest.raises(KernelInputError, match="structure 1: the Valle-Oganov"):
        mbtr([crystal, Atoms("O")], SPECIES, **K2, normalization="valle_oganov")
    for wrong in (
        {"geometry": "bond"},
        {"grid": {"min": 0, "max": 1, "n": 100}},
        {"grid": {"min": 1, "max": 0, "n": 100, "sigma": 0.1}},
        {"grid": {"min": 0, "max": 1, "n": 1, "sigma": 0.1}},
        {"grid": {"min": 0, "max": 1, "n": 10, "sigma": 0.0}},
        {"grid": None},
        {"weighting": {"function": "smooth_cutoff", "r_cut": 3}},
        {"weighting": {"function": "exp", "threshold": 1e-3}},
        {"weighting": {"function": "exp", "threshold": 2, "r_cut": 3}},
        {"weighting": {"function": "exp", "threshold": 1e-3, "r_cut": -3}},
        {"weighting": {"function": "inverse_square"}},
        {"normalization": "l1"},
        {"dtype": "f2"},
    ):
        with pytest.raises(KernelInputError):
            mbtr(crystal, SPECIES, **K2 | wrong)
