"""What a calculator is that gets one process per structure: the base class that a code's adapter fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel

from matcompute.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from aiida.engine import ProcessBuilder
    from aiida.orm import AbstractCode, Data, ProcessNode, StructureData

    from matcompute_workflows.dft.tasks import StructureTask

__all__ = ["Found", "Outcome", "Prepared", "Remedy", "StructureCalculator"]


@dataclass(frozen=True)
class Remedy:
    """What the next attempt at a structure does otherwise; factors are of what the stage asked for.

    Attributes
    ----------
    walltime, memory
        Factors.
    remote, structure
        UUIDs of the folder, and of the structure, from which it goes on; None: from the start.
    no_symmetry
        Leave symmetry alone: what the code takes for it does not hold while the cell changes.
    """

    walltime: float = 1.0
    memory: float = 1.0
    remote: str | None = None
    structure: str | None = None
    no_symmetry: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Outcome:
    """How the process of a structure has ended.

    Attributes
    ----------
    status
        A :class:`matcompute.dataset.Status`.
    message
        One clear cause; empty if all is well.
    again
        What another attempt should do otherwise; None: another attempt would end the same.
    """

    status: int
    message: str = ""
    again: Remedy | None = None


@dataclass(frozen=True)
class Prepared:
    """A structure that is ready to be computed.

    Attributes
    ----------
    node
        The structure; sites of one element with different moments are different kinds.
    moments
        Kind → starting magnetic moment in μ_B; None: not magnetic, as far as is known.
    """

    node: StructureData
    moments: Mapping[str, float] | None = None


@dataclass
class Found:
    """Results of one structure, read from the outputs of its process.

    Attributes
    ----------
    values, site_values
        In the units of the property registry.
    positions, cell
        The final structure in Å, f8[n, 3] and f8[3, 3]; None where it is the input's.
    makers
        Column → UUID of the process that made the node which holds it; ``""`` for all others.
    """

    values: dict[str, Any] = field(default_factory=dict)
    site_values: dict[str, np.ndarray] = field(default_factory=dict)
    positions: np.ndarray | None = None
    cell: np.ndarray | None = None
    makers: dict[str, str] = field(default_factory=dict)


class StructureCalculator(ABC):
    """A first-principles code, reached by its own AiiDA plugin.

    An entry point of the group ``matcompute.calculators`` names an *instance* of a subclass.
    """

    #: Says what kind of calculator this is; calculators of the node program have no such attribute.
    per_structure: ClassVar[bool] = True
    #: Name in campaign files, the same as the entry point's.
    name: ClassVar[str]
    #: Name for people.
    title: ClassVar[str]
    #: Distribution of the AiiDA plugin.
    package: ClassVar[str]
    #: Pydantic model of the calculator's own parameters: protocol and what overrides it.
    Parameters: ClassVar[type[BaseModel]]
    #: Tasks by the name of the stage.
    tasks: ClassVar[Mapping[str, StructureTask]]
    #: Atomic numbers or symbols that it knows; None: those of the pseudopotential family, known only in a workspace.
    species: ClassVar[frozenset[str] | None] = None

    @property
    def version(self) -> str:
        """Version of the plugin.

        Raises
        ------
        importlib.metadata.PackageNotFoundError
            If it is not installed.
        """
        return metadata.version(self.package)

    def available(self) -> bool:
        """Return whether the plugin is installed."""
        try:
            return bool(self.version)
        except metadata.PackageNotFoundError:
            return False

    def task(self, kind: str) -> StructureTask:
        """Return a task.

        Raises
        ------
        InputError
            If the code has no such task; those that it has are named.
        """
        if kind not in self.tasks:
            raise InputError(
                f"calculator '{self.name}' has no task '{kind}'{did_you_mean(kind, self.tasks)}",
                hint=f"it has: {', '.join(self.tasks)}",
            )
        return self.tasks[kind]

    # ------------------------------------------------------------------ before anything runs
    @abstractmethod
    def plugins(self, kind: str, task: Any) -> Sequence[str]:
        """Return the AiiDA calculation plugins (``quantumespresso.pw`` …) of the codes that a task needs."""

    @abstractmethod
    def covered(self, parameters: Any) -> frozenset[str]:
        """Return the symbols for which there are potentials in the loaded profile.

        Raises
        ------
        InputError
            If the family does not exist; how to install it is the hint.
        """

    @abstractmethod
    def settings(self, parameters: Any, species: Sequence[str]) -> dict[str, Any]:
        """Return all that decides the numbers, for ``/methods``: protocol, cutoffs, potentials with their SHA-256."""

    @abstractmethod
    def evaluation_cost(self, n_sites: Any, parameters: Any = None) -> Any:
        """Return the estimated core-seconds of one energy of structures with so many sites."""

    def stored_bytes(self, kind: str, task: Any, parameters: Any, n_sites: float) -> float:
        """Return about how many bytes the files of a structure take in the AiiDA repository."""
        return 1.5e5

    # ------------------------------------------------------------------ a structure
    @abstractmethod
    def builder(
        self,
        prepared: Prepared,
        kind: str,
        task: Any,
        parameters: Any,
        *,
        codes: Mapping[str, AbstractCode],
        options: Mapping[str, Any],
        ranks: int = 0,
        remedy: Remedy | None = None,
    ) -> ProcessBuilder:
        """Return a builder of the plugin's work chain, ready for ``aiida.engine.submit``.

        Parameters
        ----------
        prepared
            The structure.
        kind, task
            Task and its checked parameters.
        parameters
            Of ``Parameters``, checked.
        codes
            Calculation plugin → code.
        options
            ``metadata.options`` of every job.
        ranks
            MPI ranks of a job; 0: no MPI.
        remedy
            What is to be done otherwise than the first time.
        """

    @abstractmethod
    def outcome(self, process: ProcessNode, remedy: Remedy | None = None) -> Outcome:
        """Say how a process that has ended did."""

    @abstractmethod
    def outputs(self, process: ProcessNode) -> dict[str, Data]:
        """Return the output nodes that :meth:`read` needs, by short names."""

    @abstractmethod
    def read(self, kind: str, task: Any, nodes: Mapping[str, Data], n_sites: int) -> Found:
        """Read the results of a structure from its output nodes."""

    def code_version(self, nodes: Mapping[str, Data]) -> str:
        """Return the version of the program, as its output says; "" if it does not."""
        return ""

    def jobs(self, kind: str, task: Any) -> int:
        """Return how many jobs a structure has in flight at once at most."""
        return 1
