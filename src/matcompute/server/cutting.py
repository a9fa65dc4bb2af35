"""End the downloads that nginx sends by itself (X-Accel) when access to what it sends has ended.

The node breaks off its own downloads, piece by piece. Of those that it handed to nginx it hears no more, so it has a
command run (``on_access_end`` of ``node.yaml``: ``nginx -s reload``, with ``worker_shutdown_timeout`` in nginx): the
old workers, and all that they are sending, end; new ones ask the node for each request.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
from typing import TYPE_CHECKING

import anyio
from sqlalchemy import select

from matcompute.dataset import GRADES, TIERS
from matcompute.errors import MatcomputeError
from matcompute.server.tables import changes

if TYPE_CHECKING:
    from matcompute.server.node import Node

__all__ = ["Cutter", "narrows"]

_log = logging.getLogger("matcompute.server")
#: Seconds between looks at the events (some microseconds each), before a failed command is tried again, and for one.
_EVERY, _AGAIN, _LONGEST = 0.25, 5.0, 30.0


def narrows(op: str, tier: str, grade: str, tier_before: str | None, grade_before: str | None) -> bool:
    """Whether somebody who could see something before an event cannot see it any more."""
    if op == "withdraw":
        return True
    if tier_before is None or grade_before is None:
        return False  # it was not there before
    tiers, grades = (tier, tier_before), (grade, grade_before)
    return TIERS.index(tiers[0]) > TIERS.index(tiers[1]) or GRADES.index(grades[0]) > GRADES.index(grades[1])


class Cutter:
    """Run the node's command when access to something has ended.

    Parameters
    ----------
    node
        Its events are followed; its settings have the command.

    Attributes
    ----------
    failed
        Why the last run failed, None if it did not: downloads may go on that should not. ``/healthz`` tells of it.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.failed: str | None = None
        self._seen = 0

    async def follow(self) -> None:
        """Watch the events until cancelled; without a command there is nothing to do."""
        if not self.node.settings.on_access_end:
            return
        # What ended while no server ran, or in its last moment: once, at the start. nginx may still be to come.
        self._seen = self.node.head
        if (trouble := await anyio.to_thread.run_sync(self._run, abandon_on_cancel=True)) is not None:
            _log.warning("at the start: %s", trouble)
        while True:
            await asyncio.sleep(_AGAIN if self.failed else _EVERY)
            try:
                if self.failed or self.node.head != self._seen:
                    await anyio.to_thread.run_sync(self.look, abandon_on_cancel=True)
            except MatcomputeError as error:
                _log.error("events cannot be followed: %s", error)
            except Exception:
                _log.exception("events cannot be followed")

    def look(self) -> None:
        """Run the command if an event since the last look narrowed access, or if it failed before."""
        head = self.node.refresh()
        columns = (
            changes.c.op,
            changes.c.tier,
            changes.c.grade,
            changes.c.tier_before,
            changes.c.grade_before,
        )
        with self.node.engine.connect() as connection:
            rows = connection.execute(select(*columns).where(changes.c.seq > self._seen)).all()
        if self.failed or any(narrows(*row) for row in rows):
            self.failed = self._run()
            if self.failed:
                _log.error("downloads that nginx sends may go on: %s", self.failed)
                return
            _log.info("downloads that nginx sent were ended")
        self._seen = head

    def _run(self) -> str | None:
        command = self.node.settings.on_access_end or ()
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LONGEST, check=False
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"{' '.join(command)}: {error}"
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        return f"{' '.join(command)}: exit {done.returncode}: {said[-500:]}" if done.returncode else None
