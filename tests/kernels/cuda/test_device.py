"""``CupyDevice`` with its streams and copies, over a stand-in for CuPy that puts work off as a GPU does."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase.build import bulk

import matcompute_kernels as kernels
from matcompute_kernels.cuda import CudaError, backend, device
from matcompute_kernels.cuda.device import CupyDevice
from matcompute_kernels.cuda.pipeline import run_chunks
from matcompute_kernels.cuda.planner import plan_chunks

from .standin import StandIn

ATOMS = [bulk("NaCl", "rocksalt", a=5.5 + 0.1 * k) * (1 + k % 2, 1, 1) for k in range(12)]
GRID = {"min": 1, "max": 4, "sigma": 0.1, "n": 20}
EXP = {"function": "exp", "r_cut": 4, "threshold": 1e-2}


@pytest.fixture
def stand_in(emulator, monkeypatch):
    """Make a stand-in CuPy that this process then imports."""

    def make(devices: int = 1, free: int = 1 << 30) -> StandIn:
        cupy = StandIn(emulator("shuffled", free=free), devices)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        monkeypatch.setitem(sys.modules, "cupyx", cupy.x)
        monkeypatch.setattr(device, "_default", None)
        monkeypatch.setattr(backend, "_found", None)
        return cupy

    return make


CALLS = {
    "soap": (70_000, lambda **o: kernels.soap(ATOMS, ["Na", "Cl"], 3.0, 2, 1, average="outer", **o)),
    "acsf": (60_000, lambda **o: kernels.acsf(ATOMS, ["Na", "Cl"], 4.0, [[1, 0]], **o)),
    "mbtr": (30_000, lambda **o: kernels.mbtr(ATOMS, ["Na", "Cl"], "distance", GRID, EXP, **o)),
    "rdf": (8_000, lambda **o: kernels.rdf(ATOMS, 4.0, **o)),
    "neighbors": (30_000, lambda **o: np.sort(kernels.neighbor_list(ATOMS, 4.0, **o).distance)),
    "fps": (60_000, lambda **o: kernels.fps(np.random.default_rng(1).normal(size=(90, 20)), 9, **o)),
}


@pytest.mark.parametrize("name", CALLS)
def test_work_that_is_put_off_gives_the_same(stand_in, name):
    free, call = CALLS[name]
    cupy = stand_in(free=free)
    got = call(backend="cuda")
    np.testing.assert_allclose(got, call(), rtol=0, atol=1e-9)
    if name != "fps":
        assert {ptr for ptr, _ in cupy.log} >= {1, 2}  # in chunks, by turns in two streams
    assert len(cupy.compiled) == len(set(cupy.compiled))


def test_one_chunk_is_sent_while_the_other_is_computed(stand_in):
    cupy = stand_in(free=5_500)
    kernels.rdf(ATOMS, 4.0, backend="cuda")
    events = [(ptr, what) for ptr, what in cupy.log if what in ("count_pairs", "copy out", "copy in") and ptr]
    kernels_begun = [ptr for ptr, what in events if what == "count_pairs"]
    assert len(kernels_begun) >= 4
    assert kernels_begun[:4] == [1, 2, 1, 2]
    # The second chunk is sent and its kernel queued before the first one's result is waited for, and so on.
    first_out = events.index((1, "copy out"))
    assert events.index((2, "count_pairs")) < first_out
    assert events.index((1, "count_pairs"), first_out) < events.index((2, "copy out"))


def test_a_pinned_buffer_that_is_freed_too_early_is_noticed(stand_in, monkeypatch):
    """The stand-in proves something: without its list of what is still being copied, CupyDevice sends rubbish."""
    stand_in(free=5_500)
    monkeypatch.setattr(CupyDevice, "_keep", lambda *_: None)
    with pytest.raises((AssertionError, CudaError)):
        np.testing.assert_allclose(
            kernels.rdf(ATOMS, 4.0, backend="cuda"), kernels.rdf(ATOMS, 4.0), atol=1e-9
        )


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_chunks_in_flight(buffers):
    """Never more chunks on the device than the plan says, each fetched in its own stream, in order."""
    log, alive, most = [], set(), 0

    class Recorder:
        number = None

        def stream(self, number):
            recorder = self

            class Inside:
                def __enter__(self):
                    recorder.number = number

                def __exit__(self, *_):
                    recorder.number = None

            return Inside()

    recorder = Recorder()

    def start(first, last):
        nonlocal most
        alive.add(first)
        most = max(most, len(alive))
        log.append(("start", first, recorder.number))

        def fetch():
            alive.discard(first)
            log.append(("fetch", first, recorder.number))

        return fetch

    plan = plan_chunks(np.full(7, 10), 10 * buffers, buffers=buffers)
    assert len(plan.chunks) == 7
    run_chunks(plan, recorder, start)
    assert most == buffers
    assert not alive
    for what in ("start", "fetch"):
        assert [entry[1:] for entry in log if entry[0] == what] == [(k, k % buffers) for k in range(7)]


def test_the_device_of_the_local_rank(stand_in, monkeypatch):
    cupy = stand_in(devices=4)
    monkeypatch.setenv("MATCOMPUTE_LOCAL_RANK", "6")
    assert device.default_device().index == 2 == cupy.device
    assert device.default_device() is device.default_device()
    assert CupyDevice(3).index == 3
    with pytest.raises(CudaError, match="there is no device 4; there are 4"):
        CupyDevice(4)


def test_arrays_of_the_device_go_in_without_a_copy(stand_in):
    cupy = stand_in()
    made = CupyDevice()
    array = cupy.asarray(np.arange(5.0))
    array.__class__.__cuda_array_interface__ = {}
    try:
        assert made.put(array) is array
    finally:
        del array.__class__.__cuda_array_interface__
