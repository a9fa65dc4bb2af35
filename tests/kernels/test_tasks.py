"""Every descriptor over chunks: shared neighbour lists and threads change nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
from ase.build import bulk

from matcompute_kernels import (
    Batch,
    KernelInputError,
    acsf,
    adf,
    local_mbtr,
    mbtr,
    neighbor_list,
    prdf,
    rdf,
    steinhardt,
    valle_oganov,
)
from matcompute_kernels import tasks as module
from matcompute_kernels.neighbors import expected_pairs, site_chunks

SPECIES = ["O", "Na", "Cl"]
WEIGHTING = {"function": "exp", "r_cut": 4, "threshold": 1e-3}
DESCRIPTORS = {
    "acsf": lambda b, **k: acsf(b, SPECIES, 4.0, g2=[[1, 0]], g4=[[0.1, 2, 1]], g5=[[0.1, 1, -1]], **k),
    "mbtr k2": lambda b, **k: mbtr(
        b, SPECIES, "distance", {"min": 0, "max": 6, "sigma": 0.1, "n": 40}, WEIGHTING, **k
    ),
    "mbtr k3": lambda b, **k: mbtr(
        b, SPECIES, "cosine", {"min": -1, "max": 1, "sigma": 0.1, "n": 40}, WEIGHTING, **k
    ),
    "local k3": lambda b, **k: local_mbtr(
        b, SPECIES, "cosine", {"min": -1, "max": 1, "sigma": 0.1, "n": 40}, WEIGHTING, **k
    ),
    "valle_oganov": lambda b, **k: valle_oganov(b, SPECIES, r_cut=4.0, **k),
    "rdf": lambda b, **k: rdf(b, 4.0, **k),
    "prdf": lambda b, **k: prdf(b, SPECIES, 4.0, **k),
    "adf": lambda b, **k: adf(b, 4.0, normalization="none", **k),
    "steinhardt": lambda b, **k: steinhardt(b, 4.0, average=True, **k),
}


@pytest.fixture
def batch(crystal, rotated, supercell):
    slab = crystal.copy()
    slab.pbc = [True, False, True]
    return Batch.from_atoms([crystal, supercell(crystal), rotated(crystal), slab, crystal[[0]]])


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_shared_list_and_threads(batch, name, monkeypatch):
    function = DESCRIPTORS[name]
    if name == "valle_oganov":
        batch = batch[:3]
    rows = function(batch)
    shared = neighbor_list(batch, 5.0)
    np.testing.assert_allclose(function(batch, neighbors=shared), rows, rtol=1e-10, atol=1e-13)
    monkeypatch.setattr(module, "site_chunks", lambda *_: [(k, k + 1) for k in range(len(batch.numbers))])
    chunked = function(batch)
    np.testing.assert_allclose(chunked, rows, rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(function(batch, threads=3), chunked)
    np.testing.assert_allclose(function(batch, neighbors=shared, threads=2), rows, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["acsf", "mbtr k2", "rdf"])
def test_list_that_does_not_fit(batch, name):
    function = DESCRIPTORS[name]
    for shared in (
        neighbor_list(batch, 3.0),
        neighbor_list(batch, 5.0, full=False),
        neighbor_list(batch[:2], 5.0),
    ):
        with pytest.raises(KernelInputError, match="neighbors"):
            function(batch, neighbors=shared)
    with pytest.raises(KernelInputError, match="threads"):
        function(batch, threads=0)


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_atoms_outside_the_cell(crystal, name):
    """Which image of an atom is given makes no difference (dscribe misses neighbours then)."""
    moved = crystal.copy()
    moved.positions += (
        np.array([[0, 0, 0], [2, -1, 0], [0, 0, 3], [-1, 0, 0], [1, 1, -4]]) @ crystal.cell.array
    )
    rows = DESCRIPTORS[name](crystal)
    np.testing.assert_allclose(DESCRIPTORS[name](moved), rows, rtol=1e-9, atol=1e-11 * np.abs(rows).max())


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_no_structures(batch, name):
    rows = DESCRIPTORS[name]([])
    assert rows.shape == (0, DESCRIPTORS[name](batch[:1]).shape[1])


def test_first_error_whatever_the_threads():
    done = []

    def work(task):
        if task in (3, 5):
            time.sleep(0.05 if task == 3 else 0.0)  # the later task fails first
            raise ValueError(task)
        done.append(task)

    for threads in (1, 2, 8):
        done.clear()
        with pytest.raises(ValueError, match="3"):
            module.share(work, range(1000), threads)
        assert {0, 1, 2} <= set(done)
        assert len(done) < 1000
    module.share(done.append, [], 4)


def test_tasks_that_share_their_own():
    """More tasks than threads, each of which shares again: nobody waits for a thread that waits for him."""
    done = []
    module.share(lambda a: module.share(lambda b: done.append((a, b)), range(20), 3), range(50), 4)
    assert sorted(done) == [(a, b) for a in range(50) for b in range(20)]


def test_interrupt_waits_for_what_has_begun():
    begun, done = [], []

    def work(task):
        begun.append(task)
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        done.append(task)

    with pytest.raises(KeyboardInterrupt):
        module.share(work, range(100), 2)
    assert sorted(done) == sorted(begun)
    assert len(done) < 100


def test_threads_after_a_fork():
    assert len(_names_of_threads()) == 3
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        names = pool.apply_async(_names_of_threads).get(60)
    assert len(names) == 3


def _names_of_threads() -> set[str]:
    barrier = threading.Barrier(3)
    names = set()

    def work(_):
        barrier.wait(10)
        names.add(threading.current_thread().name)

    module.share(work, range(3), 3)
    return names


def test_chunks_are_equal_and_even():
    batch = Batch.from_atoms([bulk("Al", cubic=True)] * 97)
    pairs = float(expected_pairs(batch, 5.0).sum())
    chunks = list(site_chunks(batch, 5.0, pairs / 2.5))
    assert len(chunks) == 4
    sizes = [b - a for a, b in chunks]
    assert max(sizes) - min(sizes) <= 4 * 4  # a structure has four sites
