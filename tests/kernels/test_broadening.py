from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy.special import erf

from matcompute_kernels.descriptors.broadening import Broadening, collect, deposit


@njit
def add(work, block, x, w, numbers):
    for k in range(x.size):
        deposit(work, block, x[k], w[k], numbers)


@pytest.mark.parametrize(
    ("low", "high", "sigma", "n"),
    [
        (0, 1, 0.02, 100),
        (-1, 1, 0.05, 100),
        (0, 180, 2.0, 50),
        (0, 1, 0.001, 10),  # far finer than the grid: filled directly
        (0, 1, 0.5, 100),
        (0, 1, 5.0, 7),
        (1, 2, 0.1, 2),
    ],
)
def test_against_error_functions(low, high, sigma, n):
    rng = np.random.default_rng(0)
    x, w = rng.uniform(low - 3 * sigma, high + 3 * sigma, 60), rng.uniform(0, 1, 60)
    x[:3] = low - 9 * sigma, high + 9 * sigma, np.inf
    broadening = Broadening.on_grid(low, high, sigma, n)
    work, out = broadening.work(2), np.zeros(n)
    add(work, 1, x, w, broadening.numbers)
    collect(work, 1, broadening.table, broadening.numbers, out)
    dx = (high - low) / (n - 1)
    edges = low - dx / 2 + dx * np.arange(n + 1)
    parts = 0.5 * w[:, None] * (1 + erf((edges - x[:, None]) / (sigma * np.sqrt(2))))
    expected = (parts[:, 1:] - parts[:, :-1]).sum(axis=0) / dx
    np.testing.assert_allclose(out, expected, atol=2e-13 * expected.max())
    assert (work == 0).all()
    np.testing.assert_allclose(broadening.centers(), np.linspace(low, high, n), atol=1e-12 * max(1, high))
