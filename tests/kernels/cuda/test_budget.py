"""What the functions hold on a device stays within what was free: tables and matrices sent first count too."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from matcompute_kernels import KernelInputError, cuda

ATOMS = [bulk("NaCl", "rocksalt", a=5.5 + 0.1 * k) * (1 + k % 2, 1, 1) for k in range(12)]
ROWS = np.random.default_rng(6).normal(size=(300, 20))
NACL = ["Na", "Cl"]
GRID = {"min": 1, "max": 4, "sigma": 0.1, "n": 20}
EXP = {"function": "exp", "r_cut": 4, "threshold": 1e-2}

CALLS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "rdf": (4_500, lambda d: cuda.rdf(ATOMS, 4.0, device=d)),
    "soap": (44_000, lambda d: cuda.soap(ATOMS, NACL, 3.0, 2, 1, device=d)),
    "acsf": (20_000, lambda d: cuda.acsf(ATOMS, NACL, 4.0, [[1, 0]] * 50, device=d)),
    "neighbor_list": (14_000, lambda d: cuda.neighbor_list(ATOMS, 4.0, device=d).distance),
    "mbtr": (14_000, lambda d: cuda.mbtr(ATOMS, NACL, "distance", GRID, EXP, device=d)),
    "kernel_matrix": (90_000, lambda d: cuda.kernel_matrix(ROWS, device=d)),
    "knn": (90_000, lambda d: cuda.knn(ROWS, 5, device=d)[1]),
    "fps": (60_000, lambda d: cuda.fps(ROWS, 5, device=d)),
}


@pytest.mark.parametrize("name", CALLS)
def test_never_more_than_is_free(emulator, name):
    free, call = CALLS[name]
    device = emulator(free=free)
    roomy = emulator()
    expected = call(roomy)
    assert roomy.peak > free or name == "fps"  # so that a cut is needed
    got = call(device)
    gc.collect()
    assert device.peak <= free
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CALLS)
def test_too_little_is_said_before_anything_is_sent(emulator, name):
    device = emulator(free=1_000)
    with pytest.raises(KernelInputError, match="bytes"):
        CALLS[name][1](device)
    assert device.peak == 0
