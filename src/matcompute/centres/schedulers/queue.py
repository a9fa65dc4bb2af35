"""The live queue of a centre: the user's jobs, those of others that wait, nodes that start jobs; one command a look."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from xml.etree import ElementTree

from matcompute.errors import MatcomputeError

__all__ = [
    "PartitionLook",
    "QueueError",
    "QueueLook",
    "QueuedJob",
    "Runs",
    "look",
    "parse_sge",
    "parse_slurm",
]

#: Line between the answers of the parts of one command.
MARK = "==matcompute=="
#: What a job that waits is taken to last, in s, for the estimate of a wait: neither its owner nor we know.
TYPICAL_JOB_S = 1800.0
#: States of Slurm's nodes in which they start jobs.
_STARTS = ("idle", "mixed", "allocated", "completing", "planned", "reserved")
_PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED"}


class QueueError(MatcomputeError):
    """A scheduler does not answer."""


class Runs(Protocol):
    """What runs a command at the centre: :class:`matcompute.centres.remote.Remote`."""

    def run(self, command: str, timeout: float = ...) -> Any: ...


@dataclass(frozen=True)
class QueuedJob:
    """A job of the user in the queue.

    Attributes
    ----------
    job_id, name, partition
        As the scheduler says.
    state
        ``running`` or ``pending``, else the scheduler's own word in lower case.
    reason
        Why it waits.
    """

    job_id: str
    name: str
    partition: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class PartitionLook:
    """A partition now.

    Attributes
    ----------
    nodes, cores, idle
        Nodes that start jobs, their cores, and those of the cores that are free.
    pending_jobs, pending_cores
        What others wait for.
    state
        As the scheduler says, for people.
    """

    nodes: int = 0
    cores: int = 0
    idle: int = 0
    pending_jobs: int = 0
    pending_cores: int = 0
    state: str = "up"

    @property
    def starts(self) -> bool:
        """Whether a job may start."""
        return self.nodes > 0

    def wait_s(self, typical_s: float = TYPICAL_JOB_S) -> float:
        """Expected wait of a job: the work that waits before it over the cores; none while cores are free."""
        if not self.cores or (self.idle > 0 and not self.pending_jobs):
            return 0.0
        return typical_s * (self.pending_cores / self.cores + (0.0 if self.idle else 0.5))


@dataclass(frozen=True)
class QueueLook:
    """What a scheduler says of its queue.

    Attributes
    ----------
    jobs
        Of the user; None where the scheduler cannot be asked for them.
    partitions
        By name; empty where there is nothing to ask.
    """

    jobs: tuple[QueuedJob, ...] | None = None
    partitions: dict[str, PartitionLook] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """The user's jobs by state."""
        return dict(Counter(job.state for job in self.jobs or ()))

    def to_json(self) -> dict[str, Any]:
        """Return what is kept in the state tables."""
        return {
            "user_jobs": None if self.jobs is None else len(self.jobs),
            "counts": self.counts,
            "partitions": {name: vars(part) for name, part in self.partitions.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> dict[str, PartitionLook]:
        """Return the partitions of :meth:`to_json`."""
        return {name: PartitionLook(**part) for name, part in (data or {}).get("partitions", {}).items()}


def look(remote: Runs, scheduler: str, *, user: str | None = None, timeout: float = 60.0) -> QueueLook:
    """Ask a centre's scheduler for its queue.

    Parameters
    ----------
    remote
        Runs a command there.
    scheduler
        Its type: slurm and sge are asked; of the others only that the login host answers is known.
    user
        Whose jobs; who is logged in by default.
    timeout
        In s.

    Raises
    ------
    QueueError
        If it does not answer, or in a way that is not understood.
    """
    command, parse = _QUESTIONS.get(scheduler, ("true", lambda _: QueueLook()))
    who = "$(id -un)" if user is None else shlex.quote(user)
    found = remote.run(command.replace("@USER@", who), timeout)
    if found.code != 0:
        lines = [line for line in (found.stderr or found.stdout).splitlines() if line.strip()]
        raise QueueError(
            f"the scheduler ({scheduler}) does not answer: {lines[-1] if lines else f'exit status {found.code}'}"
        )
    try:
        return parse(found.stdout)
    except (ValueError, KeyError, IndexError, ElementTree.ParseError) as error:
        raise QueueError(f"the answer of the scheduler ({scheduler}) is not understood: {error}") from error


# Others' waiting jobs are summed up there: a centre may have ten thousand of them.
_SLURM = (
    "squeue -h -u @USER@ -o '%i|%P|%T|%r|%j' && "
    f"echo {MARK} && "
    "squeue -h -t PENDING -o '%u|%P|%C|%D' > /dev/null && "
    "squeue -h -t PENDING -o '%u|%P|%C' | awk -F'|' -v me=@USER@ "
    '\'$1 != me {split($2, p, ","); n[p[1]] += 1; c[p[1]] += $3} END {for (k in n) print k "|" n[k] "|" c[k]}\' && '
    f"echo {MARK} && "
    "sinfo -h -o '%R|%a|%D|%T|%C'"
)
_SGE = f"qstat -xml -u '*' -r && echo {MARK} && qstat -xml -g c && echo {MARK} && echo @USER@"


def parse_slurm(text: str) -> QueueLook:
    """Read the answer to the question for Slurm."""
    jobs_text, pending_text, nodes_text = _parts(text, 3)
    jobs = []
    for line in jobs_text:
        job_id, partition, state, reason, name = line.split("|", 4)
        jobs.append(QueuedJob(job_id, name, partition, _state(state), reason))
    pending = {}
    for line in pending_text:
        name, count, cores = line.rsplit("|", 2)
        pending[name] = (int(count), int(float(cores)))
    partitions: dict[str, PartitionLook] = {}
    for line in nodes_text:
        name, available, nodes, state, cores = line.split("|")
        before = partitions.get(name, PartitionLook(0, 0, 0, *pending.get(name, (0, 0)), state=""))
        # A trailing * says that the node does not answer; other marks (~ powered down, # starting) do no harm.
        word = re.sub(r"[~#!%$@^+-]+\Z", "", state.lower())
        good = available == "up" and word in _STARTS
        _allocated, idle, _other, total = (int(part) for part in cores.split("/"))
        says = state if available == "up" else available
        partitions[name] = PartitionLook(
            before.nodes + (int(nodes) if good else 0),
            before.cores + (total if good else 0),
            before.idle + (idle if good else 0),
            before.pending_jobs,
            before.pending_cores,
            f"{before.state}, {nodes} {says}" if before.state else f"{nodes} {says}",
        )
    return QueueLook(tuple(jobs), partitions)


def parse_sge(text: str) -> QueueLook:
    """Read the answer to the question for Grid Engine."""
    jobs_text, queues_text, user_text = ("\n".join(part) for part in _parts(text, 3))
    user = user_text.strip()
    jobs, waiting = [], []
    for item in ElementTree.fromstring(jobs_text).iter("job_list"):
        word = item.get("state", "")
        slots = int(item.findtext("slots") or 1)
        queue = (item.findtext("queue_name") or item.findtext("hard_req_queue") or "").split("@")[0]
        if item.findtext("JB_owner") == user:
            letters = item.findtext("state") or ""
            state = "error" if "E" in letters else "held" if "h" in letters else word
            name = item.findtext("full_job_name") or item.findtext("JB_name") or ""
            jobs.append(QueuedJob(item.findtext("JB_job_number") or "", name, queue, state, letters))
        elif word == "pending":
            waiting.append((queue, slots))
    partitions = {}
    for item in ElementTree.fromstring(queues_text).iter("cluster_queue_summary"):
        name = item.findtext("name") or ""
        total = int(item.findtext("total") or 0)
        # Slots that no job can have: disabled or suspended by hand, unknown or in error.
        off = int(item.findtext("manual_intervention") or 0) + int(item.findtext("temp_disabled") or 0)
        free = int(item.findtext("available") or 0)
        mine = [slots for queue, slots in waiting if queue in ("", name)]
        cores = max(0, total - off)
        state = f"{total} slots" + (f", {off} disabled or in error" if off else "")
        partitions[name] = PartitionLook(int(cores > 0), cores, free, len(mine), sum(mine), state)
    return QueueLook(tuple(jobs), partitions)


def _state(word: str) -> str:
    return "pending" if word in _PENDING else word.lower()


def _parts(text: str, count: int) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip() == MARK:
            parts.append([])
        elif line.strip():
            parts[-1].append(line.strip())
    if len(parts) != count:
        raise ValueError(f"{len(parts)} of {count} parts")
    return parts


_QUESTIONS: dict[str, tuple[str, Callable[[str], QueueLook]]] = {
    "slurm": (_SLURM, parse_slurm),
    "sge": (_SGE, parse_sge),
}
