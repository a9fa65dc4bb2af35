"""The workspace: one folder with its own AiiDA profile, state, datasets and scratch space; nothing outside it.

Importing this package imports no AiiDA; the profile is loaded when it is first needed.
"""

from __future__ import annotations

from matcompute.workspace.errors import DaemonError, WorkspaceError
from matcompute.workspace.settings import WorkspaceSettings
from matcompute.workspace.status import DaemonStatus, RepairReport
from matcompute.workspace.workspace import Workspace

__all__ = [
    "DaemonError",
    "DaemonStatus",
    "RepairReport",
    "Workspace",
    "WorkspaceError",
    "WorkspaceSettings",
]
