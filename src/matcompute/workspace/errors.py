"""What can go wrong with a workspace or its daemon, said so that the user can mend it."""

from __future__ import annotations

from matcompute.errors import MatcomputeError

__all__ = ["DaemonError", "WorkspaceError"]


class WorkspaceError(MatcomputeError):
    """The workspace is missing, unreadable, read-only or made by another version."""

    exit_code = 2


class DaemonError(MatcomputeError):
    """The AiiDA daemon of the workspace does not start or does not answer."""
