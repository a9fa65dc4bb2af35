from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute_kernels import Batch, KernelInputError, soap
from matcompute_kernels.cuda import soap as on_device

SPECIES = [1, 2, 3, 8, 11, 13, 17, 26, 29]


def check(got: np.ndarray, expected: np.ndarray, bound: float) -> None:
    assert got.shape == expected.shape
    assert expected.any()
    assert np.abs(got - expected).max() < bound * np.abs(expected).max()


@pytest.mark.parametrize("average", ["off", "outer", "inner"])
def test_equals_the_cpu(emulator, way, mixed, average):
    some = mixed[:4]  # an atom alone, 1, 2 and 7 atoms, open directions
    got = on_device(some, SPECIES, 3.0, 3, 2, average=average, device=emulator(*way))
    check(got, soap(some, SPECIES, 3.0, 3, 2, average=average), 1e-10)


def test_float32(emulator, way, mixed):
    got = on_device(mixed[:4], SPECIES, 3.0, 3, 2, dtype="f4", device=emulator(*way))
    check(got, soap(mixed[:4], SPECIES, 3.0, 3, 2), 2e-5)


@pytest.mark.parametrize("convention", ["featomic-gto", "polynomial"])
def test_conventions(emulator, convention):
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.rattle(0.1, seed=1)
    got = on_device(atoms, ["Na", "Cl"], 4.0, 4, 3, 0.4, convention, device=emulator("shuffled"))
    check(got, soap(atoms, ["Na", "Cl"], 4.0, 4, 3, 0.4, convention), 1e-10)


def test_anchors_settings_on_the_reference_structures(emulator, structures5):
    device = emulator("shuffled", free=1 << 26)
    if not len(structures5):
        pytest.skip("reference data is not here")
    for k in range(5):
        batch = structures5[k]
        species = sorted(set(batch.numbers.tolist()))
        if len(batch.numbers) > 20:
            batch = Batch.from_atoms([batch.to_atoms(0)[:20]])
            species = sorted(set(batch.numbers.tolist()))
        got = on_device(batch, species, 5.0, 8, 6, average="outer", device=device)
        check(got, soap(batch, species, 5.0, 8, 6, average="outer"), 1e-10)


def test_chunks_give_the_same(emulator, mixed):
    expected = soap(mixed[:4], SPECIES, 3.0, 3, 2)
    check(on_device(mixed[:4], SPECIES, 3.0, 3, 2, device=emulator(free=150_000)), expected, 1e-10)


def test_bad_input(emulator):
    device = emulator()
    with pytest.raises(KernelInputError, match="do not fit into a block's shared memory"):
        on_device(bulk("Al"), range(1, 30), 5.0, 8, 6, device=device)
    with pytest.raises(KernelInputError, match="average must be"):
        on_device(bulk("Al"), ["Al"], 5.0, 8, 6, average="all", device=device)
    with pytest.raises(KernelInputError, match="not in species"):
        on_device(Atoms("H"), ["Al"], 5.0, 8, 6, device=device)


def test_on_the_cpu():
    assert (
        on_device(bulk("Al"), ["Al"], 4.0, 3, 2, backend="numba") == soap(bulk("Al"), ["Al"], 4.0, 3, 2)
    ).all()
