"""Programs that a calculator runs: ended with their worker, and when the time is over."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matcompute.node.adapters import Deadline

__all__ = ["ProgramError", "program_environment", "run_program"]

#: Seconds between two looks at the deadline, and the patience with a program that was asked to end.
_EVERY_S = 0.5
_PATIENCE_S = 3.0
_PR_SET_PDEATHSIG = 1
#: What an MPI launcher tells its ranks: a program that a rank starts is no rank itself.
_OF_A_RANK = ("PMI_", "PMIX_", "OMPI_COMM_", "OMPI_UNIVERSE", "OMPI_APP_", "MPI_LOCAL", "HYDI_", "HYDRA_")


class ProgramError(Exception):
    """A program did not end well.

    Parameters
    ----------
    status
        Exit status, 127 if it could not be started.
    number
        The signal that ended it, or None.
    """

    def __init__(self, status: int, number: int | None = None) -> None:
        super().__init__(f"exit status {status}" if number is None else f"killed by signal {number}")
        self.status = status
        self.signal = None if number is None else signal.Signals(number)


def program_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a program: without what an MPI launcher has told this process."""
    found = {name: value for name, value in environ.items() if not name.startswith(_OF_A_RANK)}
    # A program linked with Open MPI that is started by hand would otherwise start a daemon, which outlives a kill.
    found.setdefault("OMPI_MCA_ess_singleton_isolated", "1")
    return found


def run_program(argv: Sequence[str], folder: Path, output: Path, deadline: Deadline) -> None:
    """Run a program to its end.

    Parameters
    ----------
    argv
        Program and arguments.
    folder
        Where it runs.
    output
        File for what it prints.
    deadline
        Asked while it runs; when it raises, the program and its children are ended.

    Raises
    ------
    ProgramError
        If it cannot be started, fails or is killed.
    """
    worker = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def die_with_worker() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != worker:
                os._exit(1)

    with output.open("wb") as stream:
        try:
            process = subprocess.Popen(
                argv,
                cwd=folder,
                env=program_environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_worker,
            )
        except OSError as error:
            stream.write(f"{argv[0]}: {error.strerror}\n".encode())
            raise ProgramError(127) from error
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(_EVERY_S)
                    break
                deadline.check()
        except BaseException:
            _end(process)
            raise
    if code < 0:
        raise ProgramError(128 - code, -code)
    if 128 < code <= 128 + signal.NSIG and code - 128 in set(signal.Signals):
        # A launcher or a shell tells so how its program ended.
        raise ProgramError(code, code - 128)
    if code:
        raise ProgramError(code)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it has started; a launcher first gets the chance to end its ranks."""
    for number, patience in ((signal.SIGTERM, _PATIENCE_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            if number == signal.SIGTERM:
                # Its children may be left.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            return
