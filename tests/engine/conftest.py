"""A workspace with a real AiiDA daemon, campaigns that last long enough to be killed, and a look into everything."""

from __future__ import annotations

import contextlib
import io
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

from tests.plugins import GATED, Gate, write_plugin

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).parent / "matcompute"

#: Structures of the campaigns that are killed.
COUNT = 16
#: Seconds after which something that should happen is given up: far more than a slow, busy machine needs.
PATIENCE_S = 300.0
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
  - relax: {{calculator: gated, cell: false, fmax: 0.005 eV/angstrom, batch_size: {size}, resources: {{{resources}}}}}
  - hull: {{}}
  - eos: {{calculator: gated, points: 5, resources: {{{resources}}}}}
  - top: {{n: 5, by: bulk_modulus}}
"""


class Site:
    """A workspace folder and what the tests do in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "workspace"
        write_plugin(folder / "plugin", "gated", GATED, "gated")
        self.gate = Gate(folder / "plugin" / "gate")
        self.environment = {**os.environ, "HOME": str(folder / "home"), "COLUMNS": "120"}
        self.environment["PYTHONPATH"] = str(folder / "plugin")
        # CuPy makes this folder when it is imported, which dask does for pint; only tests have it installed.
        self.environment["CUPY_CACHE_DIR"] = str(folder / "cupy")
        for name in ("AIIDA_PATH", "MATCOMPUTE_WORKSPACE"):
            self.environment.pop(name, None)
        (folder / "home").mkdir(exist_ok=True)

    # ------------------------------------------------------------------ commands
    def matcompute(
        self, *arguments: str, check: bool = True, timeout: float = PATIENCE_S
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

    def look(self, *arguments: str) -> str:
        """Run a command that only looks, in this process: the second that a new Python needs shows nothing."""
        from matcompute.cli import main

        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            for name in ("HOME", "COLUMNS"):
                patch.setenv(name, self.environment[name])
            patch.setenv("MATCOMPUTE_WORKSPACE", str(self.root))
            patch.setattr(sys, "argv", [str(PROGRAM), *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code, f"matcompute {' '.join(arguments)}\n{printed.getvalue()}\n{self.log()}"
        return printed.getvalue()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run the command line in the background."""
        return subprocess.Popen(
            [str(PROGRAM), "-w", str(self.root), *arguments],
            # A shell that starts the tests in the background has them ignore it, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def status(self, name: str) -> dict[str, Any]:
        return json.loads(self.look("campaign", "status", name, "--json"))

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

    def until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE_S) -> Any:
        """Wait for something."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{what} did not happen within {timeout:.0f} s\n{self.log()}")

    def let_pass_until(self, condition: Callable[[], Any], what: str) -> None:
        """Let structures pass the closed gate one by one until something has happened."""
        self.until(lambda: condition() or self.gate.let_one_pass(), what)

    def campaign_state(self, name: str) -> str:
        found = self.query("SELECT state FROM campaign WHERE name = ?", name)
        return found[0][0] if found else ""

    # ------------------------------------------------------------------ processes
    def _processes(self, ours: Callable[[list[str]], bool]) -> list[psutil.Process]:
        """Return living processes by their command line."""
        return [
            process
            for process in psutil.process_iter(["cmdline", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE and ours(process.info["cmdline"] or [])
        ]

    def dispatchers(self) -> list[psutil.Process]:
        """Living dispatchers: one, and for a moment those that find that it is there."""
        module = "matcompute.campaign.dispatcher"
        return self._processes(lambda command: module in command and str(self.root) in command)

    def daemon(self, part: str) -> list[psutil.Process]:
        """A part of the AiiDA daemon: worker, broker or start-circus (the supervisor)."""
        root = str(self.root)
        return self._processes(lambda command: part in command and any(root in word for word in command))

    def node_programs(self) -> list[psutil.Process]:
        """Node programs that run in this workspace, workers and MPI ranks included."""
        scratch = str(self.root / "scratch")

        def ours(command: list[str]) -> bool:
            line = " ".join(command)
            return "matcompute-node" in line and "python" in line and "mpiexec" not in line

        found = []
        for process in self._processes(ours):
            with contextlib.suppress(psutil.Error):  # it has ended
                if process.cwd().startswith(scratch):
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
            journals = list(folder.glob("checkpoint/journal-*.jsonl"))
            if not journals:
                continue  # its task may still be on its way there
            stage = json.loads((folder / "task.json").read_text())["stage"]
            for journal in journals:
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
        """End everything that runs in the workspace, its jobs too."""
        self.gate.open()
        self.matcompute("workspace", "stop", check=False)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd().startswith(str(self.folder)):
                    process.kill()


def write_structures(path: Path, count: int = COUNT, seed: int = 3) -> None:
    """Write small rattled fcc alloys, no two with the same elements on the same sites."""
    import ase.io
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    frames: dict[str, Any] = {}
    while len(frames) < count:
        a, b = [("Cu", "Au"), ("Ag", "Au"), ("Ag", "Cu")][len(frames) % 3]
        atoms = bulk("Cu", "fcc", a=3.95, cubic=True).repeat((1, 1, 2))
        atoms.symbols = rng.choice([a, b], size=len(atoms))
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        frames[" ".join(atoms.symbols)] = atoms
    ase.io.write(path, list(frames.values()), format="extxyz")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A workspace with structures, shared by the tests of this folder."""
    folder = tmp_path_factory.mktemp("engine")
    site = Site(folder)
    write_structures(folder / "rattled.extxyz")
    site.matcompute("init", str(site.root))
    yield site
    site.stop()


@pytest.fixture(autouse=True)
def _gates_open_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that failed leaves no gate closed to the next one."""
    yield
    if "site" in request.fixturenames:
        request.getfixturevalue("site").gate.open()


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
