"""Watching the centres: is it there, does it start jobs, how long is its queue, what have our jobs used.

One thread a centre, so that one that hangs holds up nobody else. What it learns goes into the state tables, which the
dispatcher's loop reads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from matcompute.campaign.state import State, StateError
from matcompute.campaign.state.centres import CentreRow, centre_rows, in_flight, set_centre
from matcompute.campaign.state.notices import add_notice
from matcompute.campaign.state.usage import ask_again_later, pending_jobs, settle_job
from matcompute.centres.limits import backoff_s
from matcompute.centres.schedulers.accounting import AccountingError, accounting_of, chunks, usage
from matcompute.centres.schedulers.queue import QueueLook, look
from matcompute.errors import MatcomputeError
from matcompute_workflows.submission import PREFIX, Withdrawal, read_withdrawal, withdraw

if TYPE_CHECKING:
    from matcompute.centres import Centre
    from matcompute.centres.remote import Remote

__all__ = ["CentreWatch", "Watches", "judge", "note_answer", "note_silence", "settle_accounts"]

LOGGER = logging.getLogger(__name__)
#: Seconds between two questions to a centre that answers.
LOOK_S = 30.0
#: Failed questions in a row after which a centre counts as down; the second one comes at once.
PATIENCE = 2
#: Longest time to take a job back, in s: it waits for a submission under way, and for the end of a job.
WITHDRAW_S = 150.0
#: Times that the accounting is asked for a job: it may lag behind, or have been purged.
MOST_ASKED = 20


def judge(centre: Centre, seen: QueueLook) -> tuple[str, str]:
    """Return the state of a centre that answered, and why: ``up``, or ``draining`` where no partition starts jobs."""
    if not seen.partitions:
        return "up", ""
    ours = [part.name for part in centre.partitions]
    known = {name: seen.partitions[name] for name in ours if name in seen.partitions}
    if any(part.starts for part in known.values()):
        return "up", ""
    if not known:
        return "draining", f"its scheduler knows no partition {', '.join(ours)}"
    states = "; ".join(f"{name}: {part.state}" for name, part in known.items())
    return "draining", f"no node starts jobs ({states})"


def note_answer(
    state: State, centre: Centre, seen: QueueLook, host: str | None = None
) -> tuple[CentreRow | None, CentreRow]:
    """Write down what a centre answered, and at which login host; return its rows before and after."""
    to, reason = judge(centre, seen)
    now = time.time()
    with state.write() as connection:
        before = centre_rows(connection).get(centre.id)
        flight = in_flight(connection).get(centre.id)
        queue = {
            **seen.to_json(),
            "in_flight_then": 0 if flight is None else flight.count,
            "host": host,
            "ours": [[job.job_id, job.name] for job in seen.jobs or () if job.name.startswith(PREFIX)],
        }
        after = set_centre(
            connection,
            centre.id,
            state=to,
            reason=reason,
            checked=now,
            answered=now,
            failures=0,
            queue=queue,
        )
        _tell(connection, centre, before, after)
    return before, after


def note_silence(state: State, centre: Centre, error: str) -> CentreRow:
    """Write down that a centre did not answer; after :data:`PATIENCE` times in a row it is down."""
    with state.write() as connection:
        before = centre_rows(connection).get(centre.id)
        failures = (0 if before is None else before.failures) + 1
        values: dict[str, object] = {"failures": failures, "checked": time.time()}
        if failures >= PATIENCE:
            values |= {"state": "down", "reason": error}
        after = set_centre(connection, centre.id, **values)
        _tell(connection, centre, before, after)
    return after


def _tell(connection: object, centre: Centre, before: CentreRow | None, after: CentreRow) -> None:
    was = "up" if before is None else before.state
    if was == after.state:
        return
    if after.state == "up":
        LOGGER.info("centre '%s' is back", centre.id)
        event, text = "centre-up", f"centre '{centre.id}' is back: it takes work again"
    else:
        LOGGER.warning("centre '%s' is %s: %s", centre.id, after.state, after.reason)
        event = "centre-down"
        what = "does not answer" if after.state == "down" else "starts no jobs"
        text = f"centre '{centre.id}' {what}: {after.reason}"
    key = f"centre/{centre.id}/{after.state}/{after.since:.3f}"
    add_notice(connection, key, event, text, centre=centre.id)  # type: ignore[arg-type]


def settle_accounts(state: State, centre: Centre, remote: Remote) -> int:
    """Replace what node programs said by the scheduler's accounting, for jobs that it knows; return how many."""
    accounting = accounting_of(centre)
    if accounting == "none":
        return 0
    with state.read() as connection:
        jobs = pending_jobs(connection, centre.id, most_asked=MOST_ASKED)
    count = 0
    for portion in chunks([job.job_id for job in jobs]):
        found = usage(remote, accounting, portion)
        mine = [job for job in jobs if job.job_id in portion]
        with state.write() as connection:
            for job in mine:
                known = found.get(job.job_id)
                if known is None:
                    continue
                count += 1
                settle_job(
                    connection,
                    job,
                    accounting,
                    core_s=known.core_s,
                    gpu_s=known.gpu_s,
                    wall_s=known.elapsed_s,
                    queue_s=known.queue_s,
                    max_rss_gb=known.max_rss_gb,
                    state=known.state,
                    reason=known.reason or job.reason,
                    node=known.node or job.node,
                )
            ask_again_later(connection, [job.id for job in mine if job.job_id not in found])
    return count


