"""The registry of descriptors: what a kernel is to campaigns, to the task ``describe`` and to the describe job.

An entry point of the group ``matcompute.kernels`` names an *instance* of a subclass of :class:`DescriptorAdapter`. Its
parameters are the kernel's keywords with their defaults, except that ``species`` and ``n_atoms_max`` may be (and are
by default) ``auto``, and that what a kernel gives per site is averaged over the structure by default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from matcompute import plugins
from matcompute.errors import InputError, did_you_mean
from matcompute.node.adapters import Parameters
from matcompute_kernels.elements import SYMBOLS

if TYPE_CHECKING:
    from matcompute.dataset.descriptors import BlockSparse
    from matcompute_kernels import Batch

__all__ = [
    "GROUP",
    "DescriptorAdapter",
    "DescriptorParameters",
    "Facts",
    "Species",
    "descriptor_adapter",
    "descriptor_names",
    "mean_rows",
    "neighbour_count",
    "quantity",
]

#: The entry-point group.
GROUP = "matcompute.kernels"
#: Suffixes of the columns beside a descriptor in a file: no descriptor may be named like that.
COMPANIONS = ("_status", "_process", "_label")


@dataclass(frozen=True)
class Facts:
    """What ``auto`` is filled from: facts about all structures that share one feature space.

    Parameters
    ----------
    species
        Chemical symbols by rising atomic number.
    n_atoms_max
        Sites of the largest structure.
    """

    species: tuple[str, ...]
    n_atoms_max: int

    @classmethod
    def of(cls, batch: Batch) -> Facts:
        """Return the facts about a batch."""
        numbers = np.unique(batch.numbers)
        return cls(tuple(SYMBOLS[z] for z in numbers), int(batch.n_sites.max(initial=1)))


def quantity(unit: str) -> Any:
    """Return the type of a number in ``unit`` that may be written with any convertible unit."""

    def read(value: Any) -> Any:
        if isinstance(value, str):
            from matcompute.units import parse_quantity

            try:
                return parse_quantity(value, unit)
            except InputError as error:
                raise ValueError(str(error)) from error
        return value

    return Annotated[
        float,
        BeforeValidator(read, json_schema_input_type=float | str),
        Field(json_schema_extra={"unit": unit}),
    ]


def _species(value: Any) -> Any:
    if isinstance(value, str) and value.lower() == "auto":
        return "auto"
    items = [value] if isinstance(value, str | int) and not isinstance(value, bool) else value
    if not isinstance(items, list | tuple) or not items:
        raise ValueError("expected 'auto' or a list of chemical symbols")
    return tuple(SYMBOLS[z] for z in sorted({_number(item) for item in items}))


def _number(item: Any) -> int:
    if isinstance(item, int) and not isinstance(item, bool) and 0 < item < len(SYMBOLS):
        return item
    # YAML reads the symbol of nitrogen's oxide as a boolean.
    text = "No" if item is False else str(item)
    if text not in SYMBOLS[1:]:
        raise ValueError(f"'{text}' is not a chemical element{did_you_mean(text, SYMBOLS[1:])}")
    return SYMBOLS.index(text)


#: ``auto``, or chemical symbols (atomic numbers are taken too), kept by rising atomic number.
Species = Annotated[
    Literal["auto"] | tuple[str, ...],
    BeforeValidator(_species, json_schema_input_type=Literal["auto"] | str | list[str | int]),
    Field(
        description="Elements that columns are made for; auto: all elements of the structures described together."
    ),
]
Average = Annotated[
    Literal["outer", "off"],
    Field(description="outer: mean over the sites, a row per entry; off: a row per site."),
]


class DescriptorParameters(Parameters):
    """Base of the parameter models of descriptors."""

    dtype: Literal["float64", "float32"] = Field("float64", description="Type of the numbers.")

    @property
    def automatic(self) -> tuple[str, ...]:
        """Names of the parameters that are ``auto``."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) == "auto")

    def resolve(self, facts: Facts) -> Any:
        """Return the parameters with every ``auto`` replaced by what the structures have."""
        values = {name: getattr(facts, name) for name in self.automatic}
        return type(self).model_validate(self.model_dump(mode="json") | values) if values else self

    def keywords(self) -> dict[str, Any]:
        """Return the keywords of the kernel, in JSON values."""
        return {key: value for key, value in self.model_dump(mode="json").items() if value is not None}


