"""Gaps from eigenvalues by counting electrons: insulators, metals, both spins, spinors."""

from __future__ import annotations

import numpy as np
import pytest

from matcompute_workflows.dft.levels import LevelsError, band_edges


def _cosine(*centres, width=1.0, points=21):
    """Bands of a chain, f8[1, points, len(centres)]: highest at k = 0 if their width is positive."""
    k = np.linspace(0, np.pi, points)
    return np.stack([c + width * np.cos(k) / 2 for c in centres], axis=1)[None]


def test_insulator():
    levels = _cosine(0.0, 3.0, 6.0)
    found = band_edges([levels], 2.0, fermi=0.9)
    assert found.gap == pytest.approx(2.0)
    assert found.middle == pytest.approx(1.5)
    assert found.direct is False, "highest at k = 0, lowest at the zone's edge"
    found = band_edges([np.concatenate([_cosine(0.0), _cosine(3.0, 6.0, width=-1.0)], axis=2)], 2.0, 0.9)
    assert found.direct is True


def test_smearing_does_not_hide_a_gap_and_the_fermi_level_may_be_anywhere():
    levels = _cosine(0.0, 1.2, 6.0)
    assert band_edges([levels], 2.0, fermi=0.9).gap == pytest.approx(0.2)
    assert band_edges([levels], 2.0, fermi=0.4) == band_edges([levels], 2.0, fermi=0.7)


@pytest.mark.parametrize(
    ("centres", "electrons"),
    [((0.0, 0.9, 6.0), 2.0), ((0.0, 3.0, 6.0), 3.0), ((0.0, 3.0, 6.0), 2.2), ((0.0, 1.0, 6.0), 2.0)],
    ids=["overlap", "odd", "charged", "touching"],
)
def test_metal(centres, electrons):
    found = band_edges([_cosine(*centres)], electrons, fermi=0.5)
    assert (found.gap, found.direct, found.middle) == (0.0, None, None)


def test_the_gap_is_that_of_all_sets_of_k_points():
    coarse, dense = _cosine(0.0, 3.0, 6.0, points=2)[:, :1], _cosine(0.0, 3.0, 6.0, points=50)
    assert band_edges([coarse], 2.0, 0.9).gap == pytest.approx(3.0)
    assert band_edges([coarse, dense[:, 1:]], 2.0, 0.9).gap == pytest.approx(2.0, abs=0.01)
    # Sets may have different numbers of bands.
    assert band_edges([coarse, dense[:, 1:, :2]], 2.0, 0.9).gap == pytest.approx(2.0, abs=0.01)


def test_ferromagnetic_insulator_has_different_counts_of_both_spins():
    up, down = _cosine(0.0, 1.0, 8.0), _cosine(5.0, 6.0, 9.0)
    found = band_edges([np.concatenate([up, down])], 2.0, fermi=2.0)
    assert found.gap == pytest.approx(3.0)  # from 1.5 (up) to 4.5 (down)
    # A half-metal: one spin has a gap, the other none.
    up = _cosine(0.0, 1.0, 2.0, 3.0, 8.0)
    down = _cosine(-1.0, 4.0, 5.0, 6.0, 9.0)
    assert band_edges([np.concatenate([up, down])], 4.0, fermi=2.2).gap == 0.0


def test_spinors_hold_one_electron_a_band():
    levels = _cosine(0.0, 3.0, 6.0)
    assert band_edges([levels], 1.0, fermi=0.9, per_band=1).gap == pytest.approx(2.0)
    assert band_edges([levels], 1.0, fermi=0.9).gap == 0.0


def test_too_few_bands():
    with pytest.raises(LevelsError, match="too few bands: the highest of 2"):
        band_edges([_cosine(0.0, 3.0)], 4.0, fermi=3.1)
