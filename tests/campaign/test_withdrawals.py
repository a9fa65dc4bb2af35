"""Jobs whose process was killed: when the batch may go elsewhere, and what is hunted in the queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from matcompute.campaign.dispatcher import withdrawals
from matcompute.campaign.dispatcher.withdrawals import Withdrawals
from matcompute.campaign.state.centres import CentreRow
from matcompute_workflows.submission import Withdrawal, job_name

if TYPE_CHECKING:
    from aiida.orm import CalcJobNode

    from matcompute.centres import RegisteredCentre


class Answers:
    """What a centre says of folders; the real one is in tests/cluster."""

    def __init__(self) -> None:
        self.known: dict[str, Withdrawal | None] = {}

    def withdraw(self, _centre: str, folder: str) -> Withdrawal | None:
        return self.known.setdefault(folder, None)

    def ask_again(self, _centre: str, folder: str) -> None:
        self.known[folder] = None


class Batch:
    id, centre = 1, "far"


class Process:
    """A killed work chain that has called some jobs."""

    def __init__(self, *jobs: Any) -> None:
        self.called_descendants = list(jobs)


@pytest.fixture
def killed(centre: RegisteredCentre) -> CalcJobNode:
    """A job that was killed when its files were there."""
    from aiida.orm import CalcJobNode
    from plumpy import ProcessState

    job = CalcJobNode(computer=centre.computer, process_type="aiida.calculations:matcompute.batch")
    job.set_option("resources", {"num_machines": 1})
    job.store()
    job.set_remote_workdir(f"/scratch/{job.uuid[:2]}/{job.uuid[2:4]}/{job.uuid[4:]}")
    job.set_process_state(ProcessState.KILLED)
    job.seal()
    return job


def test_a_batch_waits_until_its_centre_has_answered(killed: CalcJobNode) -> None:
    answers = Answers()
    asked = Withdrawals(answers)  # type: ignore[arg-type]
    draining, folder = CentreRow("far", "draining", since=1.0), killed.get_remote_workdir()
    assert folder is not None

    def settled(row: CentreRow | None, *jobs: Any) -> bool | None:
        return asked.settled(Batch(), Process(*jobs), row, 5.0)  # type: ignore[arg-type]

    assert settled(draining, killed) is None
    answers.known[folder] = Withdrawal(gone=False, begun=False)
    assert settled(draining, killed) is None
    assert answers.known == {folder: None}, "asked again"
    answers.known[folder] = Withdrawal(gone=True, begun=False, job_ids=("12",))
    assert settled(draining, killed) is False
    assert killed.base.extras.get(withdrawals.JOB_ID) == "12", "its use is accounted for"
    answers.known[folder] = Withdrawal(gone=True, begun=True)
    assert settled(draining, killed) is True
    # Nobody can be asked, or nothing can have come there.
    answers.known.clear()
    assert settled(None, killed) is False
    assert settled(CentreRow("far", "down", since=4.0), killed) is False
    assert settled(CentreRow("far", "down", since=6.0), killed) is None, "it went down after the kill"


def test_a_job_without_a_process_is_taken_out_of_the_queue(
    killed: CalcJobNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers()
    hunter = Withdrawals(answers)  # type: ignore[arg-type]
    folder = killed.get_remote_workdir()
    assert folder is not None
    queue = {"ours": [["7", job_name(folder)], ["8", "mc-000000000000"], ["9", "mc-pilot-far"]]}

    def hunt(answered: float, *alive: str) -> int:
        return hunter.hunt({"far": CentreRow("far", answered=answered, queue=queue)}, lambda: alive)

    assert hunt(1.0) == 0, "the queue may be older than the end of the process"
    assert hunt(1.0) == 0, "the same answer"
    assert hunt(2.0) == 0, "AiiDA may still be about to submit it"
    monkeypatch.setattr(withdrawals, "LATE_S", -1.0)
    assert hunt(3.0, killed.uuid) == 0, "it is followed"
    assert hunt(4.0) == 0
    assert hunt(5.0) == 1
    assert answers.known == {folder: None}, "and those of other workspaces are left alone"
