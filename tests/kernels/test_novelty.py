"""Novelty against a reference set."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from matcompute_kernels import KernelInputError, novelty


def test_mean_distance_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    known, new = rng.normal(size=(200, 7)), rng.normal(size=(30, 7))
    full = np.sort(cdist(new, known), axis=1)
    np.testing.assert_allclose(novelty(new, known), full[:, 0], rtol=1e-10)
    np.testing.assert_allclose(novelty(new, known, k=5), full[:, :5].mean(axis=1), rtol=1e-10)
    assert novelty(known[:5], known).max() < 1e-6


def test_relative_to_the_reference_set() -> None:
    rng = np.random.default_rng(1)
    known = rng.normal(size=(500, 4))
    assert np.median(novelty(rng.normal(size=(300, 4)), known, relative=True)) == pytest.approx(1, abs=0.15)
    assert novelty(known[:3] + 50, known, relative=True).min() > 20
    with pytest.raises(KernelInputError, match="duplicates"):
        novelty(known, np.ones((5, 4)), relative=True)


def test_bad_input() -> None:
    with pytest.raises(KernelInputError, match="columns"):
        novelty(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(KernelInputError, match="k"):
        novelty(np.ones((2, 3)), np.ones((2, 3)), k=3)
