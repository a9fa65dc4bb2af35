"""What a campaign file may say about a gate."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from matcompute.errors import InputError, did_you_mean
from matcompute.gates.expression import Expression
from matcompute.gates.selection import Selection, selection_model
from matcompute.units import parse_quantity

__all__ = ["GATES", "FilterParameters", "HullParameters", "TopParameters", "gate_model", "read_gate"]


class _Gate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def most(self) -> int | None:
        """Return how many entries pass at most, if the parameters say so."""
        return None


class HullParameters(_Gate):
    """Energy above the convex hull, from the campaign's own energies and optional reference entries."""

    max: float | None = Field(
        default=None,
        ge=0,
        description="Largest energy above hull that passes; without it every entry with a hull energy passes.",
        json_schema_extra={"unit": "eV/atom"},
    )
    energy: str | None = Field(
        default=None, description="Compute stage whose energies are used; the nearest earlier one by default."
    )
    references: str | None = Field(
        default=None,
        description="File with further entries: dataset v1, or structures with energies (extxyz …).",
    )
    add_elements: bool = Field(
        default=True, description="Compute elemental ground states that the structures lack, as references."
    )

    @field_validator("max", mode="before")
    @classmethod
    def _max(cls, value: Any) -> Any:
        return None if value is None else parse_quantity(value, "eV/atom")

    def columns(self) -> set[str]:
        """Return the result columns that the gate reads."""
        return {"energy" if self.energy is None else f"{self.energy}__energy"}

    def produces(self) -> tuple[str, ...]:
        """Return the result columns that the gate adds."""
        return ("e_above_hull", "formation_energy")


class FilterParameters(_Gate):
    """A safe expression over result columns, with units."""

    expression: str = Field(
        description="For example 'e_above_hull <= 0.05 eV/atom and bulk_modulus >= 100 GPa'."
    )

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"expression": value} if isinstance(value, str) else value

    @field_validator("expression")
    @classmethod
    def _parses(cls, value: str) -> str:
        Expression(value)
        return value

    def columns(self) -> set[str]:
        """Return the result columns that the gate reads."""
        return Expression(self.expression).columns

    def produces(self) -> tuple[str, ...]:
        """Return the result columns that the gate adds."""
        return ()


class TopParameters(_Gate):
    """The first n entries by a column."""

    n: int = Field(gt=0, description="How many entries pass.")
    by: str = Field(description="Result column to sort by.")
    order: Literal["ascending", "descending"] = Field(default="descending")

    def most(self) -> int | None:
        return self.n

    def columns(self) -> set[str]:
        """Return the result columns that the gate reads."""
        return {self.by}

    def produces(self) -> tuple[str, ...]:
        """Return the result columns that the gate adds."""
        return ()


#: Gate kinds and their parameter models; those of ``select`` differ by its method, see :func:`gate_model`.
GATES: dict[str, type[HullParameters] | type[FilterParameters] | type[TopParameters] | type[Selection]] = {
    "hull": HullParameters,
    "filter": FilterParameters,
    "top": TopParameters,
    "select": Selection,
}


def gate_model(kind: str, values: Any) -> tuple[type[Any], Any]:
    """Return the model of a gate's parameters and the values to validate with it.

    Raises
    ------
    InputError
        If the gate, or the method of ``select``, is unknown.
    """
    if kind not in GATES:
        raise InputError(f"unknown gate '{kind}'{did_you_mean(kind, GATES)}")
    return selection_model(values) if kind == "select" else (GATES[kind], values)


def read_gate(kind: str, values: Any) -> Any:
    """Return the checked parameters of a gate."""
    model, given = gate_model(kind, values)
    return model.model_validate(given)
