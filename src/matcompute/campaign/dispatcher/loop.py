"""The dispatcher's loop: look, act, record; a step that fails stops its campaign and no other."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from matcompute.campaign.adapters import is_per_structure
from matcompute.campaign.dispatcher.cancel import cancel
from matcompute.campaign.dispatcher.centres import Centres
from matcompute.campaign.dispatcher.collect import collect, find_lost_submissions, note_progress
from matcompute.campaign.dispatcher.definition import definition
from matcompute.campaign.dispatcher.finish import finish, finished_stages
from matcompute.campaign.dispatcher.gates import evaluate_gates
from matcompute.campaign.dispatcher.gather import gather
from matcompute.campaign.dispatcher.ingest import ingest
from matcompute.campaign.dispatcher.packing import pack_repository
from matcompute.campaign.dispatcher.submit import plan_batches, submit_next
from matcompute.campaign.events import budget_events, stopped_event
from matcompute.campaign.notify import Notifier
from matcompute.campaign.state import State, StateError
from matcompute.campaign.state.batches import BatchRow, set_batch
from matcompute.campaign.state.campaigns import CampaignRow, all_campaigns, by_id, set_campaign
from matcompute.campaign.state.models import (
    BATCH_UNRECORDED,
    CAMPAIGN_ACTIVE,
    batch,
    campaign,
    dispatcher,
)
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matcompute.campaign.dispatcher.placing import Stuck
    from matcompute.workspace import Workspace

__all__ = ["Dispatcher"]

LOGGER = logging.getLogger(__name__)


class Dispatcher:
    """Moves the campaigns of a workspace until there is nothing left to do.

    Parameters
    ----------
    workspace, state
        Where.
    interval
        Seconds between two looks.
    """

    #: Seconds between two looks at the daemon, at running jobs, and signs of life in the tables.
    HEALTH_S, PROGRESS_S, HEARTBEAT_S = 3.0, 1.0, 2.0
    #: Longest pause between two looks.
    PAUSE_S = 1.0
    #: Seconds until a batch that could not be recorded is looked at again.
    AGAIN_S = 30.0
    #: Seconds without work before the end: the user's next command finds a warm dispatcher.
    LINGER_S = 5.0
    #: Seconds between two searches for processes that AiiDA has lost.
    REPAIR_S = 20.0
    #: Seconds between two looks at what the centres have answered.
    CENTRES_S = 2.0

    def __init__(self, workspace: Workspace, state: State, *, interval: float = 0.2) -> None:
        self.workspace, self.state, self.interval = workspace, state, interval
        self.stopping = False
        self.centres = Centres(workspace, state)
        self.notifier = Notifier(
            state, lambda: self.centres.pool.options.notify, workspace.settings.title or str(workspace.root)
        )
        self._daemon: threading.Thread | None = None
        self._daemon_error: MatcomputeError | None = None
        self._due: dict[str, float] = {}
        self._folders: dict[int, Path] = {}
        self._unrecorded: set[int] = set()
        self._message = ""
        self._waits = False
        self._doubted: set[int] = set()
        self._to_pack = False

    # ------------------------------------------------------------------ life
    def run(self) -> None:
        """Work until there is nothing left to do, or SIGTERM."""
        signal.signal(signal.SIGTERM, self._on_signal)
        self._announce("running", started=time.time())
        LOGGER.info("dispatcher %d starts", os.getpid())
        self.workspace.load_profile()
        self.notifier.start()
        self._start_daemon()
        self._reconcile()
        worked, pause = time.monotonic(), self.interval
        while not self.stopping:
            moved = self.step()
            if moved or self._has_work():
                worked = time.monotonic()
            elif time.monotonic() - worked > self.LINGER_S and self._leave():
                self._pack()
                break
            # Looking takes the cores' time from the jobs: less often while nothing happens.
            pause = self.interval if moved else min(pause * 1.25, self.PAUSE_S)
            if not moved:
                time.sleep(pause)
        self.centres.close(settle=not self.stopping)
        self.notifier.stop()
        if self._daemon is not None:
            self._daemon.join()
        self._announce("exited")
        LOGGER.info("dispatcher %d ends after %.1f s of CPU", os.getpid(), time.process_time())

    def _on_signal(self, number: int, _frame: object) -> None:
        LOGGER.info("signal %d: ending after this step", number)
        self.stopping = True

    def _has_work(self) -> bool:
        with self.state.read() as connection:
            return _has_work(connection)

    def _leave(self) -> bool:
        """Whether there is nothing to do; then the tables say so before anybody can add work unseen."""
        with self.state.write() as connection:
            if _has_work(connection):
                return False
            connection.execute(dispatcher.update().values(state="exiting"))
        return True

    def _pack(self) -> None:
        """Slim the repository after campaigns that have left many files in it."""
        if self._to_pack:
            try:
                pack_repository()
            except Exception as error:
                # Everything is there, only larger: no reason to end otherwise than well.
                LOGGER.warning("the AiiDA repository is not packed: %s", error)

    def _announce(self, what: str, **values: float) -> None:
        row = {"id": 1, "pid": os.getpid(), "state": what, "heartbeat": time.time(), **values}
        row["message"] = self._message if what == "running" else ""
        with self.state.write() as connection:
            connection.execute(insert(dispatcher).values(row).on_conflict_do_update(["id"], set_=row))

    def _say(self, message: str) -> None:
        if message != self._message:
            self._message = message
            self._announce("running")

    def _every(self, name: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(name, 0.0):
            return False
        self._due[name] = now + seconds
        return True

    # ------------------------------------------------------------------ one round
    def step(self) -> bool:
        """Do all that can be done now; return whether anything changed."""
        if self._every("heartbeat", self.HEARTBEAT_S):
            self._announce("running")
        with self.state.read() as connection:
            rows = [
                row
                for row in all_campaigns(connection)
                if row.state in CAMPAIGN_ACTIVE
                or (row.wanted == "cancel" and row.state not in ("cancelled", "finished"))
            ]
            in_flight = _in_flight(connection)
        moved = 0
        for row in rows:
            moved += self._attempt(row, self._advance)
        if in_flight:
            if self._every("again", self.AGAIN_S):
                self._unrecorded.clear()
            moved += collect(
                self.state,
                self._failed_to_record,
                self._unrecorded,
                self.centres.elsewhere,
                self.centres.settled,
            )
            moved += gather(self.state, self._failed_to_record, self._unrecorded)
            if self._every("progress", self.PROGRESS_S):
                note_progress(self.state, self._folders)
            self._look_after_daemon()
        if self._every("centres", self.CENTRES_S):
            moved += self.centres.look_after(bool(in_flight))
        moved += self._submit()
        return bool(moved)

    def _attempt(self, row: CampaignRow, action: object) -> int:
        """Take a step of one campaign; an error stops this campaign."""
        try:
            return int(action(row))  # type: ignore[operator]
        except StateError:
            raise  # nothing can be recorded: the dispatcher itself must end
        except MatcomputeError as error:
            self._stop(row, error.message, error.hint or "")
        except OSError as error:
            self._stop(row, f"{error.strerror or error}: {error.filename or ''}", "mend it")
        except Exception as error:
            LOGGER.exception("campaign '%s'", row.name)
            log = self.workspace.logs_dir / "dispatcher.log"
            self._stop(row, f"{type(error).__name__}: {error}", f"the log {log} has the details")
        return 1

    def _stop(self, row: CampaignRow, reason: str, hint: str) -> None:
        LOGGER.error("campaign '%s' stops: %s", row.name, reason)
        then = f"matcompute campaign resume {row.name}"
        hint = hint if then in hint else (f"{hint}, then: {then}" if hint else then)
        with self.state.write() as connection:
            wanted = {"wanted": "run"} if row.wanted == "cancel" else {}
            set_campaign(connection, row.id, state="stopped", reason=reason, hint=hint, **wanted)
            stopped_event(connection, row, reason, hint)

    # ------------------------------------------------------------------ a campaign
    def _advance(self, row: CampaignRow) -> int:
        if row.wanted == "cancel":
            self._await_daemon()
            return int(cancel(self.state, row))
        if row.structures_uuid is None:
            self._say(f"reading the structures of '{row.name}'")
            self._to(row, "ingesting")
            ingest(self.state, row)
            self._to(row, "running")
            self._say("")
            return 1
        if row.state != "running":
            self._to(row, "running")
        moved = plan_batches(self.state, row, self.centres.pool)
        moved += evaluate_gates(self.state, row)
        if moved:
            return moved
        if finished_stages(self.state, row):
            self._say(f"writing the dataset of '{row.name}'")
            self._to(row, "merging")
            finish(self.workspace, self.state, row)
            self._to_pack |= any(is_per_structure(stage) for stage in definition(row).stages)
            self._say("")
            return 1
        return 0

    def _to(self, row: CampaignRow, to: str) -> None:
        """Change the state of a campaign, unless the user has changed it meanwhile."""
        with self.state.write() as connection:
            if by_id(connection, row.id).state in CAMPAIGN_ACTIVE:
                set_campaign(connection, row.id, state=to)

    # ------------------------------------------------------------------ submitting
    def _submit(self) -> int:
        with self.state.read() as connection:
            rows = [row for row in all_campaigns(connection, ["running"]) if row.wanted == "run"]
        if not rows:
            self._doubted.clear()
            return 0
        count, turn = submit_next(self.state, rows, self.centres.pool, self._await_daemon, self._fail)
        for row in turn.over:
            self._over_budget(row)
        self._tell_stuck(turn.stuck)
        return count

    def _tell_stuck(self, stuck: Sequence[Stuck]) -> None:
        """A campaign that waits for a centre says so; one that waits for a person stops."""
        waits = [item for item in stuck if item.kind == "waits"]
        if waits or self._waits:
            self._waits = bool(waits)
            self._say("; ".join(f"'{item.row.name}' waits: {item.text}" for item in waits))
        asked, self._doubted = self._doubted, set()
        for item in stuck:
            with self.state.write() as connection:
                row = by_id(connection, item.row.id)
                if item.kind == "waits" or row.state != "running" or _in_flight(connection, row.id):
                    continue
                if row.id not in asked:
                    # A profile may have been changed since it was read, a quota raised for example: no campaign stops
                    # before the files were looked at once more.
                    self._doubted.add(row.id)
                    self.centres.pool.forget()
                    continue
                values = stuck_values(row, item.kind, item.text)
                LOGGER.error("campaign '%s': %s", row.name, values["reason"])
                set_campaign(connection, row.id, **values)
                stopped_event(connection, row, values["reason"], values["hint"])

    def _failed_to_record(self, item: BatchRow, error: Exception) -> None:
        self._unrecorded.add(item.id)
        with self.state.read() as connection:
            row = by_id(connection, item.campaign_id)
        if row.state in CAMPAIGN_ACTIVE:
            self._fail(row, error)
        else:
            LOGGER.error("batch %s cannot be recorded: %s", item.key, error)

    def _fail(self, row: CampaignRow, error: Exception) -> None:
        def again(_row: CampaignRow) -> int:
            raise error

        self._attempt(row, again)

    def _over_budget(self, row: CampaignRow) -> None:
        assert row.budget_core_s is not None
        with self.state.write() as connection:
            row = by_id(connection, row.id)
            if row.state != "running" or _in_flight(connection, row.id):
                return
            used, limit = row.core_s / 3600, (row.budget_core_s or 0.0) / 3600
            set_campaign(
                connection,
                row.id,
                state="over-budget",
                reason=f"{used:.3g} of {limit:.3g} core-hours are used",
                hint=f"raise the budget: matcompute campaign resume {row.name} --core-hours HOURS",
            )
            budget_events(connection, row)

    # ------------------------------------------------------------------ the daemon
    def _start_daemon(self) -> None:
        """Start the daemon while structures are being read."""

        def work() -> None:
            try:
                self.workspace.ensure_daemon()
            except MatcomputeError as error:
                self._daemon_error = error

        self._daemon = threading.Thread(target=work, name="daemon-start", daemon=True)
        self._daemon.start()

    def _await_daemon(self) -> None:
        """Return when the daemon answers."""
        if self._daemon is not None:
            self._daemon.join()
            self._daemon = None
            if self._daemon_error is not None:
                error, self._daemon_error = self._daemon_error, None
                raise error
        self.workspace.ensure_daemon()

    def _look_after_daemon(self) -> None:
        if not self._every("health", self.HEALTH_S):
            return
        try:
            self._await_daemon()
            if self._every("repair", self.REPAIR_S):
                report = self.workspace.repair()
                if report.changed:
                    LOGGER.warning("mended: %s", report.to_dict())
        except MatcomputeError as error:
            LOGGER.error("the daemon cannot be mended: %s", error)
            self._say(f"the AiiDA daemon does not answer: {error.message}")

    def _reconcile(self) -> None:
        """After a start: what was meant to be submitted is found in AiiDA, or planned anew."""
        lost = find_lost_submissions(self.state)
        with self.state.write() as connection:
            for item in lost:
                LOGGER.info("batch %s was not submitted", item.key)
                set_batch(connection, item.id, state="planned")
            waiting = _in_flight(connection)
        if waiting:
            self._await_daemon()
            self.workspace.repair()
            self._due["repair"] = time.monotonic() + self.REPAIR_S


def stuck_values(row: CampaignRow, kind: str, text: str) -> dict[str, str]:
    """Return what a campaign's row says when none of its batches can go anywhere."""
    resume = f"matcompute campaign resume {row.name}"
    if kind == "quota":
        return {
            "state": "over-budget",
            "reason": f"the quota of its centres is used up: {text}",
            "hint": f"raise projects.quota_core_h in the centre's profile or allow another centre, then: {resume}",
        }
    if kind == "blocked":
        return {
            "state": "stopped",
            "reason": f"no centre is left after failures: {text}",
            "hint": f"mend what is said there, then: {resume}",
        }
    return {
        "state": "stopped",
        "reason": f"no centre can take its next batch: {text}",
        "hint": f"register a centre that can, or change centres in the campaign file and run it again, then: {resume}",
    }


def _in_flight(connection: Connection, campaign_id: int | None = None) -> int:
    query = select(func.count()).select_from(batch).where(batch.c.state.in_(BATCH_UNRECORDED))
    if campaign_id is not None:
        query = query.where(batch.c.campaign_id == campaign_id)
    return int(connection.execute(query).scalar_one())


def _has_work(connection: Connection) -> bool:
    if _in_flight(connection):
        return True
    wanted = campaign.c.state.in_(CAMPAIGN_ACTIVE) | (
        (campaign.c.wanted == "cancel") & campaign.c.state.not_in(("cancelled", "finished"))
    )
    return bool(connection.execute(select(func.count()).select_from(campaign).where(wanted)).scalar_one())
