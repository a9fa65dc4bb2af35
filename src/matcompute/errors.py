"""The error family whose members the command line prints without a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["InputError", "MatcomputeError", "did_you_mean"]


class MatcomputeError(Exception):
    """Something went wrong that the user can understand and mend.

    Parameters
    ----------
    message
        What happened and where (file, line, key).
    hint
        What to do next; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class InputError(MatcomputeError):
    """The user's input is wrong: a file, a key, a flag."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known spelling, or the list of what is known."""
    options = sorted({str(option) for option in known})
    near = get_close_matches(name, options, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    if not options:
        return ""
    shown = ", ".join(options[:12]) + (", …" if len(options) > 12 else "")
    return f"; known: {shown}"
