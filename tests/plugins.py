"""Third parties' calculators as tests need them: real packages with entry points, and one that waits at a gate."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["GATED", "GO_THROUGH", "Gate", "write_plugin"]

#: Source of the function with which a calculator waits at a :class:`Gate`.
GO_THROUGH = """
import time

def go_through(gate):
    while gate.is_dir():
        for ticket in gate.glob("ticket-*"):
            try:
                ticket.unlink()
                return
            except FileNotFoundError:
                continue  # another worker was quicker
        time.sleep(0.01)
"""

#: Source of the calculator ``gated``: EMT that waits at the gate beside its module before each structure.
GATED = (
    GO_THROUGH
    + '''
from pathlib import Path
from ase.calculators.emt import EMT
from matcompute.node.calculators.emt import EMTCalculator

class GatedEMT(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if "numbers" in system_changes:  # a structure's first evaluation
            go_through(Path(__file__).with_name("gate"))
        super().calculate(atoms, properties, system_changes)

class Gated(EMTCalculator):
    """EMT behind a gate."""
    name = "gated"

    def load(self, parameters, model_path, threads):
        return GatedEMT()

gated = Gated()
'''
)


def write_plugin(folder: Path, module: str, source: str, *calculators: str) -> None:
    """Write a package with calculators (its attributes of these names), to be found through PYTHONPATH."""
    information = folder / f"{module}-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    points = [f"{name} = {module}:{name}\n" for name in calculators]
    (information / "entry_points.txt").write_text("[matcompute.calculators]\n" + "".join(points))


class Gate:
    """A folder at which structures wait for a ticket, so that kills can be aimed, however fast the machine is.

    It is open unless :meth:`close` was called.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    def close(self) -> None:
        """Let no further structure begin."""
        self._folder.mkdir(exist_ok=True)

    def let_one_pass(self) -> None:
        """Let one structure begin, if the last ticket was taken."""
        if not any(self._folder.glob("ticket-*")):
            self._count += 1
            (self._folder / f"ticket-{self._count}").touch()

    def open(self) -> None:
        """Let all pass."""
        shutil.rmtree(self._folder, ignore_errors=True)
