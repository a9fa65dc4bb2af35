"""``GridEngine``: qmaster with its scheduler, and one execution host."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from .site import Site

__all__ = ["GridEngine"]

SLOTS, MEMORY_GB = 4, 4.0
ADMIN = "sgeadmin"
SGE_ROOT, SPOOL, CELL = "/var/lib/gridengine", "/var/spool/gridengine", "default"
QUEUE, PARALLEL_ENVIRONMENT = "all.q", "smp"

#: Lines of ``qconf -sconf`` with other values than Debian's.
CONFIGURATION = {
    "mailer": "/bin/true",
    "load_report_time": "00:00:10",
    "reporting_params": (
        "accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 joblog=false"
    ),
    "execd_params": "PTF_MIN_PRIORITY=0,PTF_MAX_PRIORITY=0",
}
SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
}
QUEUE_CONFIGURATION = {
    "qname": QUEUE,
    "hostlist": "{host}",
    "load_thresholds": "NONE",
    "suspend_thresholds": "NONE",
    "slots": "{slots}",
    "pe_list": PARALLEL_ENVIRONMENT,
    "shell": "/bin/bash",
    "shell_start_mode": "posix_compliant",
    "h_rt": "{walltime}",
    "notify": "00:00:05",
}
PE_CONFIGURATION = """\
pe_name            {name}
slots              {slots}
user_lists         NONE
xuser_lists        NONE
start_proc_args    /bin/true
stop_proc_args     /bin/true
allocation_rule    $pe_slots
control_slaves     FALSE
job_is_first_task  TRUE
urgency_slots      min
accounting_summary FALSE
qsort_args         NONE
"""


class GridEngine(Site):
    """A Grid Engine cluster; see :class:`Site`."""

    scheduler = "sge"
    programs = ("sge_qmaster", "sge_execd", "qsub")

    def __init__(self, folder: Path, name: str, *, clearance: str = "general", max_minutes: int = 60) -> None:
        super().__init__(folder, name, clearance=clearance, max_minutes=max_minutes)
        self.nodes = (name,)

    # ------------------------------------------------------------------ life
    def start(self) -> None:
        """Start the services; ready for jobs on return."""
        box = self.container
        self._write_files()
        box.start()
        box.run(
            "su",
            "-s",
            "/bin/sh",
            "-c",
            f"/usr/share/gridengine/scripts/init_cluster {SGE_ROOT} {CELL} {SPOOL}/spooldb {ADMIN}",
            ADMIN,
        )
        self.start_controller()
        self._configure()
        box.spawn("/usr/lib/gridengine/sge_execd", log="execd.log", env=_environment())
        box.until(lambda: self.node_states().get(self.name) == "idle", "a queue that takes jobs")

    def _write_files(self) -> None:
        box = self.container
        for name in ("bin", "lib", "utilbin", "util"):
            source = Path(SGE_ROOT, name)
            target = box.root / SGE_ROOT.lstrip("/") / name
            if source.is_symlink():
                target.symlink_to(source.readlink())
            else:
                shutil.copytree(source, target, symlinks=True)
        for path in (
            SGE_ROOT,
            f"{SGE_ROOT}/{CELL}",
            f"{SGE_ROOT}/{CELL}/common",
            SPOOL,
            f"{SPOOL}/qmaster",
            f"{SPOOL}/qmaster/job_scripts",
            f"{SPOOL}/spooldb",
            f"{SPOOL}/execd",
        ):
            box.mkdir(path, owner=ADMIN)
        bootstrap = Path("/usr/share/gridengine/default-bootstrap").read_text()
        box.write(f"{SGE_ROOT}/{CELL}/common/bootstrap", bootstrap, owner=ADMIN)
        box.write(f"{SGE_ROOT}/{CELL}/common/act_qmaster", f"{self.name}\n", owner=ADMIN)

    def _configure(self) -> None:
        box = self.container
        self._change(("-sconf",), ("-Mconf",), CONFIGURATION, file="global")
        self._change(("-ssconf",), ("-Msconf",), SCHEDULER)
        self._qconf("-ah", self.name)
        self._qconf("-as", self.name)
        host = f"hostname {self.name}\nload_scaling NONE\ncomplex_values NONE\nuser_lists NONE\nxuser_lists NONE\n"
        host += "projects NONE\nxprojects NONE\nusage_scaling NONE\nreport_variables NONE\n"
        self._qconf("-Ae", str(self._file("host", host)))
        text = PE_CONFIGURATION.format(name=PARALLEL_ENVIRONMENT, slots=SLOTS)
        self._qconf("-Ap", str(self._file("pe", text)))
        values = {"host": self.name, "slots": SLOTS, "walltime": self.max_wall}
        queue = {key: value.format(**values) for key, value in QUEUE_CONFIGURATION.items()}
        self._change(("-sq",), ("-Aq",), queue)
        box.until(lambda: QUEUE in self._qconf("-sql"), "the queue")

    def _qconf(self, *words: str) -> str:
        return self.container.run("qconf", *words, env=_environment()).stdout

    def _file(self, name: str, text: str) -> Path:
        self.container.write(f"/srv/{name}", text)
        return Path("/srv", name)

    def _change(
        self, show: tuple[str, ...], load: tuple[str, ...], values: dict[str, str], file: str = "conf"
    ) -> None:
        """Read a configuration, put other values in, load it."""
        text = self._qconf(*show).replace("\\\n", " ")
        lines = []
        for line in text.splitlines():
            key = line.split()[0] if line.split() else ""
            if not line.startswith("#"):
                lines.append(f"{key} {values[key]}" if key in values else line)
        self._qconf(*load, str(self._file(file, "\n".join(lines) + "\n")))

    # ------------------------------------------------------------------ faults
    def start_controller(self, *, wait: bool = True) -> None:
        """Start the qmaster, with the state that an earlier one has left; hosts look for it every half minute."""
        self.controller = self.container.spawn(
            "/usr/lib/gridengine/sge_qmaster", log="qmaster.log", env=_environment()
        )
        if wait:
            self.container.until(self.controller_answers, "qmaster")

    def controller_answers(self) -> bool:
        """Whether the qmaster is up."""
        return self.container.run("qconf", "-sh", check=False, env=_environment()).returncode == 0

    def drain(self, node: str) -> None:
        """Take a host out: running jobs end, no new ones start."""
        self.container.run("qmod", "-d", f"*@{node}", env=_environment())

    def resume(self, node: str) -> None:
        """Bring a host back."""
        self.container.run("qmod", "-e", f"*@{node}", check=False, env=_environment())
        self.container.run("qmod", "-cq", f"*@{node}", check=False, env=_environment())

    def cancel_all(self) -> None:
        """Cancel the user's jobs."""
        self.container.run("qdel", "-u", self.container.user.name, check=False, env=_environment())

    def jobs(self) -> list[str]:
        """Return the numbers of the user's jobs that have not ended."""
        listed = self.container.run("qstat", "-u", self.container.user.name, env=_environment()).stdout
        return [line.split()[0] for line in listed.splitlines()[2:]]

    def why(self) -> str:
        """Return what the scheduler says of hosts that take no jobs."""
        return self.container.run("qstat", "-f", "-explain", "aAcE", check=False, env=_environment()).stdout

    # ------------------------------------------------------------------ a look
    def node_states(self) -> dict[str, str]:
        """Return each host's state: ``idle`` or the letters of ``qstat -f``; empty when the qmaster does not answer."""
        done = self.container.run("qstat", "-f", check=False, env=_environment())
        states = {}
        for line in done.stdout.splitlines():
            words = line.split()
            if words and "@" in words[0] and done.returncode == 0:
                states[words[0].partition("@")[2]] = words[5] if len(words) > 5 else "idle"
        return states

    # ------------------------------------------------------------------ profile
    def blocks(self) -> dict[str, Any]:
        """Return the scheduler's part of the profile."""
        partition = {
            "name": QUEUE,
            "nodes": 1,
            "cores": SLOTS,
            "mem_gb": MEMORY_GB,
            "max_wall": self.max_wall,
            "charge": {"unit": "core_h", "per_hour": 1.0},
            "parallel_environment": PARALLEL_ENVIRONMENT,
        }
        return {"scheduler": {"accounting": "qacct"}, "partitions": [partition]}


def _environment() -> dict[str, str]:
    # SGE_ND: stay in the foreground.
    return {"SGE_ROOT": SGE_ROOT, "SGE_CELL": CELL, "SGE_ND": "1"}
