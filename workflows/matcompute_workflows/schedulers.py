"""AiiDA's scheduler plugins, with submissions that can be repeated; see :mod:`matcompute_workflows.submission`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aiida.common.escaping import escape_for_bash
from aiida.schedulers.plugins.bash import BashCliScheduler
from aiida.schedulers.plugins.direct import DirectScheduler
from aiida.schedulers.plugins.lsf import LsfScheduler
from aiida.schedulers.plugins.pbspro import PbsproScheduler
from aiida.schedulers.plugins.sge import SgeScheduler
from aiida.schedulers.plugins.slurm import SlurmScheduler

from matcompute_workflows.submission import END_TREE, job_name, submit_once

if TYPE_CHECKING:
    from aiida.engine import ExitCode

__all__ = ["Direct", "Lsf", "Pbs", "Sge", "Slurm"]


class _Once(BashCliScheduler):
    """Submits the job of a folder once, under a name of its own."""

    kind: ClassVar[str]

    def submit_job(self, working_directory: str, filename: str) -> str | ExitCode:
        """Submit the job of a folder, or return the number that it has already."""
        name = job_name(str(working_directory))
        command = submit_once(self.kind, self._get_submit_command(escape_for_bash(filename)), name)
        return self._parse_submit_output(
            *self.transport.exec_command_wait(command, workdir=working_directory)
        )


class Slurm(_Once, SlurmScheduler):
    """Slurm."""

    kind = "slurm"


class Sge(_Once, SgeScheduler):
    """Grid Engine."""

    kind = "sge"


class Pbs(_Once, PbsproScheduler):
    """PBS Professional and OpenPBS."""

    kind = "pbs"


class Lsf(_Once, LsfScheduler):
    """IBM Spectrum LSF."""

    kind = "lsf"


class Direct(_Once, DirectScheduler):
    """Another machine without a scheduler."""

    kind = "direct"

    def _get_kill_command(self, jobid: int | str) -> str:
        """Return the command that ends a job with all its processes; AiiDA's looks for them on this machine."""
        return f"{END_TREE}; end_tree {int(jobid)}"
