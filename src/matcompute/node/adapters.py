"""What a calculator and a task are to the node program: the two base classes that third parties subclass."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

    from matcompute.dataset import PropertyInfo
    from matcompute.dataset.descriptors import BlockSparse
    from matcompute_kernels import Batch

__all__ = [
    "CalculationError",
    "CalculatorAdapter",
    "Deadline",
    "DescriptorOutput",
    "NoCalculator",
    "Parameters",
    "StructureTask",
    "TaskAdapter",
    "TaskResult",
    "file_sha256",
]


class Parameters(BaseModel):
    """Base of parameter models: unknown keys are refused; numbers are in the canonical unit of the field.

    A field names its unit by ``Field(json_schema_extra={"unit": "eV/angstrom"})``; campaign files may then give
    quantities with any convertible unit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=Parameters)


class Deadline(Protocol):
    """Asked between force evaluations whether the work may go on."""

    def check(self) -> None:
        """Raise when the job's walltime, a signal or the structure's own time-out ends the work."""


class NoDeadline:
    """A deadline that never comes, for use outside the runner."""

    def check(self) -> None:
        """Return at once."""


class CalculationError(Exception):
    """A calculator could not evaluate a structure, and knows why.

    Parameters
    ----------
    status
        A :class:`matcompute.dataset.Status` code: what the structure's results get.
    message
        The reason.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = int(status)


@dataclass
class TaskResult:
    """What a task found for one structure.

    Parameters
    ----------
    status
        A :class:`matcompute.dataset.Status` code.
    values
        Entry-level results in the units of the property registry; missing ones are stored as NaN.
    site_values
        Per-site results, arrays of shape [n_sites, ...].
    atoms
        The final structure (the input one for tasks that do not move atoms).
    message
        Why the status is not ``ok``; empty otherwise.
    descriptor
        The structure's row (or a row per site) of the task's descriptor, see :meth:`TaskAdapter.descriptor`.
    """

    status: int
    values: dict[str, float | int | np.ndarray] = field(default_factory=dict)
    site_values: dict[str, np.ndarray] = field(default_factory=dict)
    atoms: Atoms | None = None
    message: str = ""
    descriptor: np.ndarray | BlockSparse | None = None


@dataclass(frozen=True)
class DescriptorOutput:
    """What ``/descriptors/<stage>`` says about the values of a task that gives some.

    Parameters
    ----------
    kernel
        Name of the descriptor.
    parameters
        All of them, in JSON values.
    per
        Whether a row belongs to an entry or to a site.
    units, long_name, definition
        As for properties.
    labels
        Name of each column.
    dtype
        ``f8`` or ``f4``.
    """

    kernel: str
    parameters: dict[str, Any]
    per: Literal["entry", "site"] = "entry"
    units: str = "1"
    long_name: str = ""
    definition: str = ""
    labels: tuple[str, ...] = ()
    dtype: str = "f8"


class CalculatorAdapter(ABC):
    """How the node program finds, loads and describes an energy model.

    An entry point of the group ``matcompute.calculators`` names an *instance* of a subclass.
    """

    #: Name in campaign files, the same as the entry point's.
    name: ClassVar[str]
    #: Distribution whose version is recorded in ``/methods``.
    package: ClassVar[str]
    #: Chemical symbols that the model knows.
    species: ClassVar[frozenset[str]]
    #: Pydantic model of the calculator's own parameters.
    Parameters: ClassVar[type[Parameters]] = Parameters
    #: Same input and one thread give the same bits.
    deterministic: ClassVar[bool] = True
    #: Site properties beyond forces that the calculator gives (``"magmom"``).
    extra_site_properties: ClassVar[frozenset[str]] = frozenset()
    #: Results depend on the moments that an earlier stage found: atoms come with them as initial magnetic moments.
    starts_from_magmoms: ClassVar[bool] = False

    @property
    def version(self) -> str:
        """Version of the package that computes.

        Raises
        ------
        importlib.metadata.PackageNotFoundError
            If it is not installed.
        """
        return metadata.version(self.package)

    def available(self) -> bool:
        """Return whether the package is installed."""
        try:
            return bool(self.version)
        except metadata.PackageNotFoundError:
            return False

    def missing(self, parameters: Mapping[str, Any] | None = None) -> tuple[str, str] | None:
        """Return what these parameters need and this machine lacks, and the remedy; None if all is there."""
        if self.available():
            return None
        return (
            f"calculator '{self.name}' needs the package '{self.package}', which is not installed here",
            f"pip install {self.package} on the compute node",
        )

    def version_for(self, parameters: Mapping[str, Any]) -> str:
        """Return the version of what computes with these parameters."""
        return self.version

    def species_for(self, parameters: Mapping[str, Any]) -> frozenset[str]:
        """Return the chemical symbols that the model knows with these parameters."""
        return self.species

    def potential_sha256(self, parameters: Mapping[str, Any], species: Iterable[str]) -> str:
        """Return one digest of the pseudopotentials of these elements; empty for a model that has none."""
        return ""

    def fork_safe(self, parameters: Mapping[str, Any]) -> bool:
        """Return whether the calculator may be loaded once and its process then forked (no threads, no GPU)."""
        return False

    def model_path(self, parameters: Mapping[str, Any] | None = None) -> Path | None:
        """Return the weights that ship with the package, or None for a model without a file."""
        return None

    def model_sha256(self, parameters: Mapping[str, Any] | None = None) -> str | None:
        """Return the SHA-256 of the shipped weights, or None."""
        path = self.model_path(parameters)
        return None if path is None else file_sha256(path)

    @abstractmethod
    def load(self, parameters: Mapping[str, Any], model_path: Path | None, threads: int) -> BaseCalculator:
        """Return an ASE calculator.

        Parameters
        ----------
        parameters
            Of the model ``Parameters``.
        model_path
            Weights to use in place of the shipped ones.
        threads
            How many threads one evaluation may use.
        """

    @abstractmethod
    def evaluation_cost(self, n_sites: int | np.ndarray) -> Any:
        """Return the estimated time in s of one energy-force-stress evaluation on one core."""

    def method(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return what ``/methods`` records besides code, version and model hash (``model``, ``functional``)."""
        return {"model": self.name, "functional": ""}

    def method_for(self, parameters: Mapping[str, Any], species: Iterable[str]) -> dict[str, Any]:
        """Return :meth:`method` with what depends on the elements of the structures.

        ``cutoff`` (eV) has a field of its own in ``/methods``; everything else is kept under its name, JSON-able.
        """
        described = self.method(parameters)
        return {name: described.get(name, "") for name in ("model", "functional")}