class DescriptorAdapter(ABC):
    """How a descriptor is checked, costed, computed and named.

    Attributes
    ----------
    name
        The same as the entry point's.
    title
        One line of help.
    package
        Distribution whose version is recorded with the values.
    definition
        Whose definition it follows; stored with the values.
    units
        Unit of the values, ``"1"`` for pure numbers.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    package: ClassVar[str] = "matcompute"
    definition: ClassVar[str] = ""
    units: ClassVar[str] = "1"
    Parameters: ClassVar[type[DescriptorParameters]]

    @property
    def version(self) -> str:
        """Version of the package that computes."""
        from importlib import metadata

        return metadata.version(self.package)

    def per(self, parameters: Any) -> Literal["entry", "site"]:
        """Return what a row belongs to."""
        return "site" if getattr(parameters, "average", "outer") == "off" else "entry"

    @abstractmethod
    def compute(self, batch: Batch, parameters: Any, *, threads: int = 1) -> np.ndarray | BlockSparse:
        """Describe structures.

        Parameters
        ----------
        batch
            Packed structures.
        parameters
            An instance of ``Parameters`` without ``auto``.
        threads
            Threads to use; the values do not depend on it.

        Returns
        -------
        ndarray or BlockSparse
            [structures, features]; [sites, features] or blocks by species pair if a row belongs to a site.

        Raises
        ------
        matcompute_kernels.KernelInputError
            With the ``index`` of an unfit structure, or None if a parameter is wrong.
        """

    @abstractmethod
    def labels(self, parameters: Any) -> list[str]:
        """Return the name of each column (of a dense row)."""

    def width(self, parameters: Any) -> int:
        """Return the number of columns (of a dense row)."""
        return len(self.labels(parameters))

    def site_cost(self, parameters: Any, n_sites: np.ndarray) -> Any:
        """Return the estimated core-seconds that one site of a structure of ``n_sites`` takes."""
        return 1e-5

    def cost(self, parameters: Any, n_sites: np.ndarray | int) -> np.ndarray:
        """Return the estimated core-seconds of structures, f8[n]."""
        sites = np.asarray(n_sites, dtype=float)
        return np.asarray(2e-4 + sites * self.site_cost(parameters, sites) + 2e-9 * self.width(parameters))


def descriptor_names() -> list[str]:
    """Return the names of all descriptors that are installed."""
    return plugins.names(GROUP)


def descriptor_adapter(name: str) -> DescriptorAdapter:
    """Return a descriptor's adapter.

    Raises
    ------
    InputError
        If there is none of that name (the nearest is given), or its package is missing.
    """
    point = plugins.load(GROUP, name)
    adapter: DescriptorAdapter = point() if isinstance(point, type) else point
    return adapter


def mean_rows(values: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Return the mean of each structure's rows, f[N, F] (every structure has a site)."""
    size = np.diff(ptr)
    total = np.add.reduceat(values, ptr[:-1], axis=0) if len(size) else np.zeros((0, values.shape[1]))
    return np.asarray(total / size[:, None], dtype=values.dtype)


def neighbour_count(r_cut: float) -> float:
    """Return about how many neighbours an atom of a dense solid has within ``r_cut`` Å (0.07 atoms/Å^3)."""
    return 4.19 * 0.07 * r_cut**3


class KernelAdapter(DescriptorAdapter):
    """A descriptor of :mod:`matcompute_kernels`; ``per_site`` kernels are averaged here unless told not to."""

    per_site: ClassVar[bool] = False
    #: Keywords of the adapter that the kernel does not have.
    own: ClassVar[Sequence[str]] = ()
    #: Whether the kernel takes ``threads``.
    threaded: ClassVar[bool] = True

    def arguments(self, parameters: Any) -> dict[str, Any]:
        """Return the keywords of the kernel."""
        return {key: value for key, value in parameters.keywords().items() if key not in self.own}

    def call(self, batch: Batch, arguments: Mapping[str, Any]) -> np.ndarray:
        """Call the kernel."""
        import matcompute_kernels

        values: np.ndarray = getattr(matcompute_kernels, self.name)(batch, **arguments)
        return values

    def compute(self, batch: Batch, parameters: Any, *, threads: int = 1) -> np.ndarray | BlockSparse:
        arguments = self.arguments(parameters)
        if self.threaded and threads > 1:
            arguments["threads"] = threads
        values = self.call(batch, arguments)
        if self.per_site and self.per(parameters) == "entry":
            return mean_rows(values, batch.ptr)
        return values

    def labels(self, parameters: Any) -> list[str]:
        from matcompute_kernels import feature_labels

        return feature_labels(self.name, **self.arguments(parameters))
