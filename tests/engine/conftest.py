"""A workspace with a real AiiDA daemon, campaigns that last long enough to be killed, and a look into everything."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).parent / "matcompute"

#: Structures of the campaigns that are killed, and how many workers share them.
COUNT = 16
CAMPAIGN = """\
schema: matcompute.campaign/v1
name: {name}
title: rattled fcc alloys
domain: advanced-nonferrous-metals
licence: CC0-1.0
contributors: [{{name: matcompute tests}}]
structures:
  - files: rattled.extxyz
stages:
  - relax: {{calculator: emt, cell: false, fmax: 0.005 eV/angstrom, batch_size: {size}, resources: {{{resources}}}}}
  - hull: {{}}
  - eos: {{calculator: emt, points: 5, resources: {{{resources}}}}}
  - top: {{n: 5, by: bulk_modulus}}
"""


class Site:
    """A workspace folder and what the tests do in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "workspace"
        self.environment = {**os.environ, "HOME": str(folder / "home"), "COLUMNS": "120"}
        for name in ("AIIDA_PATH", "MATCOMPUTE_WORKSPACE"):
            self.environment.pop(name, None)
        (folder / "home").mkdir(exist_ok=True)

    # ------------------------------------------------------------------ commands
    def matcompute(
        self, *arguments: str, check: bool = True, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line as a user does."""
        result = subprocess.run(
            [str(PROGRAM), "-w", str(self.root), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert result.returncode == 0, f"matcompute {' '.join(arguments)}\n{result.stdout}\n{self.log()}"
        return result

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run the command line in the background."""
        return subprocess.Popen(
            [str(PROGRAM), "-w", str(self.root), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def status(self, name: str) -> dict[str, Any]:
        return json.loads(self.matcompute("campaign", "status", name, "--json").stdout)

    def log(self) -> str:
        path = self.root / "logs" / "dispatcher.log"
        return path.read_text()[-6000:] if path.exists() else ""

    def walk(self, dataset: Path) -> dict[str, Any]:
        """Walk everything in a dataset back to its source, see ``walk.py``."""
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("walk.py")), str(self.root), str(dataset)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def dataset(self, name: str) -> Path:
        return self.root / "datasets" / f"{name}.h5"

    def campaign_file(self, name: str, *, resources: str = "processes: 2", size: int = 16) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(CAMPAIGN.format(name=name, resources=resources, size=size))
        return path

    # ------------------------------------------------------------------ a look into the tables
    def query(self, statement: str, *values: object) -> list[tuple]:
        connection = sqlite3.connect(f"file:{self.root / 'state.sqlite'}?mode=ro", uri=True, timeout=30)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 120) -> Any:
        """Wait for something."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{what} did not happen within {timeout:.0f} s\n{self.log()}")

    def campaign_state(self, name: str) -> str:
        found = self.query("SELECT state FROM campaign WHERE name = ?", name)
        return found[0][0] if found else ""

    # ------------------------------------------------------------------ processes
    def dispatcher(self) -> int | None:
        """Process id of the living dispatcher."""
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            ours = "matcompute.campaign.dispatcher" in command and str(self.root) in command
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                return process.pid
        return None

    def daemon(self, part: str) -> list[int]:
        """Process ids of a part of the AiiDA daemon: worker, broker or start-circus (the supervisor)."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if part in command and any(str(self.root) in word for word in command):
                found.append(process.pid)
        return found

    def node_programs(self) -> list[psutil.Process]:
        """Node programs that run in this workspace, workers and MPI ranks included."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            command = " ".join(process.info["cmdline"] or [])
            inside = str(process.info["cwd"] or "").startswith(str(self.root / "scratch"))
            if inside and "matcompute-node" in command and "python" in command and "mpiexec" not in command:
                found.append(process)
        return found

    # ------------------------------------------------------------------ what was computed
    def jobs(self) -> set[Path]:
        """Folders of all jobs so far."""
        return {path.parent for path in (self.root / "scratch").glob("*/*/*/task.json")}

    def events(self, folders: set[Path], event: str) -> Counter[tuple[str, str]]:
        """Count an event of the journals by stage and entry id.

        A job that goes on from another one's checkpoint has a copy of its journal: equal lines are one event.
        """
        lines = set()
        for folder in folders:
            stage = json.loads((folder / "task.json").read_text())["stage"]
            for journal in folder.glob("checkpoint/journal-*.jsonl"):
                lines |= {(stage, line) for line in journal.read_text().splitlines() if line.endswith("}")}
        counts: Counter[tuple[str, str]] = Counter()
        for stage, line in lines:
            data = json.loads(line)
            if data["event"] == event:
                counts[stage, data["id"]] += 1
        return counts

    def done(self, folders: set[Path], stage: str | None = None) -> int:
        """How many structures are finished in some jobs."""
        return sum(n for (where, _), n in self.events(folders, "done").items() if stage in (None, where))

    def stop(self) -> None:
        """End everything that runs in the workspace."""
        pid = self.dispatcher()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            self.until(lambda: self.dispatcher() is None, "the end of the dispatcher", 30)
        self.matcompute("workspace", "stop", check=False)


def write_structures(path: Path, count: int = COUNT, seed: int = 3) -> None:
    """Write rattled fcc alloys that take a few tenths of a second each."""
    import ase.io
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    frames = []
    for number in range(count):
        a, b = [("Cu", "Au"), ("Ag", "Au"), ("Ag", "Cu")][number % 3]
        atoms = bulk("Cu", "fcc", a=3.95, cubic=True).repeat(3)
        atoms.symbols = rng.choice([a, b], size=len(atoms))
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A workspace with structures, shared by the tests of this folder."""
    folder = tmp_path_factory.mktemp("engine")
    site = Site(folder)
    write_structures(folder / "rattled.extxyz")
    site.matcompute("init", str(site.root))
    yield site
    site.stop()


@pytest.fixture(scope="session")
def undisturbed(site: Site) -> Path:
    """The dataset of a campaign that nobody disturbed."""
    before = site.jobs()
    site.matcompute("campaign", "run", str(site.campaign_file("undisturbed")))
    counts = site.events(site.jobs() - before, "done")
    assert counts
    assert set(counts.values()) == {1}
    return site.dataset("undisturbed")


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[Site]:
    """A workspace of a test's own."""
    site = Site(tmp_path)
    write_structures(tmp_path / "rattled.extxyz", count=4)
    site.matcompute("init", str(site.root))
    yield site
    site.stop()
