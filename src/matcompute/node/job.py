"""One job: the task file with everything that it names found, checked and ready to compute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from matcompute import plugins
from matcompute.errors import InputError, MatcomputeError
from matcompute.node.adapters import (
    CalculatorAdapter,
    NoCalculator,
    StructureTask,
    TaskAdapter,
    file_sha256,
)
from matcompute.node.errors import ModelError, TaskFileError, UnavailableError
from matcompute.node.taskfile import CalculatorSpec, TaskFile, describe_validation

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

    from matcompute_kernels.batch import Batch

__all__ = ["Job", "load_adapter"]

#: Part of every digest: raise it when the meaning of a checkpointed result changes.
_DIGEST_VERSION = "1"


@dataclass
class Job:
    """What a worker needs to compute any structure of the shard.

    Parameters
    ----------
    folder
        Where the task file is; every path of it starts here.
    spec
        The task file.
    task, parameters
        The task's adapter and its checked parameters.
    adapter, calculator_parameters
        The calculator's adapter and its checked parameters (:class:`NoCalculator` if the task needs none).
    model_path, model_sha256
        Weights in use (the shipped ones unless the task file names others); None for a model without a file.
    ids, batch
        Entry ids and packed structures of the shard.
    magmoms
        Moment of each site in μ_B that an earlier stage found (f8[M], NaN where it found none); None if the shard has
        none, or the calculator does not start from them.
    version, species
        Of the calculator with these parameters.
    """

    folder: Path
    spec: TaskFile
    task: TaskAdapter
    parameters: Any
    adapter: CalculatorAdapter
    calculator_parameters: dict[str, Any]
    model_path: Path | None
    model_sha256: str | None
    ids: list[str]
    batch: Batch
    magmoms: np.ndarray | None = None
    version: str = ""
    species: frozenset[str] = frozenset()
    digests: list[str] = field(default_factory=list)
    _calculator: BaseCalculator | None = None

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Job:
        """Read a task file and what it names.

        Parameters
        ----------
        path
            The task file.
        overrides
            Fields of the task file replaced by the command line.

        Raises
        ------
        TaskFileError, ModelError, UnavailableError
            With the key or the file, and what to do.
        """
        path = Path(path).absolute()
        spec = TaskFile.read(path)
        changes = {k: v for k, v in (overrides or {}).items() if v is not None}
        spec = spec.model_copy(update=changes)
        folder = path.parent
        task = load_adapter("matcompute.tasks", spec.task)
        try:
            model = task.model_for(spec.parameters)
        except InputError as error:
            raise TaskFileError(f"{path}: parameters: {error.message}", hint=error.hint) from error
        parameters = _validate(model, spec.parameters, path, "parameters")
        for package in task.packages(parameters):
            if find_spec(package) is None:
                raise UnavailableError(
                    f"task '{task.name}' with these parameters needs the package '{package}', "
                    "which is not installed here",
                    hint=f"pip install {package} on the compute node",
                )
        adapter, calculator = _calculator_of(spec, task, parameters, path)
        calculator_parameters = _validate(
            adapter.Parameters, calculator.parameters, path, "calculator.parameters"
        )
        calculator_values = calculator_parameters.model_dump(mode="json")
        missing = adapter.missing(calculator_values)
        if missing is not None:
            raise UnavailableError(missing[0], hint=missing[1])
        model_path, model_sha256 = _find_model(folder, calculator, adapter, calculator_values)
        ids, batch, magmoms = _read_shard(folder / spec.structures, adapter.starts_from_magmoms)
        job = cls(
            folder, spec, task, parameters, adapter, calculator_values, model_path, model_sha256, ids, batch
        )
        job.magmoms = magmoms
        job.version = adapter.version_for(calculator_values)
        job.species = adapter.species_for(calculator_values)
        job.digests = job._digests()
        return job

    # -- places -----------------------------------------------------------------------------------------------

    @property
    def checkpoint(self) -> Path:
        """The checkpoint folder."""
        return self.folder / self.spec.checkpoint

    @property
    def results(self) -> Path:
        """The result shard."""
        return self.folder / self.spec.results

    @property
    def slots(self) -> Path | None:
        """The folder of core slots, or None."""
        return None if self.spec.slots is None else self.folder / self.spec.slots

    @property
    def margin_s(self) -> float:
        """Time kept free at the end of the walltime, in s."""
        if self.spec.walltime_s is None:
            return self.spec.margin_s
        return min(self.spec.margin_s, 0.2 * self.spec.walltime_s)

    # -- work -------------------------------------------------------------------------------------------------

    def known_elements(self, numbers: np.ndarray) -> list[str]:
        """Return those of some atoms' elements that the calculator knows, in order of their numbers."""
        from matcompute_kernels.elements import SYMBOLS

        return [SYMBOLS[z] for z in np.unique(numbers) if SYMBOLS[z] in self.species]

    def atoms(self, index: int) -> Atoms:
        """Return a structure for the calculator, with the moments of an earlier stage where it starts from them."""
        atoms: Atoms = self.batch.to_atoms(index)
        if self.magmoms is not None:
            mine = self.magmoms[self.batch.ptr[index] : self.batch.ptr[index + 1]]
            if np.isfinite(mine).all():
                atoms.set_initial_magnetic_moments(mine)
        return atoms

    def key(self, index: int) -> tuple[str, str]:
        """Return entry id and digest of a structure: what its checkpointed result is filed under."""
        return self.ids[index], self.digests[index]

    def costs(self) -> np.ndarray:
        """Return the estimated time of each structure in s on one core, f8[N]."""
        if isinstance(self.task, StructureTask):
            return np.asarray(self.task.seconds(self.parameters, self.batch.n_sites), dtype=float)
        per_evaluation = np.asarray(self.adapter.evaluation_cost(self.batch.n_sites), dtype=float)
        return np.broadcast_to(per_evaluation * self.task.evaluations(self.parameters), (len(self.ids),))

    def calculator(self) -> BaseCalculator:
        """Return the calculator of this process, loaded on the first call."""
        if self._calculator is None:
            try:
                self._calculator = self.adapter.load(
                    self.calculator_parameters, self.model_path, self.spec.threads
                )
            except ImportError as error:
                raise UnavailableError(
                    f"calculator '{self.adapter.name}' cannot be loaded: {error}",
                    hint="install the missing package on the compute node",
                ) from error
        return self._calculator

    def preload(self) -> None:
        """Import what workers need, and the calculator if that is safe, before they are forked from this process."""
        if isinstance(self.task, StructureTask):
            self.task.preload(self.parameters)
            return
        import ase.filters
        import ase.optimize  # noqa: F401

        if self.adapter.fork_safe(self.calculator_parameters):
            self.calculator()

    def _digests(self) -> list[str]:
        # The version of the calculator's package belongs to the result as much as the weights do.
        method = {
            "digest": _DIGEST_VERSION,
            "task": self.task.name,
            "parameters": self.parameters.model_dump(mode="json"),
            "calculator": self.adapter.name,
            "calculator_parameters": self.calculator_parameters,
            "version": self.version,
            "model": self.model_sha256,
        }
        base = hashlib.blake2b(json.dumps(method, sort_keys=True).encode(), digest_size=16)
        # The exact bytes, not the invariant structure hash: forces turn with the axes.
        batch, digests = self.batch, []
        has_potentials = bool(self._potential_sha256(batch.numbers))
        for i in range(len(batch)):
            a, b = batch.ptr[i], batch.ptr[i + 1]
            one = base.copy()
            one.update(batch.numbers[a:b].tobytes())
            one.update(batch.positions[a:b].tobytes())
            one.update(batch.cell[i].tobytes())
            one.update(batch.pbc[i].tobytes())
            if self.magmoms is not None:
                one.update(self.magmoms[a:b].tobytes())
            if has_potentials:
                one.update(self._potential_sha256(batch.numbers[a:b]).encode())
            digests.append(one.hexdigest())
        return digests

    def _potential_sha256(self, numbers: np.ndarray) -> str:
        return self.adapter.potential_sha256(self.calculator_parameters, self.known_elements(numbers))