class TaskAdapter(ABC):
    """What the node program does with one structure.

    An entry point of the group ``matcompute.tasks`` names an *instance* of a subclass.
    """

    #: Name in campaign files, the same as the entry point's.
    name: ClassVar[str]
    #: One line of help.
    title: ClassVar[str] = ""
    #: Pydantic model of the task's parameters.
    Parameters: ClassVar[type[Parameters]] = Parameters
    #: Whether a stage of this task names a calculator.
    needs_calculator: ClassVar[bool] = True

    def model_for(self, values: Mapping[str, Any]) -> type[BaseModel]:
        """Return the model of the parameters that a user has written, where it depends on one of them.

        Raises
        ------
        matcompute.errors.InputError
            If that one names nothing; ``key`` attributes are the caller's concern.
        """
        return self.Parameters

    def resolve(self, parameters: Any, species: Sequence[str], n_atoms_max: int) -> Any:
        """Return the parameters with what depends on all structures of a campaign filled in.

        Parameters
        ----------
        parameters
            Of ``Parameters``.
        species
            Chemical symbols that the structures hold.
        n_atoms_max
            Sites of the largest of them.
        """
        return parameters

    def default_name(self, parameters: Any) -> str:
        """Return the name of a stage that the user gives none."""
        return self.name

    def descriptor(self, parameters: Any) -> DescriptorOutput | None:
        """Return the description of the descriptor that the task gives; None if it gives none."""
        return None

    def packages(self, parameters: Any) -> Sequence[str]:
        """Return the modules that these parameters need beside the base install; a job ends (69) if one is missing."""
        return ()

    def result_bytes(self, parameters: Any, n_sites: float) -> float:
        """Return about how many bytes the results of a structure take: batches are kept small enough for memory."""
        return 1e3

    @abstractmethod
    def output_names(self, parameters: Any) -> Sequence[str]:
        """Return the names of the properties that the task gives (keys of ``values`` and ``site_values``)."""

    def outputs(self, parameters: Any) -> list[PropertyInfo]:
        """Return the description of each result column, ``cpu_time`` of the runner included."""
        from matcompute.dataset import PROPERTIES

        names = [*self.output_names(parameters), "cpu_time"]
        return [PROPERTIES[name] for name in names]

    @abstractmethod
    def evaluations(self, parameters: Any) -> float:
        """Return the expected number of energy-force-stress evaluations for one structure."""

    @abstractmethod
    def run(self, atoms: Atoms, calc: BaseCalculator, parameters: Any, deadline: Deadline) -> TaskResult:
        """Compute one structure.

        Parameters
        ----------
        atoms
            The task may change it.
        calc
            A loaded ASE calculator.
        parameters
            An instance of ``Parameters``.
        deadline
            To be asked (``deadline.check()``) between evaluations.
        """


