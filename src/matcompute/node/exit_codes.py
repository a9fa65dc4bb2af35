"""Exit statuses of ``matcompute-node run`` (sysexits.h where it has one); the AiiDA parser mirrors the numbers."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """Exit status of the node program."""

    FINISHED = 0
    USAGE = 2
    BAD_INPUT = 65
    MODEL = 66
    UNAVAILABLE = 69
    INTERNAL = 70
    CANNOT_WRITE = 73
    STOPPED_EARLY = 75

    @property
    def meaning(self) -> str:
        """What happened, in one sentence."""
        return _MEANING[self]

    @property
    def remedy(self) -> str:
        """What to do next, in one sentence."""
        return _REMEDY[self]


_MEANING = {
    ExitCode.FINISHED: "every structure was attempted; single structures may have failed",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.BAD_INPUT: "the task file or the input shard is corrupt, wrong or of another format version",
    ExitCode.MODEL: "the model file is missing, unreadable or has another SHA-256 than the task asks for",
    ExitCode.UNAVAILABLE: "the calculator, the task or a package that they need is not installed",
    ExitCode.INTERNAL: "an unexpected error of the node program",
    ExitCode.CANNOT_WRITE: "a file cannot be written: disk full or read-only folder; the checkpoint stays valid",
    ExitCode.STOPPED_EARLY: "stopped cleanly by walltime or a signal before the end; the checkpoint is valid",
}

_REMEDY = {
    ExitCode.FINISHED: "nothing",
    ExitCode.USAGE: "see matcompute-node run --help",
    ExitCode.BAD_INPUT: "mend the named file",
    ExitCode.MODEL: "put the model file in place",
    ExitCode.UNAVAILABLE: "install the named package on the compute node",
    ExitCode.INTERNAL: "report it with the traceback in stderr",
    ExitCode.CANNOT_WRITE: "free space, then run the same command again: it continues from the checkpoint",
    ExitCode.STOPPED_EARLY: "run the same command again: it continues from the checkpoint",
}
