"""The same job over every driver: same bytes, nothing done twice, nothing lost; the manual's page runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

import matcompute_kernels
from matcompute_kernels import Batch, KernelInputError, coulomb_matrix
from matcompute_kernels.drivers import (
    AppendSink,
    ArraySource,
    Chunk,
    DriverError,
    Job,
    NpyDirectorySink,
    Ragged,
    chunk_rows,
    iter_ragged,
    merge_chunks,
    run,
)

BIN = Path(sys.executable).parent
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "kernels.md"
N = 60
BAD = 17


@pytest.fixture(scope="module")
def structures() -> Batch:
    """Cells of 1 to 5 atoms, one of them with a position that is not a number."""
    rng = np.random.default_rng(3)
    items = []
    for i in range(N):
        atoms = bulk("Cu", a=3.6).repeat((1 + i % 5, 1, 1))
        atoms.numbers[:] = rng.choice([13, 29], len(atoms))
        atoms.rattle(0.1, seed=i)
        items.append(atoms)
    items[BAD].positions[0, 1] = np.nan
    return Batch.from_atoms(items)


@pytest.fixture(scope="module")
def file(structures: Batch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "structures.npz"
    ArraySource.save(path, structures)
    return path


def per_site(batch: Batch, power: int = 2) -> np.ndarray:
    """A kernel that the library does not have: distance from the centre, in powers, a row per site."""
    owner = np.repeat(np.arange(len(batch)), batch.n_sites)
    centre = np.add.reduceat(batch.positions, batch.ptr[:-1]) / batch.n_sites[:, None]
    far = np.linalg.norm(batch.positions - centre[owner], axis=1)
    if not np.isfinite(far).all():
        raise KernelInputError("not finite", int(owner[np.flatnonzero(~np.isfinite(far))[0]]))
    return np.stack([far**p for p in range(power + 1)], axis=1).astype("f4")


class MemorySink:
    """The smallest sink: this process alone writes to it."""

    shared = False

    def __init__(self) -> None:
        self.arrays: dict[int, np.ndarray] = {}
        self.problems: dict[int, str] = {}

    def begin(self, identity: Any) -> None:
        self.kernel = identity["kernel"]

    def done(self) -> set[int]:
        return set(self.arrays)

    def write(self, chunk: Chunk, array: np.ndarray, *, rows: np.ndarray, problems: Any) -> None:
        self.arrays[chunk.number] = array
        self.problems.update({chunk.start + i: text for i, text in problems.items()})


@pytest.fixture(scope="module")
def cluster() -> Any:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as made:
        yield made


@pytest.mark.parametrize("driver", ["serial", "threads", "dask"])
@pytest.mark.parametrize("kernel", ["coulomb_matrix", per_site])
def test_same_bytes(
    driver: str,
    kernel: Any,
    file: Path,
    structures: Batch,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"threads": {"threads": 2}}.get(driver, {})
    if driver == "dask":
        options["cluster"] = request.getfixturevalue("cluster")
    parameters = {"n_atoms_max": 5} if isinstance(kernel, str) else {"power": 3}
    found = set()
    for name, source, sink in (
        ("npy", ArraySource(file, size=7), NpyDirectorySink(tmp_path / "npy")),
        ("append", ArraySource(structures, size=7), AppendSink(tmp_path / "append")),
    ):
        seen: list[tuple[int, int]] = []
        job = Job(kernel, source, sink, parameters)
        summary = run(job, driver, progress=lambda *now, seen=seen: seen.append(now), **options)
        assert (summary.n_chunks, summary.n_computed, summary.n_structures) == (9, 9, N)
        assert list(summary.problems) == [BAD] == list(sink.problems())
        assert [total for _, total in seen] == [N] * 9
        assert seen[-1][0] == N
        assert run(job, driver, **options).n_reused == 9
        merge_chunks(sink, tmp_path / f"{name}.npy")
        found.add((tmp_path / f"{name}.npy").read_bytes())
    # The reference: the kernel called once, on what is fit.
    good = np.delete(np.arange(N), BAD)
    whole = structures[good]
    expected = coulomb_matrix(whole, n_atoms_max=5) if isinstance(kernel, str) else per_site(whole, 3)
    rows = good if isinstance(kernel, str) else structures.site_index(good)
    merged = np.load(tmp_path / "npy.npy")
    assert merged[rows].tobytes() == expected.tobytes()
    assert np.isnan(np.delete(merged, rows, axis=0)).all()
    assert len(found) == 1


@pytest.mark.parametrize("driver", ["serial", "threads", "dask"])
def test_sink_of_one_process(driver: str, file: Path, request: pytest.FixtureRequest) -> None:
    options = {}
    if driver == "dask":
        options["cluster"] = request.getfixturevalue("cluster").scheduler_address
    sink = MemorySink()
    summary = run(
        Job(per_site, ArraySource(file, size=20), sink),
        driver,
        **options,
    )
    assert list(summary.problems) == list(sink.problems) == [BAD]
    assert sorted(sink.arrays) == [0, 1, 2]
    assert sink.kernel.endswith(":per_site")


def test_chunks_have_no_gaps() -> None:
    chunks = chunk_rows(np.array([3, 3, 50, 1, 1, 1, 1]), size=3, max_sites=7)
    assert [(c.start, c.stop) for c in chunks] == [(0, 2), (2, 3), (3, 6), (6, 7)]
    assert chunk_rows(np.array([], int)) == []


def test_chunk_of_unfit_structures_only(file: Path, structures: Batch, tmp_path: Path) -> None:
    sink = NpyDirectorySink(tmp_path / "out")
    run(Job(per_site, ArraySource(file, size=1), sink))
    merged = merge_chunks(sink, tmp_path / "out.npy")
    assert merged.shape == (len(structures.numbers), 3)
    bad = slice(structures.ptr[BAD], structures.ptr[BAD + 1])
    assert np.isnan(merged[bad]).all()
    assert np.isnan(merged).any(axis=1).sum() == structures.n_sites[BAD]


def test_no_structures(tmp_path: Path) -> None:
    sink = NpyDirectorySink(tmp_path / "out")
    assert run(Job(per_site, ArraySource(Batch.empty()), sink)).n_chunks == 0
    assert merge_chunks(sink, tmp_path / "out.npy").shape[0] == 0


def test_continues_after_an_error(file: Path, tmp_path: Path) -> None:
    sink = AppendSink(tmp_path / "out")

    class Broken(ArraySource):
        def read(self, chunk: Chunk) -> Batch:
            if chunk.number == 4:
                raise OSError("the disk is gone")
            return super().read(chunk)

    with pytest.raises(OSError, match="disk"):
        run(Job(per_site, Broken(file, size=10), sink))
    with pytest.raises(DriverError, match="4 of 6 chunks"):
        merge_chunks(sink, tmp_path / "out.npy")
    summary = run(Job(per_site, ArraySource(file, size=10), sink))
    assert (summary.n_reused, summary.n_computed) == (4, 2)


def test_refusals(file: Path, structures: Batch, tmp_path: Path) -> None:
    source, sink = ArraySource(file), NpyDirectorySink(tmp_path / "out")
    with pytest.raises(DriverError, match="no kernel 'soup'"):
        Job("soup", source, sink)
    with pytest.raises(DriverError, match="serial, threads, mpi and dask"):
        run(Job(per_site, source, sink), "slurm")
    run(Job(per_site, source, sink))
    for other in (
        Job(per_site, source, sink, {"power": 3}),
        Job("coulomb_matrix", source, sink),
        Job(per_site, ArraySource(structures[:50]), sink),
        Job(per_site, ArraySource(file, size=5), sink),
    ):
        with pytest.raises(DriverError, match="another job"):
            run(other)
    with pytest.raises(KernelInputError, match="l_max"):
        run(
            Job(
                "soap",
                source,
                NpyDirectorySink(tmp_path / "soap"),
                {"species": ["Cu"], "r_cut": 3.0, "n_max": 2, "l_max": 99},
            )
        )
    with pytest.raises(DriverError, match="returned tuple"):
        run(Job(_pair, source, MemorySink()))
    narrow = NpyDirectorySink(tmp_path / "narrow")
    run(Job("coulomb_matrix", ArraySource(file, size=2), narrow))
    with pytest.raises(DriverError, match="n_atoms_max"):
        merge_chunks(narrow, tmp_path / "narrow.npy")


def _pair(batch: Batch) -> Any:
    return batch.numbers, batch.positions


@pytest.mark.parametrize("driver", ["serial", "dask"])
def test_rows_of_different_lengths(
    driver: str, file: Path, structures: Batch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Blocks by species pair and peaks: those of unfit structures are empty, the rest is as from the kernel."""
    options = {"cluster": request.getfixturevalue("cluster")} if driver == "dask" else {}
    parameters = {"species": ["Al", "Cu"], "r_cut": 3.0, "n_max": 2, "l_max": 1, "sparse": True}
    good = np.delete(np.arange(N), BAD)
    grid = {"min": 0, "max": 1, "sigma": 0.05, "n": 10}
    weighting = {"function": "exp", "scale": 0.8, "threshold": 1e-2}
    mbtr = {"species": ["Al", "Cu"], "grid": grid, "weighting": weighting, "sparse": True}
    for kernel, keywords, sink in (
        ("soap", parameters, NpyDirectorySink(tmp_path / "soap")),
        ("mbtr", mbtr, AppendSink(tmp_path / "mbtr")),
        ("xrd", {"two_theta_range": (10, 60)}, AppendSink(tmp_path / "xrd")),
    ):
        source = ArraySource(file, size=7)
        assert run(Job(kernel, source, sink, keywords), driver, **options).n_computed == 9
        assert list(sink.problems()) == [BAD]
        with pytest.raises(DriverError, match="different lengths"):
            merge_chunks(sink, tmp_path / "no.npy")
        found = list(iter_ragged(sink))
        assert [record.number for record, _ in found] == list(range(9))
        expected = getattr(matcompute_kernels, kernel)(structures[good], **keywords).to_ragged()
        per_site = kernel == "soap"
        n_rows = len(structures.numbers) if per_site else N
        expected = expected.spread(structures.site_index(good) if per_site else good, n_rows)
        assert sum(len(rows) for _, rows in found if rows is not None) == n_rows
        for name, (ptr, items) in expected.parts.items():
            sizes = np.concatenate([np.diff(rows.parts[name][0]) for _, rows in found if rows is not None])
            assert np.array_equal(sizes, np.diff(ptr))
            assert np.array_equal(
                np.concatenate([r.parts[name][1] for _, r in found if r is not None]), items
            )


