"""What a gate decided."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["GateResult"]


@dataclass
class GateResult:
    """What a gate decided, for the entries that it looked at.

    Attributes
    ----------
    rows
        ``int[n]``, rows in the structures file.
    ids
        ``str[n]``.
    passed
        ``bool[n]``.
    columns
        Name → (values ``f8[n]``, status ``u1[n]``) of the columns that the gate adds.
    messages
        ``n`` texts, empty where there is nothing to say.
    expression
        The gate in words, stored with the selection.
    inputs
        Names of the columns that were read.
    """

    rows: np.ndarray
    ids: np.ndarray
    passed: np.ndarray
    expression: str
    inputs: list[str]
    columns: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
