"""Parts of the dispatcher that need no AiiDA: the lock, the status of entries, a dispatcher that comes and goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from matcompute.campaign.dispatcher.collect import _entry_status
from matcompute.campaign.dispatcher.submit import task_of
from matcompute.campaign.model import Campaign
from matcompute.dataset import Dataset, DatasetWriter, Metadata, Status
from matcompute.errors import MatcomputeError
from matcompute_kernels import Batch

FILE = Path(__file__).parents[2] / "workflows" / "campaigns" / "fcc-alloys-emt.yaml"


def test_the_status_of_an_entry_is_its_worst(tmp_path: Path) -> None:
    path = tmp_path / "shard.h5"
    n = 5
    atoms = [Atoms("Cu", cell=[3 + k, 3, 3], pbc=True) for k in range(n)]
    ok, none = Status.OK, Status.NOT_ATTEMPTED
    with DatasetWriter(path, Metadata()) as writer:
        writer.append(
            Batch.from_atoms(atoms),
            results={"energy": np.zeros(n), "bulk_modulus": np.zeros(n), "cpu_time": np.ones(n)},
            status={
                "energy": np.array([ok, ok, ok, Status.CRASHED, none], dtype="u1"),
                "bulk_modulus": np.array([ok, none, Status.FIT_FAILED, none, none], dtype="u1"),
                "cpu_time": np.full(n, ok, dtype="u1"),
            },
            entry={"message": ["", "", "no fit", "boom", ""]},
        )
    with Dataset(path) as dataset:
        status, messages = _entry_status(dataset)
    assert status.tolist() == [ok, ok, Status.FIT_FAILED, Status.CRASHED, Status.LOST]
    assert messages == [None, None, "no fit", "boom", None]


def test_the_task_pins_the_weights() -> None:
    stage = Campaign.load(FILE).stage("relax")
    task = task_of(stage)
    assert task["calculator"]["name"] == "emt"
    assert task["calculator"]["model_sha256"] is None
    assert task["parameters"]["fmax"] == pytest.approx(0.005)


def test_weights_that_cannot_be_read_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from matcompute.node.calculators import emt

    missing = tmp_path / "weights.bin"
    monkeypatch.setattr(type(emt.EMT), "model_path", lambda self, parameters=None: missing)
    with pytest.raises(MatcomputeError, match=r"model of 'emt' cannot be read.*weights\.bin"):
        task_of(Campaign.load(FILE).stage("relax"))


def test_the_lock_is_free_after_kill_9(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from matcompute.campaign.dispatcher.launch import dispatcher_alive

    workspace = SimpleNamespace(root=tmp_path)
    program = (
        "import sys, time; from pathlib import Path; from types import SimpleNamespace\n"
        "from matcompute.campaign.dispatcher.launch import dispatcher_lock\n"
        "lock = dispatcher_lock(SimpleNamespace(root=Path(sys.argv[1]))); lock.acquire(); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    assert not dispatcher_alive(workspace)  # type: ignore[arg-type]
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert dispatcher_alive(workspace)  # type: ignore[arg-type]
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert not dispatcher_alive(workspace)  # type: ignore[arg-type]
