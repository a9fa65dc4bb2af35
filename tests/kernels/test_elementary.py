from __future__ import annotations

import numpy as np
from numba import njit

from matcompute_kernels.elementary import cosine_cutoff, exp_negative


@njit
def apply(x, exponential, out):
    for k in range(x.size):
        out[k] = exp_negative(x[k]) if exponential else cosine_cutoff(x[k])


def test_exponential():
    x = np.concatenate([-np.logspace(-20, 2.84, 5000), np.linspace(-690, 0, 5001), [0.0, 1e-18]])
    out = np.empty_like(x)
    apply(x, True, out)
    np.testing.assert_allclose(out, np.exp(x), rtol=5e-16)
    apply(np.array([-1e4, -np.inf]), True, out)
    assert (out[:2] < 1e-303).all()


def test_cutoff():
    u = np.linspace(0, 1, 2001)
    out = np.empty_like(u)
    apply(u * u, False, out)
    np.testing.assert_allclose(out, 0.5 * (1 + np.cos(np.pi * u)), atol=4e-16)
