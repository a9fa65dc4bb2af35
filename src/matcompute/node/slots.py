"""Core slots: lock files that the jobs of one machine share, so that together they never use more cores than it has."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from matcompute.node.errors import WriteError

__all__ = ["CoreSlots"]


class CoreSlots:
    """Holds ``width`` of the files ``core-0``, ``core-1``, … of a folder while a worker computes.

    A slot is an advisory ``flock``: the kernel frees it when its holder dies, however it dies.

    Parameters
    ----------
    folder
        The slots' folder; the number of ``core-*`` files in it is the number of cores to share.
    width
        How many slots one worker needs (its threads); capped at the number of files.

    Raises
    ------
    WriteError
        If the folder has no slot files.
    """

    def __init__(self, folder: Path, width: int = 1) -> None:
        self.paths = sorted(Path(folder).glob("core-*"))
        if not self.paths:
            raise WriteError(
                f"slots folder {folder} has no files core-0, core-1, …",
                hint="make one empty file per core, or leave 'slots' out",
            )
        self.width = min(width, len(self.paths))
        self._held: list[int] = []

    @property
    def held(self) -> int:
        """Number of slots held now."""
        return len(self._held)

    def try_acquire(self) -> bool:
        """Take the slots if enough are free; all or none, so that wide workers cannot deadlock."""
        if self._held:
            return True
        taken: list[int] = []
        for path in self.paths:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                self._close(taken)
                raise WriteError(f"slot file {path} cannot be opened: {error.strerror}") from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            taken.append(descriptor)
            if len(taken) == self.width:
                self._held = taken
                return True
        self._close(taken)
        return False

    def acquire(self, give_up: Callable[[], bool], poll_s: float = 0.01) -> bool:
        """Wait for the slots; False if ``give_up()`` became true first."""
        while not self.try_acquire():
            if give_up():
                return False
            time.sleep(poll_s)
        return True

    def release(self) -> None:
        """Give the slots back."""
        self._close(self._held)
        self._held = []

    @staticmethod
    def _close(descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
