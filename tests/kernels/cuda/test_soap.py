from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute_kernels import Batch, KernelInputError, soap
from matcompute_kernels.cuda import soap as on_device
from matcompute_kernels.cuda.power_spectrum import fits

SPECIES = [1, 2, 3, 8, 11, 13, 17, 26, 29]


def check(got: np.ndarray, expected: np.ndarray, bound: float) -> None:
    assert got.shape == expected.shape
    assert expected.any()
    assert np.abs(got - expected).max() < bound * np.abs(expected).max()


@pytest.mark.parametrize("average", ["off", "outer", "inner"])
@pytest.mark.parametrize("sparse", [False, True])
def test_equals_the_cpu(emulator, way, mixed, average, sparse):
    some = mixed[:5]  # an atom alone, 1, 2, 7 and 33 atoms, open directions
    options = {"average": average, "sparse": sparse}
    got = on_device(some, SPECIES, 2.4, 2, 2, 0.3, **options, device=emulator(*way))
    expected = soap(some, SPECIES, 2.4, 2, 2, 0.3, **options)
    if sparse:
        for name in ("row_ptr", "block", "value_ptr"):
            assert (getattr(got, name) == getattr(expected, name)).all()
            assert getattr(got, name).dtype == getattr(expected, name).dtype
        got, expected = got.values, expected.values
    check(got, expected, 1e-10)


def test_float32(emulator, few_ways, mixed):
    for average in ("off", "outer", "inner"):
        options = {"average": average}
        got = on_device(mixed[:4], SPECIES, 3.0, 3, 2, dtype="f4", **options, device=emulator(*few_ways))
        assert got.dtype == np.float32
        check(got, soap(mixed[:4], SPECIES, 3.0, 3, 2, **options), 2e-5)


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


@pytest.mark.parametrize("average", ["off", "outer", "inner"])
def test_chunks_give_the_same(emulator, mixed, average):
    some = mixed[:4]
    for sparse in (False, True):
        whole, cut = (
            on_device(some, SPECIES, 3.0, 3, 2, average=average, sparse=sparse, device=emulator(free=free))
            for free in (1 << 30, 300_000)
        )
        if sparse:
            assert (whole.row_ptr == cut.row_ptr).all()
            assert (whole.block == cut.block).all()
            whole, cut = whole.values, cut.values
        assert (whole == cut).all()


def test_full_vectors_of_sites_are_never_on_the_device_for_an_average(emulator):
    """400 sites in dense columns of 40 elements would be 45 MB."""
    atoms = bulk("NaCl", "rocksalt", a=5.64) * (5, 5, 8)
    device, species = emulator(), range(1, 41)
    got = on_device(atoms, species, 2.5, 4, 2, 0.25, average="outer", device=device)
    full = len(atoms) * got.shape[1] * 8
    assert full > 40e6
    assert device.peak < full / 20
    assert {"soap", "soap_mean"} <= set(device.launched)
    check(got, soap(atoms, species, 2.5, 4, 2, 0.25, average="outer"), 1e-10)


def test_shared_memory_is_that_of_the_species_of_a_structure(emulator):
    """Twenty elements in all, two in a structure: more than coefficients would fit of twenty."""
    assert fits(13, 8, 6, np.dtype("f8"))
    assert not fits(14, 8, 6, np.dtype("f8"))
    assert not fits(32, 1, 0, np.dtype("f4"))
    rng = np.random.default_rng(8)
    batch = Batch.from_atoms(
        [Atoms(numbers=[k, k + 10], positions=[[0, 0, 0], [0, 0, 2 + rng.random()]]) for k in range(1, 11)]
    )
    device = emulator("shuffled")
    got = on_device(batch, range(1, 21), 3.0, 8, 6, average="outer", device=device)
    assert "#define SPECIES 2\n" in device.launched["soap"]
    check(got, soap(batch, range(1, 21), 3.0, 8, 6, average="outer"), 1e-10)


def test_bad_input(emulator):
    device = emulator()
    many = Atoms(range(1, 30), np.arange(29)[:, None] * [3.0, 0, 0])
    with pytest.raises(
        KernelInputError, match="structure 1: 29 species in a structure .* do not fit into a block's"
    ):
        on_device([bulk("Al"), many], range(1, 30), 5.0, 8, 6, device=device)
    with pytest.raises(KernelInputError, match="average must be"):
        on_device(bulk("Al"), ["Al"], 5.0, 8, 6, average="all", device=device)
    with pytest.raises(KernelInputError, match="not in species"):
        on_device(Atoms("H"), ["Al"], 5.0, 8, 6, device=device)


def test_on_the_cpu():
    assert (
        on_device(bulk("Al"), ["Al"], 4.0, 3, 2, backend="numba") == soap(bulk("Al"), ["Al"], 4.0, 3, 2)
    ).all()
