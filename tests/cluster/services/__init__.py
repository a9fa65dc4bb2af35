"""Real schedulers for the tests, each on a small machine of its own that is reached over SSH."""

from __future__ import annotations

from .container import HOSTS, SSHD, Container, SshLogin, missing, new_folder, sweep
from .gridengine import GridEngine
from .site import Site
from .slurm import Partition, SlurmCluster

__all__ = [
    "HOSTS",
    "SSHD",
    "Container",
    "GridEngine",
    "Partition",
    "Site",
    "SlurmCluster",
    "SshLogin",
    "missing",
    "new_folder",
    "sweep",
]
