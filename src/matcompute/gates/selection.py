"""What a campaign file may say about a ``select`` gate, by its method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from matcompute.errors import InputError, did_you_mean

__all__ = [
    "ALIASES",
    "METHODS",
    "CurSelection",
    "DuplicateSelection",
    "FarthestPointSelection",
    "NoveltySelection",
    "ParetoSelection",
    "Selection",
    "selection_model",
]

_DESCRIPTOR: Any = Field(
    default=None, description="Describe stage whose descriptor is used; the nearest earlier one by default."
)
_NORMALIZE: Any = Field(
    default="none",
    description="unit: every row to length 1; standard: every column to mean 0 and standard deviation 1.",
)
#: Other names that users try → the method.
ALIASES = {
    "farthest_point": "fps",
    "farthest_point_sampling": "fps",
    "furthest_point": "fps",
    "diverse": "fps",
    "novel": "novelty",
    "pareto_front": "pareto",
    "duplicate": "duplicates",
    "unique": "duplicates",
    "deduplicate": "duplicates",
}


class Selection(BaseModel):
    """What the methods of ``select`` share."""

    model_config = ConfigDict(extra="forbid")

    method: str = Field(description="How entries are chosen.")

    def columns(self) -> set[str]:
        """Return the result columns that the gate reads."""
        return set()

    def produces(self) -> tuple[str, ...]:
        """Return the result columns that the gate adds."""
        return ()

    def most(self) -> int | None:
        """Return how many entries pass at most, if the parameters say so."""
        return None


class FarthestPointSelection(Selection):
    """Farthest-point sampling: each pick is the entry farthest from all picks before it."""

    method: Literal["fps"]
    descriptor: str | None = _DESCRIPTOR
    n: int = Field(gt=0, description="How many entries pass.")
    metric: Literal["euclidean", "cosine"] = "euclidean"
    normalize: Literal["none", "unit", "standard"] = _NORMALIZE
    start: str = Field(
        default="centre",
        description="First pick: centre (the entry nearest to the mean), edge (the farthest from it) or an entry's id.",
    )
    min_distance: float | None = Field(
        default=None, ge=0, description="Stop before a pick that is nearer than this to an earlier one."
    )

    @field_validator("start", mode="before")
    @classmethod
    def _british(cls, value: Any) -> Any:
        return "centre" if value == "center" else value

    def produces(self) -> tuple[str, ...]:
        return ("selection_rank", "selection_distance")

    def most(self) -> int | None:
        return self.n


class CurSelection(Selection):
    """CUR: the entries that carry the leading singular vectors of the descriptor matrix."""

    method: Literal["cur"]
    descriptor: str | None = _DESCRIPTOR
    n: int = Field(gt=0, description="How many entries pass.")
    k: int = Field(default=1, ge=1, description="Singular vectors in the score.")
    normalize: Literal["none", "unit", "standard"] = _NORMALIZE

    def produces(self) -> tuple[str, ...]:
        return ("selection_rank",)

    def most(self) -> int | None:
        return self.n


class NoveltySelection(Selection):
    """Novelty: entries that lie far from what is known."""

    method: Literal["novelty"]
    descriptor: str | None = _DESCRIPTOR
    references: str = Field(
        description="File of what is known: a dataset, or structures that ASE reads. It is described in the same way."
    )
    selection: str | None = Field(
        default=None, description="Only the entries that passed this gate of the reference dataset."
    )
    threshold: float | None = Field(default=None, ge=0, description="Smallest distance that passes.")
    n: int | None = Field(default=None, gt=0, description="Only the n most novel pass.")
    k: int = Field(default=1, ge=1, description="Mean distance to the k nearest known ones.")
    metric: Literal["euclidean", "manhattan", "cosine"] = "euclidean"
    normalize: Literal["none", "unit", "standard"] = _NORMALIZE
    relative: bool = Field(
        default=False, description="Distance over the median of the same within the references."
    )

    @model_validator(mode="after")
    def _chooses(self) -> NoveltySelection:
        if self.threshold is None and self.n is None:
            raise ValueError("give a threshold, or n, or both")
        return self

    def produces(self) -> tuple[str, ...]:
        return ("novelty",)

    def most(self) -> int | None:
        return self.n


class ParetoSelection(Selection):
    """Pareto front: entries that no other one beats in every objective."""

    method: Literal["pareto"]
    objectives: dict[str, Literal["max", "min"]] = Field(
        min_length=1, description="Column → max or min; a list of such pairs is taken too."
    )
    fronts: int = Field(default=1, ge=1, description="Peel off so many fronts.")

    @field_validator("objectives", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if isinstance(value, list):
            joined: dict[Any, Any] = {}
            for item in value:
                if not isinstance(item, Mapping) or len(item) != 1:
                    raise ValueError(f"expected pairs such as {{bulk_modulus: max}}, found {item!r}")
                if set(item) & set(joined):
                    raise ValueError(f"'{next(iter(item))}' is named twice")
                joined |= item
            value = joined
        if isinstance(value, Mapping):
            goals = {"maximum": "max", "maximize": "max", "minimum": "min", "minimize": "min"}
            value = {
                key: goals.get(goal, goal) if isinstance(goal, str) else goal for key, goal in value.items()
            }
        return value

    def columns(self) -> set[str]:
        return set(self.objectives)

    def produces(self) -> tuple[str, ...]:
        return ("pareto_rank",)


class DuplicateSelection(Selection):
    """One entry of each group of structures that are the same within tolerances."""

    method: Literal["duplicates"]
    by: str | None = Field(
        default=None, description="Column whose best entry stays; the energy per atom by default."
    )
    order: Literal["ascending", "descending"] = "ascending"
    ltol: float = Field(default=0.2, gt=0, description="Relative tolerance of lattice vectors' lengths.")
    stol: float = Field(default=0.3, gt=0, description="Tolerance of sites in units of (V / n)^(1/3).")
    angle_tol: float = Field(
        default=5.0, gt=0, description="Tolerance of lattice angles.", json_schema_extra={"unit": "degree"}
    )
    primitive_cell: bool = Field(default=True, description="Reduce to primitive cells first.")
    scale: bool = Field(default=True, description="Scale to the same volume first.")

    def columns(self) -> set[str]:
        return set() if self.by is None else {self.by}

    def produces(self) -> tuple[str, ...]:
        return ("duplicate_group",)


#: Methods and their parameter models.
METHODS: dict[str, type[Selection]] = {
    "fps": FarthestPointSelection,
    "cur": CurSelection,
    "novelty": NoveltySelection,
    "pareto": ParetoSelection,
    "duplicates": DuplicateSelection,
}


def selection_model(values: Any) -> tuple[type[Selection], Any]:
    """Return the model of a ``select`` gate and its values, the method by its own name.

    Raises
    ------
    InputError
        If there is no such method; the nearest is given.
    """
    known = ", ".join(METHODS)
    if not isinstance(values, Mapping):
        raise InputError(f"expected a mapping with the key 'method'; known: {known}")
    name = values.get("method")
    if not isinstance(name, str):
        raise InputError(f"the key 'method' is missing; known: {known}")
    plain = name.lower().replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in METHODS:
        raise InputError(f"unknown method '{name}'{did_you_mean(plain, METHODS)}")
    return METHODS[plain], {**values, "method": plain}
