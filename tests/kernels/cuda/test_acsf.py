from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from matcompute_kernels import KernelInputError, acsf
from matcompute_kernels.cuda import acsf as on_device

SPECIES = [1, 2, 3, 8, 11, 13, 17, 26, 29]
FUNCTIONS = {
    "g2": [[1.0, 0.0], [0.4, 2.0]],
    "g4": [[0.01, 1, 1], [0.1, 4, -1], [0.05, 2.5, 0.5]],
    "g5": [[0.01, 2, 1]],
}


@pytest.mark.parametrize(("dtype", "bound"), [("f8", 1e-10), ("f4", 2e-5)])
def test_equals_the_cpu(emulator, way, mixed, dtype, bound):
    some = mixed[:4]  # an atom alone, 1, 2 and 7 atoms, open directions
    got = on_device(some, SPECIES, 3.0, **FUNCTIONS, dtype=dtype, device=emulator(*way))
    expected = acsf(some, SPECIES, 3.0, **FUNCTIONS)
    assert got.dtype == np.dtype(dtype)
    assert expected[:, -40:].any()
    assert np.abs(got - expected).max() < bound * max(1.0, np.abs(expected).max())


def test_radial_functions_only_and_chunks(emulator, mixed):
    got = on_device(mixed[:5], SPECIES, 4.0, g2=[[0.5, 1.0]], device=emulator("shuffled", free=250_000))
    np.testing.assert_allclose(got, acsf(mixed[:5], SPECIES, 4.0, g2=[[0.5, 1.0]]), rtol=0, atol=1e-10)


def test_collinear_neighbours(emulator):
    atoms = bulk("Al", "fcc", a=4.05)
    got = on_device(atoms, ["Al"], 5.0, g4=[[0.01, 0.5, -1]], device=emulator("reversed", 64))
    np.testing.assert_allclose(got, acsf(atoms, ["Al"], 5.0, g4=[[0.01, 0.5, -1]]), rtol=0, atol=1e-6)


def test_bad_input(emulator):
    with pytest.raises(KernelInputError, match="at most 32 G4 and G5"):
        on_device(bulk("Al"), ["Al"], 5.0, g4=[[0.1, 1, 1]] * 33, device=emulator())
    with pytest.raises(KernelInputError, match="not in species"):
        on_device(bulk("Al"), ["Cu"], 5.0, device=emulator())


def test_on_the_cpu():
    assert (on_device(bulk("Al"), ["Al"], 4.0, backend="numba") == acsf(bulk("Al"), ["Al"], 4.0)).all()
