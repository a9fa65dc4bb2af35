from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute_kernels import Batch, KernelInputError, mbtr
from matcompute_kernels.cuda import mbtr as on_device

from .structures import Z, near, quiet_cutoff

GRID = {"min": 0.05, "max": 0.9, "sigma": 0.02, "n": 150}  # two tiles of bins
EXP = {"function": "exp", "r_cut": 4.0, "threshold": 1e-3}
SPECIES = sorted({*Z, 2})


def weighting(batch: Batch) -> dict[str, object]:
    """An exponential weight whose reach no distance is close to."""
    return {**EXP, "r_cut": quiet_cutoff(batch, 4.0)}


@pytest.mark.parametrize(("dtype", "bound"), [("f8", 1e-10), ("f4", 2e-5)])
def test_equals_the_cpu(emulator, way, mixed, dtype, bound):
    some = mixed[:5]  # 1 to 33 atoms, an atom alone, open directions
    weights = weighting(some)
    got = on_device(some, SPECIES, "inverse_distance", GRID, weights, dtype=dtype, device=emulator(*way))
    assert got.dtype == np.dtype(dtype)
    expected = mbtr(some, SPECIES, "inverse_distance", GRID, weights)
    near(got / np.abs(expected).max(), expected / np.abs(expected).max(), bound)


@pytest.mark.parametrize(
    ("geometry", "weights", "options"),
    [
        ("distance", {"function": "inverse_square", "r_cut": 3.5}, {"normalization": "valle_oganov"}),
        ("distance", EXP, {"normalization": "l2", "sparse": True}),
        ("inverse_distance", None, {"periodic": False, "normalization": "n_atoms"}),
        ("inverse_distance", EXP, {"normalize_gaussians": False}),
    ],
)
def test_settings(emulator, geometry, weights, options):
    atoms = bulk("NaCl", "rocksalt", a=5.64) * 2
    atoms.rattle(0.1, seed=1)
    batch = Batch.from_atoms([atoms, bulk("Al") * 3])
    grid = {"min": 1.0, "max": 4.5, "sigma": 0.1, "n": 40} if geometry == "distance" else GRID
    # No direct filling here: bins far wider than sigma take another way on the CPU.
    got, expected = (
        call(batch, ["Na", "Cl", "Al"], geometry, grid, weights, **options, **more)
        for call, more in ((on_device, {"device": emulator("shuffled")}), (mbtr, {}))
    )
    if options.get("sparse"):
        assert (got.block == expected.block).all()
        got, expected = got.values, expected.values
    near(got / np.abs(expected).max(), expected / np.abs(expected).max(), 1e-10)


def test_coarse_bins_and_values_outside(emulator):
    """Bins much wider than sigma (the CPU then fills them directly), and pairs beyond either end of the grid."""
    grid = {"min": 2.0, "max": 4.0, "sigma": 0.001, "n": 9}
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    weights = {"function": "inverse_square", "r_cut": 6.0}
    got = on_device(atoms, ["Na", "Cl"], "distance", grid, weights, device=emulator("reversed"))
    near(got, mbtr(atoms, ["Na", "Cl"], "distance", grid, weights), 1e-10)


def test_chunks_give_the_same(emulator, mixed):
    whole = on_device(mixed[:4], SPECIES, "distance", GRID, EXP, device=emulator())
    device = emulator(free=150_000)
    assert (on_device(mixed[:4], SPECIES, "distance", GRID, EXP, device=device) == whole).all()


def test_bad_input(emulator):
    device = emulator()
    for geometry, grid, options, text in [
        ("angle", GRID, {}, "on a GPU is of two atoms"),
        ("distance", {**GRID, "n": 9_000_000, "sigma": 1e-6}, {}, "too many for a GPU"),
        ("distance", GRID, {"threads": 2}, "does not take threads"),
        ("size", GRID, {}, "geometry function must be"),
    ]:
        with pytest.raises(KernelInputError, match=text):
            on_device(Atoms("H"), ["H"], geometry, grid, None, device=device, **options)
    with pytest.raises(KernelInputError, match="not in species"):
        on_device(Atoms("H"), ["He"], "distance", GRID, device=device)


def test_on_the_cpu():
    got = on_device(bulk("Al"), ["Al"], "distance", GRID, EXP, backend="numba")
    assert (got == mbtr(bulk("Al"), ["Al"], "distance", GRID, EXP)).all()
