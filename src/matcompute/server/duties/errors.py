"""What the duties may refuse, and why."""

from __future__ import annotations

from matcompute.errors import MatcomputeError

__all__ = ["DutyError"]


class DutyError(MatcomputeError):
    """A report or an export cannot be made, or an export cannot be imported."""
