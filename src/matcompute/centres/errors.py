"""What can go wrong with a compute centre's file."""

from __future__ import annotations

from matcompute.errors import InputError

__all__ = ["CentreError"]


class CentreError(InputError):
    """A centre's file is wrong, or the centre cannot be set up."""
