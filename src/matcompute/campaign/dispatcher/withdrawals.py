"""Jobs whose process was killed: nothing of theirs runs on at the centre, and what they had finished is not lost.

AiiDA takes a job out of the queue when its process is killed, unless it is submitting it at that moment: then the job
runs and nobody knows it. So a batch goes to another centre, or a campaign counts as cancelled, when the centre has said
of each job's folder that nothing is left (:func:`matcompute_workflows.submission.withdraw`). And jobs of ours that are
in a queue although their process has ended are looked for by name whenever a centre has answered.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matcompute.campaign.dispatcher.nodes import find_process
from matcompute_workflows.submission import PREFIX, Withdrawal, job_name

if TYPE_CHECKING:
    from matcompute.campaign.dispatcher.watch import Watches
    from matcompute.campaign.state.batches import BatchRow
    from matcompute.campaign.state.centres import CentreRow

__all__ = ["JOB_ID", "Withdrawals", "parent_folder"]

LOGGER = logging.getLogger(__name__)
#: Extra of a job that had begun when it was taken back.
BEGUN = "matcompute_begun"
#: Extra of a job whose number AiiDA has not learnt.
JOB_ID = "matcompute_job_id"
#: Seconds after the end of a process in which AiiDA may still be about to submit its job.
LATE_S = 20.0
_NAME = re.compile(rf"{PREFIX}([0-9a-f]{{8}})([0-9a-f]{{4}})\Z")


class Withdrawals:
    """What the centres have said of jobs that were taken back."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches
        #: By centre: names of jobs that nobody follows, as the last answer had them.
        self._suspects: dict[str, set[str]] = {}
        self._looked: dict[str, float | None] = {}

    def settled(self, batch: BatchRow, process: Any, row: CentreRow | None, since: float) -> bool | None:
        """Tell whether any job of a killed process had begun to compute; None until all are known to be gone.

        Parameters
        ----------
        batch
            The batch.
        process
            Its killed process.
        row
            What is known of its centre; None for one that is not asked, this machine for example.
        since
            When the process was killed. A centre that did not answer before that and has not since has got nothing.
        """
        if row is None or (row.state == "down" and row.since < since):
            return False
        begun = False
        for job in _jobs(process):
            folder = job.get_remote_workdir()
            if folder is None:
                continue  # nothing was uploaded, and nothing more will be
            found: Withdrawal | None = self._watches.withdraw(batch.centre, folder)
            if found is None:
                return None
            if not found.gone:
                self._watches.ask_again(batch.centre, folder)
                return None
            if found.job_ids and not job.get_job_id():
                job.base.extras.set(JOB_ID, found.job_ids[0])  # for the accounting
            if found.begun:
                begun = True
                job.base.extras.set(BEGUN, True)
        return begun

    def hunt(self, rows: Mapping[str, CentreRow], alive: Callable[[], Iterable[str]]) -> int:
        """Take jobs out of the queues whose process has ended; return how many.

        Parameters
        ----------
        rows
            Centres with what they have answered last.
        alive
            Returns the UUIDs of the jobs that AiiDA follows.
        """
        listed: dict[str, set[str]] = {}
        for name, row in rows.items():
            if row.answered is not None and self._looked.get(name) != row.answered:
                self._looked[name] = row.answered
                listed[name] = {str(title) for _, title in (row.queue or {}).get("ours", ())}
        if not any(listed.values()):
            self._suspects.update(listed)
            return 0
        known = {job_name(f"{uuid[:2]}/{uuid[2:4]}/{uuid[4:]}") for uuid in alive()}
        count = 0
        for name, titles in listed.items():
            strange = titles - known
            # What the queue showed may be older than what AiiDA knows: only who is there again is looked up.
            for title in strange & self._suspects.get(name, set()):
                count += self._end(name, title)
            self._suspects[name] = strange
        return count

    def _end(self, centre: str, title: str) -> bool:
        folder = _folder_of_ended(title)
        if folder is None:
            return False
        if self._watches.withdraw(centre, folder) is not None:
            self._watches.ask_again(centre, folder)  # it is there all the same
        LOGGER.warning(
            "centre '%s': job %s is in the queue although its process has ended; it is cancelled",
            centre,
            title,
        )
        return True


def _jobs(process: Any) -> list[Any]:
    """The jobs that a process has called, directly or not, the first one first."""
    found = [node for node in process.called_descendants if hasattr(node, "get_remote_workdir")]
    return sorted(found, key=lambda node: node.pk)


def _folder_of_ended(title: str) -> str | None:
    """Return the folder of a job by its name, if it is of this profile and its process has ended some time ago."""
    from aiida.orm import CalcJobNode, QueryBuilder

    match = _NAME.match(title)
    if match is None:
        return None
    filters = {"uuid": {"like": f"{match[1]}-{match[2]}-%"}}
    nodes: Sequence[Any] = QueryBuilder().append(CalcJobNode, filters=filters).all(flat=True)
    for node in nodes:
        if node.is_terminated and node.mtime.timestamp() < time.time() - LATE_S:
            return str(node.get_remote_workdir() or "") or None
    return None


def parent_folder(batch: BatchRow) -> Any:
    """Return the folder in which the attempt before this one had begun to compute, as RemoteData; None if it had not.

    It is at the centre of that attempt; a job there goes on from its checkpoint.
    """
    if batch.attempts == 0:
        return None
    label = batch.key if batch.attempts == 1 else f"{batch.key}#{batch.attempts}"
    process = find_process(label)
    for job in reversed([] if process is None else _jobs(process)):
        if not job.base.extras.get(BEGUN, False):
            continue
        folder = getattr(job.outputs, "remote_folder", None)
        if folder is None:  # killed before AiiDA had attached it
            from aiida.orm import RemoteData

            folder = RemoteData(computer=job.computer, remote_path=job.get_remote_workdir()).store()
        return folder
    return None
