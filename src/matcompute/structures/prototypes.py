"""Decorated prototypes as a source: every choice of elements for the labels of a prototype, packed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from matcompute.dataset import Quality
from matcompute.structures.base import Reject, SourceBlock, SourceContext, SourceParameters
from matcompute.structures.elements import atomic_volumes, expand_elements
from matcompute.structures.templates import Template, template
from matcompute_kernels.batch import Batch
from matcompute_kernels.elements import SYMBOLS

__all__ = ["PrototypesParameters", "PrototypesSource"]


class PrototypesParameters(SourceParameters):
    """Keys of a ``prototypes:`` item."""

    prototypes: list[str] = Field(min_length=1, description="Prototypes by name or alias, for example L1_2.")
    elements: list[str] | dict[str, list[str]] = Field(
        description="Symbols or groups of elements: one list for all labels, or a list for each label."
    )
    exclude: list[str] = Field(default_factory=list, description="Symbols or groups that are left out.")
    permute: bool = Field(
        default=False,
        description="With a list for each label: give the lists to the labels in every order (Al3Ni and AlNi3).",
    )
    volume_scale: float = Field(default=1.0, gt=0, description="Factor on the guessed volumes.")
    volume: Literal["auto", "atomic", "bonds"] = Field(
        default="auto",
        description="Guess from atomic volumes, from bond lengths, or as the prototype suggests.",
    )

    @field_validator("prototypes", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("prototypes")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            template(name)
        return value

    @field_validator("exclude")
    @classmethod
    def _symbols(cls, value: list[str]) -> list[str]:
        expand_elements(value)
        return value

    @field_validator("elements", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            return {key: [item] if isinstance(item, str) else item for key, item in value.items()}
        return value

    @field_validator("elements")
    @classmethod
    def _expand(cls, value: list[str] | dict[str, list[str]]) -> list[str] | dict[str, list[str]]:
        for names in value.values() if isinstance(value, dict) else [value]:
            if not names:
                raise ValueError("a list of elements is empty")
            expand_elements(names)
        return value

    @model_validator(mode="after")
    def _labels(self) -> PrototypesParameters:
        if not isinstance(self.elements, dict):
            return self
        for name in self.prototypes:
            one = template(name)
            given = {label: one.resolve(label) for label in self.elements}
            unknown = [label for label, index in given.items() if index is None]
            missing = [label for k, label in enumerate(one.labels) if k not in given.values()]
            if unknown or missing or len(set(given.values())) < len(given):
                raise ValueError(
                    f"prototype {name} has the labels {', '.join(one.labels)}; `elements` names "
                    f"{', '.join(self.elements)}"
                )
        return self

    def lists(self, one: Template) -> list[list[str]]:
        """Return the elements of each label of a prototype."""
        left_out = set(expand_elements(self.exclude))

        def keep(names: list[str]) -> list[str]:
            return [symbol for symbol in expand_elements(names) if symbol not in left_out]

        if not isinstance(self.elements, dict):
            return [keep(self.elements)] * len(one.labels)
        by_index = {one.resolve(label): keep(names) for label, names in self.elements.items()}
        return [by_index[index] for index in range(len(one.labels))]


class PrototypesSource:
    """``prototypes:`` of a campaign file."""

    name: ClassVar[str] = "prototypes"
    Parameters: ClassVar[type[PrototypesParameters]] = PrototypesParameters

    def files(self, parameters: PrototypesParameters, base_dir: Path) -> list[Path]:
        """Return no file: the structures come from the campaign file itself."""
        return []

    def count(self, parameters: PrototypesParameters, base_dir: Path) -> int:
        """Return the number of decorations."""
        return sum(
            len(choices) for one in _templates(parameters) for choices in _assignments(parameters, one)
        )

    def blocks(self, parameters: PrototypesParameters, context: SourceContext) -> Iterator[SourceBlock]:
        """Yield the decorated prototypes, prototype by prototype, elements in the order given."""
        row = context.table.add(context.campaign_file)
        for one in _templates(parameters):
            for choices in _assignments(parameters, one):
                for first in range(0, len(choices), context.block_size):
                    yield _block(parameters, one, choices[first : first + context.block_size], row, context)


def _templates(parameters: PrototypesParameters) -> list[Template]:
    """Return the prototypes, each once."""
    return list({one.name: one for one in map(template, parameters.prototypes)}.values())


def _assignments(parameters: PrototypesParameters, one: Template) -> Iterator[np.ndarray]:
    """Yield atomic numbers u1[n, labels]: distinct elements on distinct labels, each crystal once."""
    lists = parameters.lists(one)
    orders = permutations(range(len(lists))) if parameters.permute else [tuple(range(len(lists)))]
    seen: list[list[list[str]]] = []
    earlier: list[np.ndarray] = []
    for order in orders:
        chosen = [lists[index] for index in order]
        if chosen in seen:
            continue
        seen.append(chosen)
        numbers = [np.array([SYMBOLS.index(s) for s in symbols], dtype=np.int64) for symbols in chosen]
        grid = np.stack(np.meshgrid(*numbers, indexing="ij"), axis=-1).reshape(-1, len(lists))
        distinct = np.ones(len(grid), dtype=bool)
        for i in range(len(lists)):
            for j in range(i):
                distinct &= grid[:, i] != grid[:, j]
        grid = grid[distinct]
        key = _key(grid)
        keep = np.ones(len(grid), dtype=bool)
        if one.swap is not None:
            swapped = grid.copy()
            swapped[:, list(one.swap)] = grid[:, list(one.swap)[::-1]]
            keep = _first_of_pair(key, _key(swapped))
            key = np.minimum(key, _key(swapped))
        for old in earlier:
            keep &= ~np.isin(key, old)
        earlier.append(key)
        yield grid[keep].astype(np.uint8)


def _key(grid: np.ndarray) -> np.ndarray:
    return grid @ (np.int64(120) ** np.arange(grid.shape[1], dtype=np.int64))


def _first_of_pair(key: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Return which rows come before their partner row, or have none."""
    order = np.argsort(key, kind="stable")
    place = np.minimum(np.searchsorted(key[order], partner), max(len(key) - 1, 0))
    if len(key) == 0:
        return np.zeros(0, dtype=bool)
    row = order[place]
    has_partner = key[row] == partner
    first: np.ndarray = ~has_partner | (np.arange(len(key)) < row)
    return first


