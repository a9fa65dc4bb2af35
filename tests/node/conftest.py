"""Jobs of the node program for tests, and a plug-in package with calculators that misbehave on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute.dataset import Dataset, DatasetWriter, Metadata
from matcompute.node.checkpoint import count_journal
from matcompute_kernels import Batch
from tests.plugins import GO_THROUGH, Gate, write_plugin

BIN = Path(sys.executable).parent
#: Seconds after which something that should happen is given up: far more than a slow, busy machine needs.
PATIENCE_S = 300.0

PLUGIN = (
    GO_THROUGH
    + '''
import os, signal
from pathlib import Path
from ase.calculators.emt import EMT
from matcompute.node.adapters import CalculatorAdapter


class Slow(EMT):
    """EMT that takes its time and waits at a gate: kills can be aimed."""
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if "numbers" in system_changes:  # a structure's first evaluation
            go_through(Path(os.environ["TEST_GATE"]))
        super().calculate(atoms, properties, system_changes)
        time.sleep(float(os.environ.get("TEST_SLEEP", "0")))


class Faulty(EMT):
    """What a bad structure can do, by element."""
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        symbols = set(atoms.symbols)
        if symbols == {"Pd"}:
            os.kill(os.getpid(), signal.SIGSEGV)
        if symbols == {"Pt"}:
            raise ArithmeticError("the potential is singular here")
        if symbols == {"Ag"}:
            self.results["energy"] = float("nan")
        if symbols == {"Au"}:
            time.sleep(60)
        if symbols == {"Ni"}:
            time.sleep(2.5)


class _Base(CalculatorAdapter):
    package = "ase"
    species = frozenset({"Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt"})
    kind = EMT

    def load(self, parameters, model_path, threads):
        return self.kind()

    def evaluation_cost(self, n_sites):
        return 0.001 * n_sites


class SlowAdapter(_Base):
    name = "slow"
    kind = Slow


class FaultyAdapter(_Base):
    name = "faulty"
    kind = Faulty


slow, faulty = SlowAdapter(), FaultyAdapter()
'''
)


@pytest.fixture(scope="session")
def plugin_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for PYTHONPATH that holds the plug-in."""
    root = tmp_path_factory.mktemp("plugin") / "package"
    write_plugin(root, "badcalculators", PLUGIN, "slow", "faulty")
    return root


def alloys(n: int, seed: int = 0, sites: int = 4) -> list[Atoms]:
    """Return n different small fcc alloys with rattled positions."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        atoms = bulk("Cu", "fcc", a=3.9, cubic=True)
        if sites > 4 and i % 3 == 0:
            atoms = atoms.repeat((1, 1, 2))
        atoms.numbers[:] = rng.choice([13, 29, 47, 79, 28, 46, 78], len(atoms))
        atoms.rattle(0.05, seed=seed * 1000 + i)
        found.append(atoms)
    return found


class JobFolder:
    """A job's folder and the ways to run it."""

    def __init__(self, folder: Path, plugin_path: Path) -> None:
        self.folder = folder
        self.gate = Gate(folder / "gate")
        self.env = os.environ | {"PYTHONPATH": str(plugin_path), "TEST_GATE": str(folder / "gate")}
        self.env.pop("MATCOMPUTE_TRACEBACK", None)

    def write(
        self,
        structures: list[Atoms] | None,
        task: str = "relax",
        parameters: dict[str, Any] | None = None,
        calculator: str | dict[str, Any] = "emt",
        **more: Any,
    ) -> JobFolder:
        self.folder.mkdir(parents=True, exist_ok=True)
        if structures is not None:
            with DatasetWriter(
                self.folder / "structures.h5", Metadata(title="test"), overwrite=True
            ) as writer:
                writer.append(
                    Batch.from_atoms(structures), ids=[f"entry-{i}" for i in range(len(structures))]
                )
        spec = {
            "schema": "matcompute.task/v1",
            "task": task,
            "parameters": parameters or {},
            "calculator": {"name": calculator} if isinstance(calculator, str) else calculator,
            "structures": "structures.h5",
            "processes": 2,
        }
        (self.folder / "task.json").write_text(json.dumps(spec | more))
        return self

    def command(self, *options: str, ranks: int = 0) -> list[str]:
        launcher = [str(BIN / "mpiexec"), "-n", str(ranks)] if ranks else []
        return [*launcher, str(BIN / "matcompute-node"), "run", str(self.folder / "task.json"), *options]

    def start(self, *options: str, ranks: int = 0, **popen: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*options, ranks=ranks),
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )

    def run(
        self, *options: str, ranks: int = 0, timeout: float = PATIENCE_S, **popen: Any
    ) -> subprocess.CompletedProcess[str]:
        with self.start(*options, ranks=ranks, **popen) as process:
            out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def done(self) -> dict[str, int]:
        return count_journal(self.folder / "checkpoint")

    def starts(self) -> int:
        return sum(count_journal(self.folder / "checkpoint", "start").values())

    def let_done(self, count: int, process: subprocess.Popen[str]) -> None:
        """Let structures of a running job pass the closed gate until so many are finished."""
        end = time.monotonic() + PATIENCE_S
        while len(self.done()) < count:
            self.gate.let_one_pass()
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "the job does not get on"
            time.sleep(0.01)

    def wait_begun(self, count: int, process: subprocess.Popen[str]) -> None:
        """Wait until so many structures were begun."""
        end = time.monotonic() + PATIENCE_S
        while self.starts() < count:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "the job does not begin"
            time.sleep(0.01)

    def pids(self) -> set[int]:
        """Return the process ids of the workers that have begun structures."""
        found = set()
        for path in (self.folder / "checkpoint").glob("journal-[0-9]*.jsonl"):
            found |= {json.loads(line)["pid"] for line in path.read_text().splitlines()}
        return found

    @property
    def summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return content

    def results(self) -> Dataset:
        return Dataset(self.folder / "results.h5")

    def values(self) -> dict[str, np.ndarray]:
        """Return everything that has to be the same however the job ran."""
        with self.results() as shard:
            batch = shard.batch()
            found = {"positions": batch.positions, "cell": batch.cell, "numbers": batch.numbers}
            for name in shard.properties:
                found[f"{name}_status"] = shard.status(name)
                if name != "cpu_time":
                    found[name] = shard.column(name)
            return found | {"ids": shard.ids, "message": shard.entry_column("message")}


@pytest.fixture
def make_job(tmp_path: Path, plugin_path: Path) -> Callable[..., JobFolder]:
    """Return a function that makes the job folder ``name``."""

    def make(name: str = "job", **spec: Any) -> JobFolder:
        job = JobFolder(tmp_path / name, plugin_path)
        if spec:
            job.write(**spec)
        return job

    return make


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Compare two :meth:`JobFolder.values`, bit for bit."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture
def same() -> Callable[..., None]:
    return assert_same


@pytest.fixture
def make_alloys() -> Callable[..., list[Atoms]]:
    return alloys
