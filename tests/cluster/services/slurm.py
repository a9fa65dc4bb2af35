"""``SlurmCluster``: slurmctld, one slurmd per node, and on demand slurmdbd with a MariaDB of its own."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .container import Service
from .site import Site

__all__ = ["Partition", "SlurmCluster"]

CORES, MEMORY_MB = 4, 4000
#: Account of the ordinary user where there is accounting.
ACCOUNT = "materials"

CONFIG = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=6817
StateSaveLocation=/srv/slurm/state
SlurmdSpoolDir=/srv/slurm/%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd-%n.pid
SlurmdParameters=config_overrides
# No cgroups here: processes are followed by their parents, memory by sampling.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=200
MpiDefault=none
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
KillWait=2
# On a busy machine processes end late; Slurm would drain their node ("Kill task failed").
UnkillableStepTimeout=600
SchedulerParameters=sched_interval=2,batch_sched_delay=0
GresTypes=gpu
{accounting}
{nodes}
{partitions}
"""
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStorageEnforce=associations,limits
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment"""
DBD_CONFIG = """\
DbdHost={host}
DbdAddr=127.0.0.1
SlurmUser=root
PidFile=/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
"""
#: A small database; nothing here has to survive a power cut.
MARIADB = (
    "--no-defaults",
    "--user=root",
    "--datadir=/dev/shm/mysql",
    "--socket=/run/mysqld/mysqld.sock",
    "--skip-networking",
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=8M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-lock-wait-timeout=900",
    "--key-buffer-size=1M",
    "--performance-schema=OFF",
)


@dataclass(frozen=True)
class Partition:
    """A partition of the test cluster."""

    name: str
    nodes: tuple[str, ...]
    default: bool = False
    #: Jobs of a higher tier end those of a lower one that are in their way.
    tier: int = 1
    #: Whether the centre's profile tells of it.
    told: bool = True


class SlurmCluster(Site):
    """A Slurm cluster; see :class:`Site`.

    Parameters
    ----------
    nodes
        Node names, each with 4 CPUs and 4000 MB.
    gpus
        Node → number of GPUs: fake ones, which Slurm hands out all the same.
    accounting
        Whether slurmdbd keeps accounts.
    partitions
        The default is one of all nodes.
    """

    scheduler = "slurm"
    programs = ("slurmctld", "slurmd", "munged", "sbatch")
    accounting_programs = ("slurmdbd", "mariadbd")

    def __init__(
        self,
        folder: Path,
        name: str,
        nodes: Sequence[str],
        *,
        gpus: Mapping[str, int] | None = None,
        accounting: bool = False,
        partitions: Sequence[Partition] = (),
        clearance: str = "general",
        max_minutes: int = 60,
    ) -> None:
        super().__init__(folder, name, clearance=clearance, max_minutes=max_minutes)
        self.nodes, self.accounting = tuple(nodes), accounting
        self.gpus = dict(gpus or {})
        self.partitions = tuple(partitions) or (Partition("main", self.nodes, default=True),)
        self.node_daemons: dict[str, Service] = {}

    # ------------------------------------------------------------------ files
    def _write_files(self) -> None:
        box = self.container
        for path in ("/srv/slurm/state", "/run/munge", "/var/lib/munge", "/var/log/munge", "/run/mysqld"):
            box.mkdir(path)
        box.mkdir("/etc/munge", 0o700)
        box.write("/etc/munge/munge.key", self.name * 64, 0o400)
        nodes = []
        for number, node in enumerate(self.nodes):
            box.mkdir(f"/srv/slurm/{node}")
            gres = f" Gres=gpu:{self.gpus[node]}" if node in self.gpus else ""
            nodes.append(
                f"NodeName={node} NodeHostname={self.name} NodeAddr=127.0.0.1 Port={17000 + number}"
                f" CPUs={CORES} RealMemory={MEMORY_MB}{gres} State=UNKNOWN"
            )
        lines = [
            f"PartitionName={part.name} Nodes={','.join(part.nodes)} Default={'YES' if part.default else 'NO'}"
            f" MaxTime={self.max_minutes} DefaultTime=5 State=UP PriorityTier={part.tier}"
            for part in self.partitions
        ]
        text = CONFIG.format(
            name=self.name,
            host=self.name,
            accounting=ACCOUNTING if self.accounting else "",
            nodes="\n".join(nodes),
            partitions="\n".join(lines),
        )
        box.write("/etc/slurm/slurm.conf", text)
        for number in range(max(self.gpus.values(), default=0)):
            device = box.root / f"srv/slurm/gpu{number}"
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # another /dev/null
        gres = [
            f"NodeName={node} Name=gpu Flags=nvidia_gpu_env File=/srv/slurm/gpu{number}"
            for node, count in self.gpus.items()
            for number in range(count)
        ]
        box.write("/etc/slurm/gres.conf", "\n".join([*gres, ""]))
        if self.accounting:
            box.write("/etc/slurm/slurmdbd.conf", DBD_CONFIG.format(host=self.name), 0o600)

    # ------------------------------------------------------------------ life
    def start(self) -> None:
        """Start the services; ready for jobs on return."""
        box = self.container
        self._write_files()
        box.start()
        box.spawn("munged", "--foreground", log="munged.log")
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        box.until(lambda: set(self.node_states().values()) == {"idle"}, "nodes that wait for jobs")

    def _start_accounting(self) -> None:
        box = self.container
        # What mariadb-install-db does, which needs the client package too.
        tables = "CREATE DATABASE mysql;\nUSE mysql;\n" + "\n".join(
            Path("/usr/share/mysql", name).read_text(encoding="utf-8")
            for name in (
                "mysql_system_tables.sql",
                "mysql_performance_tables.sql",
                "mysql_system_tables_data.sql",
            )
        )
        box.run("mkdir", "/dev/shm/mysql")  # in memory: it makes a hundred tables, and lives for minutes
        box.run("mariadbd", *MARIADB, "--bootstrap", "--skip-grant-tables", stdin=tables)
        box.spawn("mariadbd", *MARIADB, log="mariadbd.log")
        socket = box.root / "run/mysqld/mysqld.sock"
        box.until(socket.is_socket, "the database")
        box.spawn("slurmdbd", "-D", log="slurmdbd.log")
        manage = ("sacctmgr", "-i", "--quiet")
        box.until(
            lambda: box.run(*manage, "add", "cluster", self.name, check=False).returncode == 0, "slurmdbd"
        )
        box.run(*manage, "add", "account", ACCOUNT, f"Cluster={self.name}", "Description=tests")
        box.run(*manage, "add", "user", box.user.name, f"Account={ACCOUNT}", f"Cluster={self.name}")

    # ------------------------------------------------------------------ faults
    def start_controller(self, *, wait: bool = True) -> None:
        """Start slurmctld, with the state that an earlier one has left."""
        self.controller = self.container.spawn("slurmctld", "-D", "-i", log="slurmctld.log")
        if wait:
            self.container.until(self.controller_answers, "slurmctld")

    def kill_controller(self, *, saved: bool = True) -> None:
        """``kill -9`` slurmctld; running jobs run on.

        Parameters
        ----------
        saved
            Wait until it has written down what it knows, which it does with a delay of up to five seconds. A
            slurmctld that comes back without that has lost jobs that it had accepted, starts others a second time
            and drains their node ("Duplicate jobid").
        """
        state = self.container.root / "srv/slurm/state/job_state"
        asked = time.time()
        while saved and time.time() < asked + 6 and not (state.exists() and state.stat().st_mtime > asked):
            time.sleep(0.05)
        super().kill_controller()

    def controller_answers(self) -> bool:
        """Whether slurmctld is up."""
        return self.container.run("scontrol", "ping", check=False).returncode == 0

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        self.node_daemons[node] = self.container.spawn("slurmd", "-D", "-N", node, log=f"slurmd-{node}.log")

    def kill_node(self, node: str) -> None:
        """``kill -9`` the slurmd of a node; its jobs run on."""
        self.node_daemons[node].kill()

    def drain(self, node: str) -> None:
        """Take a node out: running jobs end, no new ones start."""
        self.container.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")

    def resume(self, node: str) -> None:
        """Bring a node back."""
        # Refused for a node that is neither down nor drained.
        self.container.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)

    def cancel_all(self) -> None:
        """Cancel the user's jobs."""
        self.container.run("scancel", f"--user={self.container.user.name}")

    def jobs(self) -> list[str]:
        """Return the numbers of the user's jobs that have not ended."""
        return self.container.run("squeue", "-h", "-u", self.container.user.name, "-o", "%i").stdout.split()

    def why(self) -> str:
        """Return what the scheduler says of nodes that take no jobs."""
        return "".join(
            self.container.run(*words, check=False).stdout for words in (("sinfo", "-R"), ("squeue",))
        )

    # ------------------------------------------------------------------ a look
    def node_states(self) -> dict[str, str]:
        """Return the state of each node as ``sinfo`` says it; empty when slurmctld does not answer."""
        done = self.container.run("sinfo", "-h", "-N", "-o", "%N %T", check=False)
        if done.returncode != 0:
            return {}
        return dict(line.split() for line in done.stdout.splitlines())

    # ------------------------------------------------------------------ profile
    def blocks(self) -> dict[str, Any]:
        """Return the scheduler's part of the profile."""
        partitions: list[dict[str, Any]] = []
        for part in (part for part in self.partitions if part.told):
            block = {
                "name": part.name,
                "nodes": len(part.nodes),
                "cores": CORES,
                "mem_gb": MEMORY_MB / 1000,
                "max_wall": self.max_wall,
                "charge": {"unit": "core_h", "per_hour": 1.0},
            }
            gpus = min(self.gpus.get(node, 0) for node in part.nodes)
            if gpus:
                block["gpus"] = {"type": "fake", "count": gpus, "resource": "gpu"}
            partitions.append(block)
        blocks: dict[str, Any] = {
            "scheduler": {"accounting": "sacct" if self.accounting else "none"},
            "partitions": partitions,
        }
        if self.accounting:
            blocks["projects"] = [{"account": ACCOUNT, "default": True}]
        return blocks