def _volumes(parameters: PrototypesParameters, one: Template, numbers: np.ndarray) -> np.ndarray:
    """Return cell volumes in Å^3, f8[n]; NaN where an element has no known volume or radius."""
    how = one.volume if parameters.volume == "auto" else parameters.volume
    if how == "bonds" and one.bonds:
        from ase.data import covalent_radii

        # Cordero et al., Dalton Trans. 2832 (2008); ASE marks unknown radii by 0.2 Å.
        radii = np.where(covalent_radii[:119] > 0.201, covalent_radii[:119], np.nan)
        lengths = [(radii[numbers[:, i]] + radii[numbers[:, j]]) / d for i, j, d in one.bonds]
        volumes = np.mean(lengths, axis=0) ** 3
    else:
        volumes = atomic_volumes()[numbers] @ one.counts
    return volumes * parameters.volume_scale


def _block(
    parameters: PrototypesParameters, one: Template, numbers: np.ndarray, row: int, context: SourceContext
) -> SourceBlock:
    volumes = _volumes(parameters, one, numbers)
    labels = [f"{one.name} {'-'.join(SYMBOLS[z] for z in choice)}" for choice in numbers]
    known = np.isfinite(volumes)
    rejects = []
    for index in np.flatnonzero(~known):
        missing = [SYMBOLS[z] for z in numbers[index] if not np.isfinite(atomic_volumes()[z])]
        what = f"no atomic volume or radius is known for {', '.join(missing) or 'an element'}"
        rejects.append(
            Reject("unknown_species", context.campaign_file.name, context.line, what, labels[index])
        )
    numbers, volumes = numbers[known], volumes[known]
    n, k = len(numbers), len(one.site_label)
    cell = np.cbrt(volumes)[:, None, None] * one.cell
    positions = np.einsum("sj,njk->nsk", one.fractional, cell).reshape(n * k, 3)
    batch = Batch(
        numbers=numbers[:, one.site_label].reshape(-1),
        positions=positions,
        cell=cell,
        pbc=np.ones((n, 3), dtype=bool),
        ptr=np.arange(n + 1, dtype=np.int64) * k,
    )
    return SourceBlock(
        batch,
        np.full(n, row, dtype=np.int32),
        np.full(n, context.line, dtype=np.int64),
        [label for label, good in zip(labels, known, strict=True) if good],
        rejects,
        int(Quality.DECORATED_PROTOTYPE),
    )
