from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from matcompute_kernels import Batch, KernelInputError, neighbor_list, rdf
from matcompute_kernels.cuda import rdf as on_device
from matcompute_kernels.descriptors.pair_histogram import bin_edges, shell_volumes


@pytest.fixture(scope="module")
def crystals(mixed, structures5):
    return Batch.concatenate([mixed, structures5[:3]])


def test_equals_the_cpu(emulator, way, crystals):
    got = on_device(crystals, 5.0, 0.1, device=emulator(*way))
    expected = rdf(crystals, 5.0, 0.1)
    assert expected.any(axis=1).sum() >= len(crystals) - 2
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


def test_float32_moves_no_pair_but_at_an_edge(emulator, few_ways, mixed):
    edges = bin_edges(5.0, 0.1)
    got = on_device(mixed, 5.0, 0.1, dtype="f4", device=emulator(*few_ways))
    assert got.dtype == np.float32
    pairs = neighbor_list(mixed, 5.0)
    near = np.abs(pairs.distance[:, None] - edges).min(axis=1) < 2e-5
    scale = shell_volumes(edges) * (mixed.n_sites / mixed.volumes)[:, None]
    counts = got * scale
    assert np.abs(counts - np.round(counts)).max() < 1e-3
    assert np.abs(counts - rdf(mixed, 5.0, 0.1) * scale).sum() <= 2 * near.sum() + 1e-2


def test_chunks_give_the_same(emulator, crystals):
    device = emulator("shuffled", free=30_000)
    expected = rdf(crystals, 5.0, 0.1, per_atom=True)
    got = on_device(crystals, 5.0, 0.1, per_atom=True, device=device)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)
    with pytest.raises(KernelInputError, match=r"structure 5: needs \d+ bytes"):
        on_device(crystals, 5.0, 0.1, device=emulator(free=5_000))


def test_bad_input(emulator):
    with pytest.raises(KernelInputError, match="too many for a GPU"):
        on_device(Atoms("H", cell=[3, 3, 3], pbc=True), 10.0, 0.001, device=emulator())
    with pytest.raises(KernelInputError, match="no cell volume"):
        on_device(Atoms("H"), device=emulator())


def test_on_the_cpu(mixed):
    assert (on_device(mixed, 5.0, backend="numba") == rdf(mixed, 5.0)).all()
