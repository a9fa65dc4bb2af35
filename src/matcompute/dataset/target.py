"""The file that a writer works on: a locked temporary beside the target, put in place when it is complete."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

from matcompute.dataset.errors import DatasetFileError, DatasetLockedError, DatasetWriteError

__all__ = ["Target", "disk_error"]

_NO_LOCKS = {errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.ENOSYS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Target:
    """``.<name>.writing`` beside ``path``, held with an exclusive lock.

    A temporary that a killed writer left behind is not locked any more and is taken over.

    Parameters
    ----------
    path
        Where the finished file goes.
    copy
        Start from a copy of the file that is there (append) instead of an empty one.
    """

    def __init__(self, path: Path, *, copy: bool = False) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.writing")
        if copy and not path.is_file():
            raise DatasetFileError(f"{path}: no such file", hint="append_to needs a dataset that exists")
        try:
            self._handle = self._lock()
            if copy:
                shutil.copyfile(path, self.temporary)
        except OSError as error:
            raise disk_error(path, error) from error

    def _lock(self) -> int:
        while True:
            handle = os.open(self.temporary, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _NO_LOCKS:  # some network file systems: the temporary's name is all we have
                    return handle
                os.close(handle)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise DatasetLockedError(
                        f"{self.path}: another writer has this file open",
                        hint="one writer per file: wait for it, or write a file of your own and merge them",
                    ) from error
                raise
            # The file that we locked may just have been put in place by the writer that held it.
            try:
                if os.fstat(handle).st_ino == self.temporary.stat().st_ino:
                    return handle
            except FileNotFoundError:
                pass
            os.close(handle)

    def publish(self) -> None:
        """Flush to disk and put the file in its place, at once for every reader."""
        try:
            os.fsync(self._handle)
            self.temporary.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise disk_error(self.path, error) from error
        finally:
            os.close(self._handle)

    def discard(self) -> None:
        """Remove the temporary; the target stays as it was."""
        self.temporary.unlink(missing_ok=True)
        os.close(self._handle)


def disk_error(path: Path, error: OSError) -> DatasetWriteError:
    """Return our error for a failed write."""
    code = error.errno
    if code is None:  # HDF5 puts the number into its text
        text = str(error)
        code = next(
            (n for n in (*_FULL, errno.EROFS, errno.EACCES, errno.EIO) if f"errno = {n}," in text), None
        )
    if code in _FULL:
        return DatasetWriteError(
            f"{path}: no space left while writing; nothing was changed",
            hint="free space (or raise the quota) in its folder and write again",
        )
    if code in (errno.EROFS, errno.EACCES, errno.EPERM):
        return DatasetWriteError(f"{path}: its folder cannot be written ({os.strerror(code)})")
    if code == errno.ENOENT:
        return DatasetWriteError(
            f"{path}: its folder does not exist", hint=f"make it first: mkdir -p {path.parent}"
        )
    reason = os.strerror(code) if code else str(error).strip().splitlines()[0]
    return DatasetWriteError(f"{path}: writing failed ({reason}); nothing was changed")
