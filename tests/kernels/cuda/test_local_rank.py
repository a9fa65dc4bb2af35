"""One GPU a process: real Dask workers and MPI ranks on one machine each get a number of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ase import Atoms

from matcompute_kernels import Batch
from matcompute_kernels.cuda import backend
from matcompute_kernels.cuda.backend import device_index, local_rank
from matcompute_kernels.drivers import ArraySource, Job, NpyDirectorySink, run

BIN = Path(sys.executable).parent
#: Waits until three processes have written which device they would take of four.
TOGETHER = """
import os, time
from pathlib import Path
import numpy as np
from matcompute_kernels.cuda.backend import device_index

def taken(batch, folder):
    Path(folder, str(os.getpid())).write_text(str(device_index(4)))
    end = time.monotonic() + 60
    while len(list(Path(folder).iterdir())) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    return np.zeros((len(batch), 1))
"""


def source() -> ArraySource:
    return ArraySource(Batch.from_atoms([Atoms("H")] * 3), size=1)


def devices(folder: Path) -> list[str]:
    return sorted(file.read_text() for file in folder.iterdir())


def test_dask_workers(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    # Workers of one batch job inherit its variables: the same for all of them.
    monkeypatch.setenv("SLURM_LOCALID", "0")
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(TOGETHER, scope)
    folder = tmp_path / "seen"
    folder.mkdir()
    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=":0") as cluster:
        job = Job(scope["taken"], source(), NpyDirectorySink(tmp_path / "out"), {"folder": str(folder)})
        run(job, "dask", cluster=cluster)
    assert devices(folder) == ["0", "1", "2"]


def test_mpi_ranks(tmp_path):
    """Also where the launcher says nothing of local ranks."""
    pytest.importorskip("mpi4py")
    if not (BIN / "mpiexec").exists():
        pytest.skip("no mpiexec beside this Python")
    folder = tmp_path / "seen"
    folder.mkdir()
    script = tmp_path / "script.py"
    script.write_text(
        TOGETHER
        + f"""
from ase import Atoms
from matcompute_kernels import Batch
from matcompute_kernels.drivers import ArraySource, Job, NpyDirectorySink, run
for name in [name for name in os.environ if "LOCAL" in name]:
    del os.environ[name]
source = ArraySource(Batch.from_atoms([Atoms("H")] * 3), size=1)
run(Job(taken, source, NpyDirectorySink({str(tmp_path / "out")!r}), {{"folder": {str(folder)!r}}}), "mpi")
"""
    )
    done = subprocess.run(
        [str(BIN / "mpiexec"), "-n", "3", sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert devices(folder) == ["0", "1", "2"]


CLAIM = """
import sys
from matcompute_kernels.cuda.backend import claim_local_rank, local_rank
assert claim_local_rank(sys.argv[1]) == claim_local_rank(sys.argv[1]) == local_rank()
print(local_rank(), flush=True)
sys.stdin.read()
"""


def test_a_number_is_free_again_when_its_process_has_died(tmp_path):
    group = str(tmp_path)
    started: list[subprocess.Popen[str]] = []

    def start() -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIM, group],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        started.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    try:
        assert [start(), start(), start()] == [0, 1, 2]
        started[1].kill()
        started[1].wait()
        assert start() == 1
        started[0].communicate()  # ends by itself
        assert start() == 0
    finally:
        for process in started:
            if process.poll() is None:
                process.communicate()
    deadline = time.monotonic() + 10
    while list(tmp_path.glob("*.rank")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not list(tmp_path.glob("*.rank"))


def test_what_goes_before_what(monkeypatch):
    monkeypatch.setattr(backend, "_found", None)
    assert local_rank({}) == 0
    assert local_rank({"SLURM_LOCALID": "3"}) == 3
    assert local_rank({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "SLURM_LOCALID": "0"}) == 1
    assert local_rank({"MPI_LOCALRANKID": "x", "SLURM_LOCALID": "2"}) == 2
    monkeypatch.setattr(backend, "_found", 5)
    assert local_rank({"SLURM_LOCALID": "3"}) == 5
    assert local_rank({"MATCOMPUTE_LOCAL_RANK": "7", "SLURM_LOCALID": "3"}) == 7
    assert device_index(4, {}) == 1
