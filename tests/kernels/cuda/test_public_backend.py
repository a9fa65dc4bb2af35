"""``backend`` of the CPU functions: to the GPU (here the emulator), to the CPU, or an error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import matcompute_kernels as kernels
from matcompute_kernels import KernelInputError
from matcompute_kernels.cuda import CudaError, backend, device

ATOMS = bulk("NaCl", "rocksalt", a=5.64)
#: More elements in one structure than a block's shared memory takes.
MANY = Atoms(range(1, 30), np.arange(29)[:, None] * [3.0, 0, 0], cell=[87, 9, 9], pbc=True)
ROWS = np.random.default_rng(5).normal(size=(40, 6))
GRID = {"min": 1, "max": 4, "sigma": 0.1, "n": 20}
EXP = {"function": "exp", "r_cut": 4, "threshold": 1e-2}

CALLS: dict[str, Callable[..., Any]] = {
    "count_pairs": lambda **o: kernels.rdf(ATOMS, 4.0, **o),
    "acsf": lambda **o: kernels.acsf(ATOMS, ["Na", "Cl"], 4.0, [[1, 0]], **o),
    "soap": lambda **o: kernels.soap(ATOMS, ["Na", "Cl"], 3.0, 2, 1, **o),
    "pair_spectra": lambda **o: kernels.mbtr(ATOMS, ["Na", "Cl"], "distance", GRID, EXP, **o),
    "soap_species": lambda **o: kernels.soap(ATOMS, range(1, 40), 3.0, 2, 1, sparse=True, **o).toarray(),
    "find_pairs": lambda **o: np.sort(kernels.neighbor_list(ATOMS, 4.0, **o).distance),
    "lowest": lambda **o: kernels.knn(ROWS, 3, **o)[1],
    "fps_pick": lambda **o: kernels.fps(ROWS, 5, start=2, **o),
    "tile": lambda **o: kernels.kernel_matrix(ROWS, None, "rbf", **o),
}
#: Calls that the GPU does not take, and what the message names.
ONLY_CPU: dict[str, Callable[..., Any]] = {
    "bin_size": lambda **o: kernels.rdf(ATOMS, 4.0, 4e-4, **o),
    "geometry": lambda **o: kernels.mbtr(
        ATOMS, ["Na", "Cl"], "cosine", {**GRID, "min": -1, "max": 1}, EXP, **o
    ),
    "g3": lambda **o: kernels.acsf(ATOMS, ["Na", "Cl"], 4.0, None, [1.0], **o),
    "g4_and_g5": lambda **o: kernels.acsf(ATOMS, ["Na", "Cl"], 3.0, None, None, [[0.1, 1, 1]] * 33, **o),
    "periodic": lambda **o: kernels.acsf(ATOMS, ["Na", "Cl"], 3.0, periodic=False, **o),
    "compression": lambda **o: kernels.soap(ATOMS, ["Na", "Cl"], 3.0, 2, 1, compression="mu2", **o),
    "species": lambda **o: kernels.soap(MANY, range(1, 30), 3.0, 8, 6, **o),
    "full": lambda **o: kernels.neighbor_list(ATOMS, 4.0, False, **o).distance,
    "metric": lambda **o: kernels.knn(ROWS, 3, metric="cosine", **o)[1],
    "start": lambda **o: kernels.fps(ROWS, 5, start=[1, 2], **o),
    "normalize": lambda **o: kernels.kernel_matrix(ROWS, normalize=True, **o),
}


@pytest.fixture
def gpu(emulator, monkeypatch):
    """The emulator as this process's GPU."""
    monkeypatch.setattr(backend, "cuda_problem", lambda: None)
    made = emulator("shuffled")
    monkeypatch.setattr(device, "_default", made)
    return made


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("way_to", ["cuda", "auto"])
def test_goes_to_the_gpu(gpu, name, way_to):
    expected = CALLS[name]()
    assert not gpu.launched
    got = CALLS[name](backend=way_to)
    assert name in gpu.launched
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ONLY_CPU)
def test_what_only_the_cpu_does(gpu, name, caplog):
    call = ONLY_CPU[name]
    with pytest.raises(KernelInputError, match=f"backend='cuda' does not take {name} as given"):
        call(backend="cuda")
    backend._say_once.cache_clear()
    with caplog.at_level(logging.INFO, "matcompute_kernels.cuda"):
        got = call(backend="auto")
    assert [f"the GPU does not take {name} as given" in r.getMessage() for r in caplog.records] == [True]
    assert not gpu.launched
    np.testing.assert_array_equal(got, call())


@pytest.mark.parametrize("name", CALLS)
def test_no_gpu(monkeypatch, name):
    monkeypatch.setattr(backend, "cuda_problem", lambda: "the card is on fire")
    expected = CALLS[name]()
    np.testing.assert_array_equal(CALLS[name](backend="auto"), expected)
    np.testing.assert_array_equal(CALLS[name](backend="numba"), expected)
    with pytest.raises(CudaError, match="the card is on fire"):
        CALLS[name](backend="cuda")
    with pytest.raises(KernelInputError, match="backend must be one of"):
        CALLS[name](backend="opencl")
