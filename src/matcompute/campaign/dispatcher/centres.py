"""The centres in the dispatcher's loop: watched, left when they go down, taken up again when they are back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from matcompute.campaign.dispatcher.definition import definition
from matcompute.campaign.dispatcher.placing import alternatives
from matcompute.campaign.dispatcher.pool import Pool
from matcompute.campaign.dispatcher.reroute import (
    jobs_in_flight,
    play_paused,
    take_back,
    to_take_back,
    waiting_batches,
)
from matcompute.campaign.dispatcher.watch import Watches
from matcompute.campaign.dispatcher.withdrawals import Withdrawals
from matcompute.campaign.events import quota_events
from matcompute.campaign.state.campaigns import by_id, stages_of
from matcompute.campaign.state.centres import centre_rows
from matcompute.campaign.state.usage import project_core_s
from matcompute.centres.sshfiles import switch_host

if TYPE_CHECKING:
    from matcompute.campaign.state import State
    from matcompute.campaign.state.batches import BatchRow
    from matcompute.campaign.state.centres import CentreRow
    from matcompute.workspace import Workspace

__all__ = ["Centres"]

LOGGER = logging.getLogger(__name__)


class Centres:
    """The centres of a workspace while a dispatcher runs.

    Attributes
    ----------
    pool
        Profiles and registrations.
    """

    #: Seconds between two looks at jobs that AiiDA has paused.
    PAUSED_S = 60.0
    #: Seconds between two looks at quotas.
    WARN_S = 10.0
    #: Seconds that the end waits for the schedulers' accounting of the last jobs.
    ACCOUNTS_S = 5.0

    def __init__(self, workspace: Workspace, state: State) -> None:
        self.workspace, self.state = workspace, state
        self.pool = Pool(workspace)
        self._watches = Watches(state)
        self._withdrawals = Withdrawals(self._watches)
        self._out: set[str] = set()
        self._hosts: dict[str, str] = {}
        self._paused_due = self._warn_due = 0.0

    def elsewhere(self, item: BatchRow) -> bool:
        """Tell whether another centre than a batch's takes its work now."""
        if len(self.pool.profiles) < 2:
            return False
        with self.state.read() as connection:
            row = by_id(connection, item.campaign_id)
            name = next(s.name for s in stages_of(connection, row.id) if s.id == item.stage_id)
            situation = self.pool.situation(connection)
        return alternatives(row, definition(row).stage(name), situation, item.centre)

    def settled(self, item: BatchRow, process: Any) -> bool | None:
        """Tell whether a batch whose process was killed had begun; None while a job of it may still run."""
        with self.state.read() as connection:
            row = centre_rows(connection).get(item.centre)
        if item.centre not in self.pool.profiles:
            row = None  # forgotten: nobody can ask it
        return self._withdrawals.settled(item, process, row, process.mtime.timestamp())

    def look_after(self, busy: bool) -> int:
        """Take back what waits at centres that are out of service; let jobs go on at those that are back.

        Parameters
        ----------
        busy
            Whether batches are in flight.

        Returns
        -------
        n
            Batches that leave their centre.
        """
        self._watches.follow(self.pool.profiles)
        with self.state.read() as connection:
            rows = centre_rows(connection)
        self._warn()
        rows = {name: row for name, row in rows.items() if name in self.pool.profiles}
        self._withdrawals.hunt(rows, lambda: self._job_uuids(rows))
        out = {name for name, row in rows.items() if row.state != "up"}
        back, self._out = self._out - out | self._follow_hosts(rows), out
        if not busy:
            return 0
        now = time.monotonic()
        if now >= self._paused_due:
            self._paused_due = now + self.PAUSED_S
            back = {name for name, centre in self.pool.profiles.items() if not centre.is_local} - out
        for name in sorted(back):
            play_paused(self.workspace, name)
        if not out:
            return 0
        batches = waiting_batches(self.state, out)
        chosen = to_take_back(batches, jobs_in_flight(batches), rows, self.elsewhere)
        return take_back(self.state, chosen)

    def _job_uuids(self, names: Iterable[str]) -> list[str]:
        """The jobs that AiiDA follows at some centres."""
        looks = jobs_in_flight(waiting_batches(self.state, names)).values()
        return [look.uuid for look in looks if look.uuid]

    def _follow_hosts(self, rows: dict[str, CentreRow]) -> set[str]:
        """Have AiiDA use the login hosts at which the centres have answered; return the centres that changed theirs."""
        changed = set()
        for name, row in rows.items():
            host, centre = (row.queue or {}).get("host"), self.pool.profiles[name]
            if not host or len(centre.login.hosts) < 2 or self._hosts.get(name) == host:
                continue
            if host in centre.login.hosts:
                self._hosts[name] = host
                label = self.pool.registered(name).computer.label
                if switch_host(self.workspace, label, centre, host):
                    LOGGER.warning("centre '%s' is now reached through %s", name, host)
                    changed.add(name)
        return changed

    def _warn(self) -> None:
        """Tell of quotas that come to their end."""
        now = time.monotonic()
        limited = [c for c in self.pool.profiles.values() if any(p.quota_core_h for p in c.projects)]
        if now < self._warn_due or not limited:
            return
        self._warn_due = now + self.WARN_S
        with self.state.write() as connection:
            used = project_core_s(connection)
            for centre in limited:
                quota_events(connection, centre, used)

    def close(self, *, settle: bool) -> None:
        """End the watches; with ``settle`` after a last look at the accounting."""
        if settle:
            self._watches.settle(self.ACCOUNTS_S)
        self._watches.stop()
