"""Gates: which entries go on to the next stage. Pure functions on dataset files; AiiDA wraps them in a calcfunction."""

from __future__ import annotations

from matcompute.gates.evaluate import evaluate_gate
from matcompute.gates.expression import STRUCTURE_COLUMNS, Expression
from matcompute.gates.parameters import (
    GATES,
    FilterParameters,
    HullParameters,
    TopParameters,
    gate_model,
    read_gate,
)
from matcompute.gates.result import GateResult
from matcompute.gates.selection import METHODS

__all__ = [
    "GATES",
    "METHODS",
    "STRUCTURE_COLUMNS",
    "Expression",
    "FilterParameters",
    "GateResult",
    "HullParameters",
    "TopParameters",
    "evaluate_gate",
    "expression_columns",
    "gate_model",
    "read_gate",
]


def expression_columns(text: str) -> set[str]:
    """Return the names of the columns that a filter expression reads."""
    return Expression(text).columns