def load_adapter(group: str, name: str) -> Any:
    """Return the adapter instance of an entry point.

    Raises
    ------
    UnavailableError
        If there is none of that name here, it cannot be imported, or it works structure by structure.
    """
    try:
        adapter = plugins.load(group, name)
    except InputError as error:
        raise UnavailableError(error.message, hint=error.hint) from error
    if getattr(adapter, "per_structure", False):
        raise UnavailableError(
            f"'{name}' gives each structure a process of its own, which a workspace runs and the node program does not",
            hint="use it in a campaign: matcompute campaign run FILE",
        )
    return adapter() if isinstance(adapter, type) else adapter


def _validate(model: type[Any], values: dict[str, Any], path: Path, key: str) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise TaskFileError(f"{path}: " + describe_validation(error, model, prefix=key)) from error


def _calculator_of(
    spec: TaskFile, task: TaskAdapter, parameters: Any, path: Path
) -> tuple[CalculatorAdapter, CalculatorSpec]:
    """Return the calculator's adapter and what the task file says of it."""
    if isinstance(task, StructureTask):
        if spec.calculator is not None:
            raise TaskFileError(f"{path}: calculator: task '{task.name}' needs none")
        none = NoCalculator(task, parameters)
        return none, CalculatorSpec(name=none.name)
    if spec.calculator is None:
        raise TaskFileError(f"{path}: calculator: task '{task.name}' needs one")
    return load_adapter("matcompute.calculators", spec.calculator.name), spec.calculator


def _find_model(
    folder: Path, calculator: CalculatorSpec, adapter: CalculatorAdapter, parameters: dict[str, Any]
) -> tuple[Path | None, str | None]:
    wanted = calculator.model_sha256
    path = adapter.model_path(parameters)
    if calculator.model is not None:
        path = folder / calculator.model
        origin = "calculator.model of the task file"
    else:
        origin = f"the weights that ship with '{adapter.package}'"
    if path is None:
        if wanted is not None:
            raise ModelError(
                f"the task asks for weights {wanted[:12]}…, calculator '{adapter.name}' has no model file"
            )
        return None, None
    try:
        found = file_sha256(path)
    except OSError as error:
        raise ModelError(
            f"model file {path} ({origin}) cannot be read: {error.strerror}",
            hint="put the file in place, or leave 'model' out to use the shipped weights",
        ) from error
    if wanted is not None and found != wanted:
        raise ModelError(
            f"model file {path} ({origin}) has SHA-256 {found}, the task asks for {wanted}",
            hint="use the same weights everywhere, or mend calculator.model_sha256",
        )
    return path, found


def _read_shard(path: Path, with_magmoms: bool) -> tuple[list[str], Batch, np.ndarray | None]:
    from matcompute.dataset import Dataset

    try:
        with Dataset(path) as shard:
            magmoms = None
            if with_magmoms and "magmom" in shard.properties:
                magmoms = np.asarray(shard.column("magmom"), dtype=float)
            return [str(name) for name in shard.ids], shard.batch(), magmoms
    except (MatcomputeError, OSError, KeyError, ValueError) as error:
        text = error.message if isinstance(error, MatcomputeError) else str(error)
        raise TaskFileError(
            text if str(path) in text else f"{path}: {text}",
            hint=getattr(error, "hint", None)
            or "the input shard must be a sound dataset v1 file: copy it again",
        ) from error
