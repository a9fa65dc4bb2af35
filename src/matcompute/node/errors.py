"""Errors that end the node program, each with its exit status."""

from __future__ import annotations

from matcompute.errors import MatcomputeError
from matcompute.node.exit_codes import ExitCode

__all__ = ["ModelError", "NodeError", "StoppedError", "TaskFileError", "UnavailableError", "WriteError"]


class NodeError(MatcomputeError):
    """Base of the errors that end a job; ``exit_code`` is an :class:`ExitCode`."""

    exit_code = int(ExitCode.INTERNAL)


class TaskFileError(NodeError):
    """The task file or the input shard is wrong (exit 65)."""

    exit_code = int(ExitCode.BAD_INPUT)


class ModelError(NodeError):
    """The model file is missing, unreadable or another one than asked for (exit 66)."""

    exit_code = int(ExitCode.MODEL)


class UnavailableError(NodeError):
    """A calculator, a task or a package is not installed (exit 69)."""

    exit_code = int(ExitCode.UNAVAILABLE)


class WriteError(NodeError):
    """A file cannot be written (exit 73)."""

    exit_code = int(ExitCode.CANNOT_WRITE)


class StoppedError(NodeError):
    """Walltime or a signal ended the work early; the same command continues (exit 75)."""

    exit_code = int(ExitCode.STOPPED_EARLY)
