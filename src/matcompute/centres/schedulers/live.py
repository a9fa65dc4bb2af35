"""Live limits of a centre: what its scheduler allows now, in one question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from matcompute.errors import MatcomputeError

__all__ = ["LIVE_MARK", "LimitsError", "LiveLimits", "LivePartition", "limits", "sections"]

#: Begins the line with the name of a section in the answer.
LIVE_MARK = "==matcompute:"


class LimitsError(MatcomputeError):
    """A scheduler does not tell its limits.

    Attributes
    ----------
    missing
        Whether its commands are not there at all.
    """

    def __init__(self, message: str, hint: str | None = None, *, missing: bool = False) -> None:
        super().__init__(message, hint)
        self.missing = missing


class Runs(Protocol):
    """What runs a command at the centre: :class:`matcompute.centres.remote.Remote`."""

    def run(self, command: str, timeout: float = ...) -> Any: ...


@dataclass(frozen=True)
class LivePartition:
    """What a partition (a queue) allows; None where the scheduler sets no limit or does not tell.

    Attributes
    ----------
    nodes, nodes_up
        Nodes it has, and those of them that start jobs.
    cores, mem_gb, gpus
        Of its largest node.
    max_wall_s, max_nodes
        Of one job.
    state
        As the scheduler says, for people.
    up
        Whether it starts jobs at all.
    resources
        Names by which GPUs can be asked (Slurm's gres).
    accounts
        Accounts that may use it; None: all.
    environments
        Grid Engine: its parallel environments.
    """

    name: str
    nodes: int
    nodes_up: int
    cores: int | None = None
    mem_gb: float | None = None
    gpus: int | None = None
    max_wall_s: float | None = None
    max_nodes: int | None = None
    state: str = "up"
    up: bool = True
    resources: tuple[str, ...] = ()
    accounts: tuple[str, ...] | None = None
    environments: tuple[str, ...] = ()


@dataclass(frozen=True)
class LiveLimits:
    """What a scheduler allows.

    Attributes
    ----------
    scheduler, version
        What answered.
    partitions
        By name.
    max_submit
        Jobs that the user may have in the queue, and which limit says so.
    max_array
        Longest job array.
    accounts
        Accounts that the user may charge; None where the scheduler keeps none.
    """

    scheduler: str
    version: str = ""
    partitions: Mapping[str, LivePartition] = field(default_factory=dict)
    max_submit: tuple[int, str] | None = None
    max_array: int | None = None
    accounts: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-able."""
        return {
            "scheduler": self.scheduler,
            "version": self.version,
            "max_submit": None if self.max_submit is None else self.max_submit[0],
            "max_array": self.max_array,
            "accounts": None if self.accounts is None else list(self.accounts),
            "partitions": {name: vars(part) for name, part in self.partitions.items()},
        }


def limits(remote: Runs, scheduler: str, *, timeout: float = 60.0) -> LiveLimits | None:
    """Ask a centre's scheduler what it allows.

    Parameters
    ----------
    remote
        Runs a command there.
    scheduler
        Its type.
    timeout
        In s.

    Returns
    -------
    LiveLimits or None
        None for schedulers that cannot be asked (PBS, LSF).

    Raises
    ------
    LimitsError
        If it does not answer, or in a way that is not understood.
    """
    from matcompute.centres.schedulers import direct, sge, slurm

    known: dict[str, tuple[str, Callable[[Mapping[str, list[str]]], LiveLimits]]] = {
        "slurm": (slurm.QUESTION, slurm.parse_limits),
        "sge": (sge.QUESTION, sge.parse_limits),
        "direct": (direct.QUESTION, direct.parse_limits),
    }
    if scheduler not in known:
        return None
    question, parse = known[scheduler]
    found = remote.run(question, timeout)
    lines = [line.strip() for line in (found.stderr or found.stdout).splitlines() if line.strip()]
    said = lines[-1] if lines else f"exit status {found.code}"
    if found.code == 127:
        raise LimitsError(f"the commands of the scheduler ({scheduler}) are not there: {said}", missing=True)
    if found.code != 0:
        raise LimitsError(f"the scheduler ({scheduler}) does not answer: {said}")
    try:
        return parse(sections(found.stdout))
    except (ValueError, KeyError, IndexError) as error:
        raise LimitsError(f"the answer of the scheduler ({scheduler}) is not understood: {error}") from error


def sections(text: str) -> dict[str, list[str]]:
    """Split an answer at its marks: name of the section → its lines."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith(LIVE_MARK):
            current = found.setdefault(line.removeprefix(LIVE_MARK).strip(), [])
        elif line.strip():
            current.append(line.rstrip())
    return found