class StructureTask(TaskAdapter):
    """Base of tasks that need no calculator: they work on the packed structure."""

    needs_calculator = False
    #: Distribution whose version is recorded in ``/methods``.
    package: ClassVar[str] = "matcompute"

    @abstractmethod
    def run_structure(
        self, batch: Batch, parameters: Any, deadline: Deadline, *, threads: int = 1
    ) -> TaskResult:
        """Compute one structure (a batch of one)."""

    @abstractmethod
    def seconds(self, parameters: Any, n_sites: np.ndarray) -> np.ndarray:
        """Return the estimated core-seconds of structures with so many sites."""

    def method(self, parameters: Any) -> dict[str, Any]:
        """Return what ``/methods`` records besides package, version and parameters (``name``, ``model``)."""
        return {"name": self.name}

    def preload(self, parameters: Any) -> None:
        """Import what workers need before they are forked; start no threads."""

    def evaluations(self, parameters: Any) -> float:
        return 0.0

    def run(self, atoms: Atoms, calc: BaseCalculator, parameters: Any, deadline: Deadline) -> TaskResult:
        from matcompute_kernels import Batch

        return self.run_structure(Batch.from_atoms([atoms]), parameters, deadline)


class NoCalculator(CalculatorAdapter):
    """Stands where a calculator stands, in jobs of a task that needs none.

    Parameters
    ----------
    task, parameters
        The task, and its checked parameters.
    """

    def __init__(self, task: StructureTask, parameters: Any) -> None:
        from matcompute_kernels.elements import SYMBOLS

        self.task, self.parameters = task, parameters
        self.name = str(task.method(parameters)["name"])  # type: ignore[misc]
        self.package = task.package  # type: ignore[misc]
        self.species = frozenset(SYMBOLS)  # type: ignore[misc]

    def fork_safe(self, parameters: Mapping[str, Any]) -> bool:
        return True

    def load(self, parameters: Mapping[str, Any], model_path: Path | None, threads: int) -> Any:
        return None

    def evaluation_cost(self, n_sites: int | np.ndarray) -> Any:
        return 0.0

    def method(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"model": "", "functional": ""} | self.task.method(self.parameters)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex characters."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
