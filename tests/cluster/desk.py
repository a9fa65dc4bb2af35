"""A scientist's desk: a workspace of its own, the command line, and a look into everything that campaigns do."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import psutil
from ase.build import bulk

from .services import Site

__all__ = ["CAMPAIGN", "Desk", "events", "job_folders", "write_structures"]

PROGRAM = Path(sys.executable).parent / "matcompute"
CAMPAIGN = """\
schema: matcompute.campaign/v1
name: {name}
title: rattled fcc alloys
domain: advanced-nonferrous-metals
licence: CC0-1.0
contributors: [{{name: matcompute tests}}]
classification: {{grade: {grade}}}
structures:
  - files: {structures}
stages:
  - relax: {{calculator: emt, cell: false, fmax: 0.01 eV/angstrom, batch_size: {size}, resources: {{processes: 2}}}}
"""


def write_structures(path: Path, count: int, seed: int = 5, *, small: bool = False) -> Path:
    """Write rattled fcc alloys that take about a tenth of a second each, small ones a few hundredths."""
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(count):
        pair = [("Cu", "Au"), ("Ag", "Au"), ("Ag", "Cu")][number % 3]
        atoms = bulk("Cu", "fcc", a=3.95, cubic=True).repeat(1 if small else 2)
        atoms.symbols = rng.choice(pair, size=len(atoms))
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return path


class Desk:
    """A workspace folder and what the tests do in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "workspace"
        self.environment = {**os.environ, "HOME": str(folder / "home"), "COLUMNS": "160"}
        for name in ("AIIDA_PATH", "MATCOMPUTE_WORKSPACE"):
            self.environment.pop(name, None)
        (folder / "home").mkdir(parents=True)
        self.matcompute("init", str(self.root))

    # ------------------------------------------------------------------ commands
    def matcompute(
        self, *arguments: str | Path, check: bool = True, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line as a user does."""
        done = subprocess.run(
            [str(PROGRAM), "-w", str(self.root), *map(str, arguments)],
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
            assert done.returncode == 0, (
                f"matcompute {' '.join(map(str, arguments))}\n{done.stdout}\n{self.log()}"
            )
        return done

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Run the command line in the background."""
        return subprocess.Popen(
            [str(PROGRAM), "-w", str(self.root), *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def register(self, site: Site, **overrides: Any) -> None:
        """Register a centre."""
        self.matcompute("centre", "register", site.profile(self.folder, **overrides))

    def only(self, site: Site, **overrides: Any) -> None:
        """Register a centre and forget all others."""
        for path in (self.root / "centres").glob("*.yaml"):
            if path.stem not in (site.name, f"{site.name}.values"):
                self.matcompute("centre", "remove", path.stem, "--yes")
        self.register(site, **overrides)

    def campaign(
        self, name: str, structures: Path, *, size: int, grade: str = "general", more: str = ""
    ) -> Path:
        """Write a campaign file."""
        path = self.folder / f"{name}.yaml"
        path.write_text(CAMPAIGN.format(name=name, structures=structures, size=size, grade=grade) + more)
        return path

    def dataset(self, name: str) -> Path:
        """Return where a campaign's dataset is written."""
        return self.root / "datasets" / f"{name}.h5"

    def log(self) -> str:
        """Return the end of the dispatcher's log."""
        path = self.root / "logs" / "dispatcher.log"
        return path.read_text()[-8000:] if path.exists() else ""

    # ------------------------------------------------------------------ a look into the tables
    def query(self, statement: str, *values: object) -> list[tuple]:
        """Ask the state tables."""
        connection = sqlite3.connect(f"file:{self.root / 'state.sqlite'}?mode=ro", uri=True, timeout=30)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def state(self, name: str) -> str:
        """Return a campaign's state."""
        found = self.query("SELECT state FROM campaign WHERE name = ?", name)
        return found[0][0] if found else ""

    def processes(self, name: str) -> list[str]:
        """Return the AiiDA processes of a campaign's batches."""
        rows = self.query(
            "SELECT b.process_uuid FROM batch b JOIN campaign c ON c.id = b.campaign_id "
            "WHERE c.name = ? AND b.process_uuid IS NOT NULL ORDER BY b.id",
            name,
        )
        return [row[0] for row in rows]

    def centres_used(self, name: str) -> Counter[str]:
        """Count the submissions of a campaign by centre."""
        rows = self.query(
            "SELECT s.centre, count(*) FROM submission s JOIN campaign c ON c.id = s.campaign_id "
            "WHERE c.name = ? GROUP BY 1",
            name,
        )
        return Counter(dict(rows))

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 300) -> Any:
        """Wait for something."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(f"{what} did not happen within {timeout:.0f} s\n{self.log()}")

    # ------------------------------------------------------------------ processes
    def dispatcher(self) -> int | None:
        """Return the process id of the living dispatcher."""
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            ours = "matcompute.campaign.dispatcher" in command and str(self.root) in command
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                return process.pid
        return None

    def stop(self) -> None:
        """End everything that runs in the workspace."""
        pid = self.dispatcher()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            self.until(lambda: self.dispatcher() is None, "the end of the dispatcher", 60)
        self.matcompute("workspace", "stop", check=False)


# ---------------------------------------------------------------------- what was computed
def job_folders(sites: Iterable[Site]) -> set[Path]:
    """Return the folders of all jobs at some centres."""
    return {path.parent for site in sites for path in site.scratch.glob("*/*/*/task.json")}


def events(folders: Iterable[Path], event: str) -> Counter[str]:
    """Count an event of the journals by entry id.

    A job that goes on from another one's checkpoint has a copy of its journal: equal lines are one event.
    """
    lines = set()
    for folder in folders:
        for journal in folder.glob("checkpoint/journal-*.jsonl"):
            lines |= {line for line in journal.read_text().splitlines() if line.endswith("}")}
    return Counter(data["id"] for data in map(json.loads, lines) if data["event"] == event)
