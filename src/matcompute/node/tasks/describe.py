"""A descriptor of each structure, by the kernels that the entry points of ``matcompute.kernels`` name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, create_model

from matcompute.errors import InputError, did_you_mean
from matcompute.node.adapters import (
    Deadline,
    DescriptorOutput,
    Parameters,
    StructureTask,
    TaskResult,
)
from matcompute.node.descriptors import (
    DescriptorAdapter,
    DescriptorParameters,
    Facts,
    descriptor_adapter,
    descriptor_names,
)

if TYPE_CHECKING:
    from matcompute_kernels import Batch

__all__ = ["Describe", "DescribeParameters", "DescribeTask"]

#: Seconds that a structure takes beside the kernel: the record, the messages between processes.
_OVERHEAD_S = 1e-3


class DescribeParameters(Parameters):
    """What every descriptor's parameters begin with."""

    descriptor: str = Field(description="Which descriptor: a name registered in `matcompute.kernels`.")


@cache
def _model(name: str) -> type[BaseModel]:
    """Return the parameters of a descriptor with the key that names it."""
    kind: Any = Literal[name]
    field = Field(description=descriptor_adapter(name).title)
    base = descriptor_adapter(name).Parameters
    return create_model(f"Describe_{name}", __base__=base, descriptor=(kind, field))


def _own(parameters: Any) -> tuple[DescriptorAdapter, DescriptorParameters]:
    """Return the descriptor and its own parameters."""
    adapter = descriptor_adapter(parameters.descriptor)
    values = {key: value for key, value in parameters.model_dump(mode="json").items() if key != "descriptor"}
    return adapter, adapter.Parameters.model_validate(values)


class DescribeTask(StructureTask):
    """One descriptor."""

    name = "describe"
    title = "a descriptor of the structure (SOAP, ACSF, MBTR, RDF, Magpie, XRD …)"
    Parameters = DescribeParameters

    def __init__(self) -> None:
        self._known: tuple[Any, DescriptorAdapter, DescriptorParameters] | None = None

    def _parts(self, parameters: Any) -> tuple[DescriptorAdapter, DescriptorParameters]:
        # Every structure of a job comes with the same object.
        if self._known is None or self._known[0] is not parameters:
            self._known = (parameters, *_own(parameters))
        return self._known[1:]

    def model_for(self, values: Mapping[str, Any]) -> type[BaseModel]:
        name = values.get("descriptor")
        known = descriptor_names()
        if not isinstance(name, str):
            raise InputError(f"the key 'descriptor' is missing; known: {', '.join(known)}")
        if name not in known:
            raise InputError(f"unknown descriptor '{name}'{did_you_mean(name, known)}")
        return _model(name)

    def models(self) -> dict[str, type[BaseModel]]:
        """Return the parameter model of every descriptor, by its name."""
        return {name: _model(name) for name in descriptor_names()}

    def resolve(self, parameters: Any, species: Sequence[str], n_atoms_max: int) -> Any:
        from matcompute_kernels.elements import SYMBOLS

        ordered = tuple(sorted(species, key=SYMBOLS.index))
        return parameters.resolve(Facts(ordered, n_atoms_max))

    def default_name(self, parameters: Any) -> str:
        return str(parameters.descriptor)

    def output_names(self, parameters: Any) -> Sequence[str]:
        return []

    def descriptor(self, parameters: Any) -> DescriptorOutput:
        adapter, own = self._parts(parameters)
        return DescriptorOutput(
            kernel=adapter.name,
            parameters=own.keywords(),
            per=adapter.per(own),
            units=adapter.units,
            long_name=adapter.title,
            definition=adapter.definition,
            # Until it is known what `auto` stands for, there are no columns to name.
            labels=() if own.automatic else tuple(adapter.labels(own)),
            dtype="f4" if own.dtype == "float32" or adapter.per(own) == "site" else "f8",
        )

    def result_bytes(self, parameters: Any, n_sites: float) -> float:
        adapter, own = self._parts(parameters)
        if own.automatic:
            return 1e3
        rows = n_sites if adapter.per(own) == "site" else 1.0
        return 200.0 + rows * adapter.width(own) * (4 if own.dtype == "float32" else 8)

    def seconds(self, parameters: Any, n_sites: np.ndarray) -> np.ndarray:
        adapter, own = self._parts(parameters)
        return _OVERHEAD_S + adapter.cost(own, n_sites)

    def method(self, parameters: Any) -> dict[str, Any]:
        adapter, _ = self._parts(parameters)
        return {"name": adapter.name, "model": adapter.name, "definition": adapter.definition}

    def preload(self, parameters: Any) -> None:
        import matcompute_kernels

        # Imported, not called: a parallel region before the fork would leave the workers without its threads.
        getattr(matcompute_kernels, parameters.descriptor, None)

    def run_structure(
        self, batch: Batch, parameters: Any, deadline: Deadline, *, threads: int = 1
    ) -> TaskResult:
        from matcompute.dataset import Status
        from matcompute.node.errors import TaskFileError
        from matcompute_kernels import KernelInputError

        adapter, own = self._parts(parameters)
        deadline.check()
        species = getattr(own, "species", None)
        if species is not None:
            from matcompute_kernels.elements import SYMBOLS

            foreign = sorted({SYMBOLS[z] for z in np.unique(batch.numbers)} - set(species))
            if foreign:
                text = f"{', '.join(foreign)} not in the descriptor's species ({', '.join(species)})"
                return TaskResult(Status.UNSUPPORTED_SPECIES, message=text)
        try:
            rows = adapter.compute(batch, own, threads=threads)
        except KernelInputError as error:
            if error.index is None:
                raise TaskFileError(
                    f"{adapter.name}: {error}", hint="mend the parameters of the stage"
                ) from error
            text = str(error).partition(": ")[2] or str(error)
            return TaskResult(Status.INVALID_INPUT, message=f"{adapter.name}: {text}")
        values = rows if isinstance(rows, np.ndarray) else rows.values
        if not np.isfinite(values).all():
            return TaskResult(Status.INVALID_INPUT, message=_not_finite(adapter, own, values))
        return TaskResult(Status.OK, descriptor=rows)


def _not_finite(adapter: DescriptorAdapter, own: DescriptorParameters, values: np.ndarray) -> str:
    if values.ndim == 2:
        labels = adapter.labels(own)
        column = int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])
        if len(labels) == values.shape[1]:
            return f"{adapter.name}: '{labels[column]}' is not known for this structure"
    return f"{adapter.name}: a value is not finite"


#: The entry point ``describe``.
Describe = DescribeTask()
