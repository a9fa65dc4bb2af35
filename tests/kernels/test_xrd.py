"""Powder patterns against pymatgen's XRDCalculator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.diffraction.xrd import XRDCalculator

from matcompute_kernels import Batch, KernelInputError, feature_labels, xrd
from matcompute_kernels.descriptors.xrd import xrd_profile


def test_reference(reference: Path, reference_atoms: list[Atoms]) -> None:
    patterns = xrd(reference_atoms, scaled=False)
    with np.load(reference / "pymatgen_xrd.npz") as data:
        for k, (two_theta, intensity) in enumerate(patterns):
            np.testing.assert_allclose(two_theta, data[f"x{k}"], rtol=1e-12)
            np.testing.assert_allclose(intensity, data[f"y{k}"], rtol=1e-9)


@pytest.mark.parametrize(
    ("wavelength", "window", "damping"),
    [
        ("CuKa", (0, 90), None),
        ("MoKa", (10, 60), {"O": 1.0}),
        ("CuKa", None, None),
        (2.0, (0, 180), {"Cl": 0.5, "O": 2}),
    ],
)
def test_peer(small200: Batch, wavelength: str | float, window: tuple | None, damping: dict | None) -> None:
    calculator = XRDCalculator(wavelength, debye_waller_factors=damping)
    some = small200[::25]
    ours = xrd(some, wavelength, two_theta_range=window, debye_waller_factors=damping)
    for k in range(len(some)):
        peer = calculator.get_pattern(some.to_structure(k), two_theta_range=window)
        np.testing.assert_allclose(ours[k].two_theta, peer.x, rtol=1e-10)
        np.testing.assert_allclose(ours[k].intensity, peer.y, rtol=1e-6, atol=1e-9)
        a, b = ours.ptr[k], ours.ptr[k + 1]
        assert ours.multiplicity[a:b].tolist() == [
            sum(family["multiplicity"] for family in peak) for peak in peer.hkls
        ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_random_triclinic_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * rng.uniform(2.5, 6, 3) + rng.normal(size=(3, 3))
    if abs(np.linalg.det(cell)) < 8:
        return
    atoms = Atoms(rng.choice([1, 8, 26, 82], 4), rng.normal(size=(4, 3)) * 5, cell=cell, pbc=True)
    batch = Batch.from_atoms([atoms])
    peer = XRDCalculator().get_pattern(batch.to_structure(0))
    ours = xrd(batch)[0]
    assert len(ours.two_theta) == len(peer.x)
    np.testing.assert_allclose(ours.two_theta, peer.x, rtol=1e-10)
    np.testing.assert_allclose(ours.intensity, peer.y, rtol=1e-7, atol=1e-9)


def test_same_crystal_in_another_description(crystal: Atoms, rotated: Callable[[Atoms], Atoms]) -> None:
    plain, supercell, turned = xrd([crystal, crystal * (2, 1, 1), rotated(crystal)])
    np.testing.assert_allclose(plain.two_theta, supercell.two_theta, rtol=1e-9)
    np.testing.assert_allclose(plain.intensity, supercell.intensity, rtol=1e-7)
    np.testing.assert_allclose(plain.two_theta, turned.two_theta, rtol=1e-9)
    np.testing.assert_allclose(plain.intensity, turned.intensity, rtol=1e-7)
    permuted = xrd([crystal[[3, 1, 4, 0, 2]]])[0]
    np.testing.assert_allclose(plain.intensity, permuted.intensity, rtol=1e-9)


def test_profile_has_labels() -> None:
    profile = xrd_profile([bulk("Fe")], bins=91, fwhm=1.0)
    assert profile.shape == (1, 91)
    assert len(feature_labels("xrd", bins=91)) == 91
    assert profile.max() == pytest.approx(100, rel=0.7)


def test_bad_input() -> None:
    iron = bulk("Fe")
    broken = iron.copy()
    broken.positions[0] = np.nan
    with pytest.raises(KernelInputError, match="structure 1"):
        xrd([iron, broken])
    with pytest.raises(KernelInputError, match="structure 1") as error:
        xrd([iron, molecule("H2O")])
    assert error.value.index == 1
    with pytest.raises(KernelInputError, match="form factor"):
        xrd([bulk("Og", "fcc", 5.0)])
    with pytest.raises(KernelInputError, match="radiation"):
        xrd([iron], "XyKa")
    with pytest.raises(KernelInputError, match="wavelength"):
        xrd([iron], -1.0)
    with pytest.raises(KernelInputError, match="two_theta_range"):
        xrd([iron], two_theta_range=(50, 20))
    with pytest.raises(KernelInputError, match="no reflection"):
        xrd([iron], two_theta_range=(1, 2))
    assert len(xrd([])) == 0