def test_ragged_refusals(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="offsets do not fit"):
        Ragged({"x": (np.array([0, 2]), np.zeros(3))})
    sink = NpyDirectorySink(tmp_path / "out")
    run(Job(per_site, ArraySource(file, size=20), sink))
    with pytest.raises(DriverError, match="merge_chunks"):
        list(iter_ragged(sink))


def test_sparse_matrices_become_dense(file: Path, tmp_path: Path) -> None:
    from scipy.sparse import csr_array

    sinks = NpyDirectorySink(tmp_path / "sparse"), NpyDirectorySink(tmp_path / "dense")
    for kernel, sink in zip((lambda batch: csr_array(per_site(batch)), per_site), sinks):
        run(Job(kernel, ArraySource(file, size=20), sink))
    sparse, dense = (merge_chunks(sink, sink.folder / "all.npy") for sink in sinks)
    assert np.array_equal(sparse, dense, equal_nan=True)


def test_damage_is_found(file: Path, tmp_path: Path) -> None:
    sink = NpyDirectorySink(tmp_path / "out")
    job = Job(per_site, ArraySource(file, size=10), sink)
    run(job)
    damaged = tmp_path / "out" / "chunk-00000002.npy"
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(DriverError, match="chunk 2 is damaged"):
        merge_chunks(sink, tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()
    damaged.unlink()
    assert run(job).n_computed == 1
    merge_chunks(sink, tmp_path / "out.npy")


def test_index_cut_short(file: Path, tmp_path: Path) -> None:
    run(Job(per_site, ArraySource(file, size=10), AppendSink(tmp_path / "out")))
    index = next((tmp_path / "out").glob("index-*"))
    index.write_bytes(index.read_bytes()[:-30])
    sink = AppendSink(tmp_path / "out")
    assert run(Job(per_site, ArraySource(file, size=10), sink)).n_computed == 1
    merge_chunks(sink, tmp_path / "out.npy")


def test_dask_worker_dies(file: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    flag = tmp_path / "died"

    def deadly(batch: Batch) -> np.ndarray:
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return per_site(batch)

    deadly.__module__ = "__main__"  # pickled by value, as a function of a script
    sink = NpyDirectorySink(tmp_path / "out")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as made:
        summary = run(Job(deadly, ArraySource(file, size=10), sink), "dask", cluster=made)
    assert flag.exists()
    assert summary.n_computed == 6
    merge_chunks(sink, tmp_path / "out.npy")


@pytest.mark.parametrize(
    ("lost", "says"), [(True, "there is none"), (False, r"1 paused\); a paused one is short")]
)
def test_dask_without_a_worker_that_works(file: Path, tmp_path: Path, lost: bool, says: str) -> None:
    """A paused worker takes no tasks, and of pilots that are taken away none comes back: no reason to wait for ever."""
    distributed = pytest.importorskip("distributed")

    def pause(dask_worker: Any) -> None:
        dask_worker.memory_manager.memory_pause_fraction = False  # it would see that there is memory
        dask_worker.status = distributed.Status.paused

    def slow(batch: Batch) -> np.ndarray:
        time.sleep(0.2)
        return np.zeros((len(batch), 1))

    slow.__module__ = "__main__"  # pickled by value, as a function of a script
    job = Job(slow, ArraySource(file, size=4), NpyDirectorySink(tmp_path / "out"))
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as made,
        distributed.Client(made) as client,
    ):

        def progress(done: int, _all: int) -> None:
            if done == 4 and lost:  # with results that nobody has fetched yet
                time.sleep(0.5)
                made.scale(0)
            elif done == 4:
                client.run(pause)

        with pytest.raises(DriverError, match=says):
            run(job, "dask", cluster=client, patience_s=1.0, progress=progress)


SCRIPT = r"""
import os, sys, time
from matcompute_kernels import coulomb_matrix
from matcompute_kernels.drivers import ArraySource, Job, NpyDirectorySink, run

def logged(batch, pause, **parameters):
    with open(sys.argv[3], "a") as log:
        log.write(f"{os.getpid()} {batch.positions.sum()!r}\n")
    time.sleep(float(os.environ.get("TEST_SLEEP", "0")))
    if os.environ.get("TEST_FAIL"):
        raise ValueError("no such luck")
    return coulomb_matrix(batch, **parameters)

job = Job(logged, ArraySource(sys.argv[1], size=3), NpyDirectorySink(sys.argv[2]), {"pause": 0, "n_atoms_max": 5})
os.write(1, f"{run(job, 'mpi').n_reused}\n".encode())  # in one piece
"""


@pytest.fixture
def ranks(file: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the job on two ranks."""
    pytest.importorskip("mpi4py")
    if not (BIN / "mpiexec").exists():
        pytest.skip("no mpiexec beside this Python")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def start(*flags: str, sleep: float = 0.0, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                str(BIN / "mpiexec"),
                *flags,
                "-n",
                "2",
                sys.executable,
                script,
                file,
                tmp_path / "out",
                tmp_path / "log",
            ],
            env={**os.environ, "TEST_SLEEP": str(sleep), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def _serial(file: Path, tmp_path: Path) -> bytes:
    sink = NpyDirectorySink(tmp_path / "serial")
    run(Job("coulomb_matrix", ArraySource(file, size=3), sink, {"n_atoms_max": 5}))
    merge_chunks(sink, tmp_path / "serial.npy")
    return (tmp_path / "serial.npy").read_bytes()


@pytest.mark.kill
@pytest.mark.parametrize(
    "flags", [(), ("-disable-auto-cleanup",)], ids=["launcher-ends-all", "others-may-go-on"]
)
def test_mpi_rank_killed(ranks: Any, file: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    log, sink = tmp_path / "log", NpyDirectorySink(tmp_path / "out")
    with ranks(*flags, sleep=0.1) as process:
        end = time.monotonic() + 60
        while len(sink.records()) < 5:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        pids = [int(line.split()[0]) for line in log.read_text().splitlines()]
        victim = max(set(pids), key=lambda pid: (_rank(pid), pid))
        os.kill(victim, signal.SIGKILL)
        try:
            print(process.communicate(timeout=30), process.returncode, victim, pids)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    before = sink.done()
    # With the flag, MPICH mostly lets rank 0 go on to the end, but not always: nothing may be lost in either case.
    assert 5 <= len(before) <= (20 if flags else 19)
    with ranks() as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.split() == [str(len(before))] * 2
    # Each rank had one chunk in flight at most (a line with a NaN: tried, and again without the unfit structure).
    lines = [line for line in log.read_text().splitlines() if "nan" not in line]
    assert 20 == len({line.split()[1] for line in lines}) <= len(lines) <= 20 + 2
    merge_chunks(sink, tmp_path / "mpi.npy")
    assert (tmp_path / "mpi.npy").read_bytes() == _serial(file, tmp_path)


def test_mpi_error_ends_all_ranks(ranks: Any, tmp_path: Path) -> None:
    with ranks(TEST_FAIL="1") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert err.count("no such luck") >= 2
    assert "structures 0 to 2" in err


DASK_MPI = r"""
import sys
from dask_mpi import initialize
initialize(dashboard=False)  # rank 0 becomes the scheduler, ranks from 2 on workers; rank 1 goes on
from distributed import Client
from matcompute_kernels.drivers import ArraySource, Job, NpyDirectorySink, run

with Client() as client:
    client.wait_for_workers(1, timeout=120)
    print(len(client.scheduler_info()["workers"]), "workers")
    job = Job("coulomb_matrix", ArraySource(sys.argv[1], size=3), NpyDirectorySink(sys.argv[2]), {"n_atoms_max": 5})
    print(run(job, "dask", cluster=client).n_computed, "chunks")
"""


def test_dask_over_mpi(file: Path, tmp_path: Path) -> None:
    """Workers that dask-mpi starts as ranks: the bytes are those of the serial driver."""
    for package in ("dask_mpi", "mpi4py", "distributed"):
        pytest.importorskip(package)
    if not (BIN / "mpiexec").exists():
        pytest.skip("no mpiexec beside this Python")
    (tmp_path / "script.py").write_text(DASK_MPI)
    done = subprocess.run(
        [BIN / "mpiexec", "-n", "3", sys.executable, tmp_path / "script.py", file, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["1 workers", "20 chunks"]
    merge_chunks(NpyDirectorySink(tmp_path / "out"), tmp_path / "dask.npy")
    assert (tmp_path / "dask.npy").read_bytes() == _serial(file, tmp_path)


def _rank(pid: int) -> int:
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((int(item[9:]) for item in environ if item.startswith(b"PMI_RANK=")), 0)


def test_missing_packages(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    job = Job(per_site, ArraySource(file), MemorySink())
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DriverError, match="pip install dask distributed"):
        run(job, "dask")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(DriverError, match="pip install mpi4py"):
        run(job, "mpi")


def test_manual(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    pytest.importorskip("mpi4py")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
