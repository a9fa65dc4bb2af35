"""Folders for what a program writes while it computes: private to a worker, gone afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from matcompute.node.errors import WriteError

__all__ = ["VARIABLE", "scratch_folder", "sweep_scratch"]

#: Names the folder in which scratch folders are made; by default ``scratch`` in the job's folder.
VARIABLE = "MATCOMPUTE_SCRATCH"
_PREFIX = "matcompute-"
_LOCK = ".lock"


@contextlib.contextmanager
def scratch_folder(program: str) -> Iterator[Path]:
    """Make a folder, and remove it with all that is in it.

    A worker that is killed leaves its folder behind. Its lock is the kernel's and went with the worker:
    :func:`sweep_scratch` removes the folder.

    Parameters
    ----------
    program
        Part of the folder's name.

    Raises
    ------
    WriteError
        If it cannot be made.
    """
    base = _base()
    try:
        base.mkdir(parents=True, exist_ok=True)
        sweep_scratch()
        folder = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=base)).absolute()
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WriteError(
            f"cannot make a scratch folder in {base}: {error.strerror}",
            hint=f"let {VARIABLE} name a folder of the compute node with space",
        ) from error
    try:
        # Without locks (some network file systems) a folder cannot be told from an orphan: then none is swept.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only under this name is it looked at by others.
            folder = folder.rename(base.absolute() / f"{_PREFIX}{program}-{folder.name.rpartition('-')[2]}")
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def sweep_scratch() -> None:
    """Remove the folders whose workers are dead."""
    for folder in _base().glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _base() -> Path:
    return Path(os.environ.get(VARIABLE) or tempfile.gettempdir())
