"""What a look at the daemon, or a repair of it, found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["DaemonStatus", "RepairReport"]


@dataclass
class DaemonStatus:
    """State of the daemon of a workspace at one moment.

    Attributes
    ----------
    state
        ``"running"`` (answers, one worker on the current broker, current code), ``"starting"``, ``"broken"`` (parts
        of it are missing; ``ensure_daemon`` mends it) or ``"stopped"``.
    supervisor, worker, broker
        Process ids; None where there is no such process.
    queued, taken
        Process tasks that wait in the broker, and that the worker has taken.
    problems
        What is wrong, in words.
    action
        What ``ensure_daemon`` did: ``""`` (nothing), ``"started"``, ``"restarted"``, ``"worker restarted"``.
    """

    state: str
    profile: str
    supervisor: int | None = None
    worker: int | None = None
    broker: int | None = None
    queued: int = 0
    taken: int = 0
    problems: list[str] = field(default_factory=list)
    action: str = ""

    @property
    def running(self) -> bool:
        """Whether processes can be submitted and will be worked on."""
        return self.state == "running"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able copy."""
        return asdict(self)


@dataclass
class RepairReport:
    """What :meth:`matcompute.workspace.Workspace.repair` did.

    Attributes
    ----------
    daemon
        State of the daemon after the repair, with the action taken.
    revived
        Process ids (pk) whose task had been lost and was made again.
    resumed
        Process ids that were paused after failed transport tasks and play again.
    notes
        Everything else worth knowing, in words.
    """

    daemon: DaemonStatus
    revived: list[int] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything had to be mended."""
        return bool(self.daemon.action or self.revived or self.resumed)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able copy."""
        return asdict(self)
