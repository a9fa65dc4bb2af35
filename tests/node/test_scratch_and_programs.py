"""Scratch folders that go with their worker, and programs that end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from matcompute.node.adapters import NoDeadline
from matcompute.node.deadline import StopRequest, StructureDeadline, TimedOut
from matcompute.node.programs import ProgramError, program_environment, run_program
from matcompute.node.scratch import VARIABLE, scratch_folder, sweep_scratch


def test_scratch_is_removed_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "deep" / "scratch"))
    with scratch_folder("code") as one, scratch_folder("code") as two:
        assert one != two
        assert one.parent == two.parent == tmp_path / "deep" / "scratch"
        (one / "file").write_text("x")
    with pytest.raises(KeyError), scratch_folder("code"):
        raise KeyError
    assert list(one.parent.iterdir()) == []


def test_scratch_of_a_killed_worker_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    code = (
        "import time; from matcompute.node.scratch import scratch_folder\n"
        "with scratch_folder('code') as folder: print(folder, flush=True); time.sleep(600)"
    )
    with (
        scratch_folder("code") as alive,
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as worker,
    ):
        assert worker.stdout is not None
        orphan = Path(worker.stdout.readline().strip())
        assert orphan.is_dir()
        worker.kill()
        worker.wait()
        assert orphan.is_dir()
        sweep_scratch()
        assert not orphan.exists()
        assert alive.is_dir()


def test_ends_of_a_program(tmp_path: Path) -> None:
    def run(script: str) -> ProgramError:
        with pytest.raises(ProgramError) as caught:
            run_program(["sh", "-c", script], tmp_path, tmp_path / "out", NoDeadline())
        return caught.value

    run_program(["sh", "-c", "pwd; echo wrong >&2"], tmp_path, tmp_path / "out", NoDeadline())
    assert (tmp_path / "out").read_text() == f"{tmp_path}\nwrong\n"
    assert (run("exit 3").status, run("exit 3").signal) == (3, None)
    assert run("kill -9 $$").signal == signal.SIGKILL
    # As a launcher tells it.
    assert run("exit 139").signal == signal.SIGSEGV
    with pytest.raises(ProgramError) as missing:
        run_program([str(tmp_path / "none")], tmp_path, tmp_path / "out", NoDeadline())
    assert missing.value.status == 127


def test_deadline_ends_a_program_and_its_children(tmp_path: Path) -> None:
    script = "sleep 600 & echo $! > child; trap '' TERM; wait"
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        run_program(
            ["sh", "-c", script], tmp_path, tmp_path / "out", StructureDeadline(StopRequest(), timeout_s=0.2)
        )
    assert time.monotonic() - begun < 60
    child = int((tmp_path / "child").read_text())
    end = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and "zombie" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < end, "the child goes on"
        time.sleep(0.05)


def test_a_program_is_no_rank_of_the_job() -> None:
    found = program_environment(
        {"PMI_RANK": "1", "PMIX_NAMESPACE": "x", "OMPI_COMM_WORLD_RANK": "1", "PATH": "/bin"}
    )
    assert found == {"PATH": "/bin", "OMPI_MCA_ess_singleton_isolated": "1"}
    assert "PATH" in program_environment(os.environ)
