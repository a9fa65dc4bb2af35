"""What can go wrong with a compute centre's file."""

from __future__ import annotations

from matcompute.errors import InputError
from matcompute.modelproblems import FileProblems

__all__ = ["CentreError", "CentreFileError"]


class CentreError(InputError):
    """A centre's file is wrong, or the centre cannot be set up."""


class CentreFileError(FileProblems, CentreError):
    """A centre's file has problems; all of them are listed with their lines."""
