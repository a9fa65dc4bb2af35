"""The centres of a workspace as the dispatcher uses them: profiles, which may change while it runs, known to AiiDA."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from matcompute.campaign.placement import Situation, known_centres
from matcompute.errors import MatcomputeError
from matcompute.workspace.options import Options, load_options

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from matcompute.centres import Centre, RegisteredCentre
    from matcompute.workspace import Workspace

__all__ = ["Pool"]

LOGGER = logging.getLogger(__name__)


class Pool:
    """Profiles and AiiDA registrations, looked at again every few seconds.

    A profile that is broken while the dispatcher runs takes its centre out and leaves the others alone.
    """

    #: Seconds between two looks at the files.
    LOOK_S = 5.0

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.options = Options()
        self.wrong: dict[str, str] = {}
        #: Ids of stages whose first batches are to tell what their structures cost.
        self.probing: set[int] = set()
        self._profiles: dict[str, Centre] = {}
        self._registered: dict[str, RegisteredCentre] = {}
        self._due = 0.0

    @property
    def profiles(self) -> dict[str, Centre]:
        """Usable centres by id."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self.LOOK_S
            self._look()
        return self._profiles

    def _look(self) -> None:
        found, wrong = known_centres(self.workspace)
        for name, message in wrong.items():
            if self.wrong.get(name) != message:
                LOGGER.error("centre '%s' cannot be used: %s", name, message)
        self._profiles, self.wrong = found, wrong
        try:
            self.options = load_options(self.workspace.settings_path)
        except MatcomputeError as error:
            LOGGER.error("%s", error.message)

    def forget(self) -> None:
        """Look at the files before the next answer."""
        self._due = 0.0

    def registered(self, name: str) -> RegisteredCentre:
        """Return a centre made known to AiiDA.

        Raises
        ------
        CentreError
            If there is no such centre, or it cannot be set up.
        """
        from matcompute.centres import CentreError, register

        profile = self.profiles.get(name)
        if profile is None:
            raise CentreError(
                f"centre '{name}' cannot be used: {self.wrong.get(name, 'it is not registered')}",
                hint=f"matcompute centre check {name}",
            )
        if profile.is_local and name != "local" and "local" in self.profiles:
            self.registered("local")  # whose core slots all centres on this machine share
        known = self._registered.get(name)
        if known is None or known.centre != profile:
            known = self._registered[name] = register(self.workspace, profile)
        return known

    def situation(self, connection: Connection) -> Situation:
        """Return all that decides where batches go."""
        return Situation.read(connection, self.profiles, max_jobs=self.options.limits.max_jobs)