class CentreWatch(threading.Thread):
    """Asks one centre again and again.

    Parameters
    ----------
    state
        The tables.
    profile
        Returns the profile as it is now; None ends the watch.
    name
        The centre.
    """

    def __init__(self, state: State, profile: Callable[[], Centre | None], name: str) -> None:
        super().__init__(name=f"watch-{name}", daemon=True)
        self.state, self.profile, self.centre_id = state, profile, name
        self._stop_now = threading.Event()
        self._soon = threading.Event()
        #: Folder → what became of its job; None: to be asked.
        self._taken_back: dict[str, Withdrawal | None] = {}
        #: A login host that has just failed.
        self._avoid: str | None = None

    def withdraw(self, folder: str) -> Withdrawal | None:
        """Have the job of a folder taken back for good; return what became of it, None while that is not known."""
        if folder not in self._taken_back:
            self._taken_back[folder] = None
            self.ask_soon()
        return self._taken_back[folder]

    def ask_again(self, folder: str) -> None:
        """Ask for a folder once more at the next turn."""
        self._taken_back[folder] = None

    def stop(self) -> None:
        """End after the present question."""
        self._stop_now.set()
        self._soon.set()

    def ask_soon(self) -> None:
        """Ask without waiting for the next turn."""
        self._soon.set()

    def run(self) -> None:
        """Ask until :meth:`stop`."""
        while not self._stop_now.is_set():
            centre = self.profile()
            if centre is None:
                return
            try:
                wait = self._ask(centre)
            except StateError as error:
                LOGGER.error("%s", error)  # the loop meets it too, and ends
                wait = LOOK_S
            except Exception:
                LOGGER.exception("watching centre '%s'", centre.id)
                wait = LOOK_S
            self._soon.wait(wait)
            self._soon.clear()

    def _ask(self, centre: Centre) -> float:
        """Ask once; return the seconds until the next time."""
        from matcompute.centres.remote import Remote

        remote = Remote(centre, avoid=self._avoid)
        try:
            with remote:
                seen = look(remote, centre.scheduler.type)
                note_answer(self.state, centre, seen, remote.host)
                self._avoid = None
                self._take_back(centre, remote)
                self._settle(centre, remote)
        except MatcomputeError as error:
            self._avoid = remote.last_host
            after = note_silence(self.state, centre, error.message)
            # A hiccup is told from a failure by asking again soon; then with patience, so as not to be banned.
            return backoff_s(after.failures, first=5.0, longest=120.0)
        return max(LOOK_S, centre.login.safe_interval_s)

    def _take_back(self, centre: Centre, remote: Remote) -> None:
        for folder in [name for name, found in self._taken_back.items() if found is None]:
            done = remote.run(withdraw(centre.scheduler.type, folder), timeout=WITHDRAW_S)
            found = self._taken_back[folder] = read_withdrawal(done.stdout)
            if found is None:
                LOGGER.warning(
                    "centre '%s': %s cannot be taken back yet: %s", centre.id, folder, done.message
                )

    def _settle(self, centre: Centre, remote: Remote) -> None:
        try:
            settle_accounts(self.state, centre, remote)
        except AccountingError as error:
            LOGGER.warning("centre '%s': %s", centre.id, error.message)


class Watches:
    """The watches of all centres that can be asked."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._profiles: dict[str, Centre] = {}
        self._watches: dict[str, CentreWatch] = {}

    def follow(self, profiles: dict[str, Centre]) -> None:
        """Watch the centres that there are now, and no others; this machine needs no watch."""
        self._profiles = {name: centre for name, centre in profiles.items() if not centre.is_local}
        for name in self._profiles:
            known = self._watches.get(name)
            if known is None or not known.is_alive():
                self._watches[name] = CentreWatch(self.state, partial(self._profile, name), name)
                self._watches[name].start()
        for name in set(self._watches) - set(self._profiles):
            self._watches.pop(name).stop()

    def _profile(self, name: str) -> Centre | None:
        return self._profiles.get(name)

    def withdraw(self, name: str, folder: str) -> Withdrawal | None:
        """Have a job at a centre taken back; see :meth:`CentreWatch.withdraw`."""
        watch = self._watches.get(name)
        return None if watch is None else watch.withdraw(folder)

    def ask_again(self, name: str, folder: str) -> None:
        """Ask a centre for a folder once more."""
        if name in self._watches:
            self._watches[name].ask_again(folder)

    def ask_soon(self, name: str) -> None:
        """Ask a centre now: something there has changed."""
        if name in self._watches:
            self._watches[name].ask_soon()

    def stop(self) -> None:
        """End all watches; does not wait for them."""
        for watch in self._watches.values():
            watch.stop()
        self._watches.clear()

    def settle(self, timeout: float) -> None:
        """Ask the accounting of all centres that have open accounts once more, for a while at most."""
        with self.state.read() as connection:
            names = [
                name
                for name, centre in self._profiles.items()
                if accounting_of(centre) != "none" and pending_jobs(connection, name, most_asked=MOST_ASKED)
            ]
        for name in names:
            self.ask_soon(name)
        deadline = time.monotonic() + timeout
        while names and time.monotonic() < deadline:
            time.sleep(0.2)
            with self.state.read() as connection:
                names = [n for n in names if pending_jobs(connection, n, most_asked=MOST_ASKED)]
