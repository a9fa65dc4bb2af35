"""The doctor on real schedulers over SSH: it passes on all three, and names each of ten seeded faults."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from matcompute.centres import Centre
from matcompute.centres.doctor import STEPS, DoctorReport, examine_file
from matcompute.centres.remote import Remote
from matcompute.centres.ssh import sockets

from .services import GridEngine, Site, SlurmCluster
from .services.user import make_key

MPI = {"mpi": f"{Path(sys.prefix) / 'bin/mpiexec'} -n {{tot_num_mpiprocs}}"}
Overrides = dict[str, Any]


def told(report: DoctorReport) -> str:
    return "\n".join(
        [f"{step.name}: {step.state}: {step.message}" for step in report.steps]
        + [f"{item.fault}: {item.message}" for step in report.steps for item in step.findings]
    )


@pytest.fixture
def examine(site: Site, tmp_path: Path) -> Iterator[Callable[..., DoctorReport]]:
    """Write the centre's profile, changed as a test wants, and examine it."""
    paths = []
    site("mkdir -p scratch")

    def run(overrides: Overrides | None = None, **options: Any) -> DoctorReport:
        path = site.profile(tmp_path, **{"launch": MPI, **(overrides or {})})
        paths.append(path)
        return examine_file(None, path, smoke_timeout_s=300, **options)

    yield run
    for path in paths[-1:]:
        Remote(Centre.load(path)).drop()


def partitions(site: Site, **changes: Any) -> Overrides:
    """The first partition changed, the others as they are."""
    first, *rest = site.blocks()["partitions"]
    return {"partitions": [{**first, **changes}, *rest]}


def code(executable: str) -> Overrides:
    return {"codes": [{"name": "matcompute-node", "executable": executable}]}


# ---------------------------------------------------------------------- health
def test_a_centre_in_order_passes(site: Site, examine: Callable[..., DoctorReport]) -> None:
    report = examine()
    assert report.ok, told(report)
    assert report.faults == (), told(report)
    assert [step.name for step in report.steps] == list(STEPS)
    assert {step.state for step in report.steps} <= {"ok", "skip"}
    jobs = report.step("smoke").details["jobs"]
    assert [job["partition"] for job in jobs] == [part["name"] for part in site.blocks()["partitions"]]
    for job in jobs:
        assert job["status"] == 0
        assert job["largest_difference_eV"] < 1e-6
    # Nothing is left behind.
    assert site("ls -A scratch | grep -c matcompute-doctor || true").strip() == "0"


def test_a_gpu_partition_is_tried_with_a_gpu(slurm_a: Site, tmp_path: Path) -> None:
    report = examine_file(None, slurm_a.profile(tmp_path, launch=MPI), smoke_timeout_s=300)
    jobs = {job["partition"]: job for job in report.step("smoke").details["jobs"]}
    assert jobs["gpu"]["gpus"] in {"0", "1"}
    assert "gpus" not in jobs["cpu"]
    assert report.step("account").details["materials"]["used_core_h"] is not None


# ---------------------------------------------------------------------- ten faults
@dataclass(frozen=True)
class Fault:
    """A fault, how it is seeded, and what must be said about it."""

    name: str
    step: str
    seed: Callable[[Site, Path], AbstractContextManager[Overrides]]
    says: str


@contextmanager
def wrong_partition(site: Site, _: Path) -> Iterator[Overrides]:
    yield partitions(site, name=site.blocks()["partitions"][0]["name"] + "x")


@contextmanager
def missing_module(_site: Site, _: Path) -> Iterator[Overrides]:
    yield {"launch": {**MPI, "modules": ["quantum-espresso/7.3"]}}


@contextmanager
def unwritable_work_dir(site: Site, _: Path) -> Iterator[Overrides]:
    site("mkdir -p locked && chmod 500 locked")
    try:
        yield {"storage": {"work_dir": f"{site.container.user.home}/locked"}}
    finally:
        site("chmod 700 locked && rm -rf locked")


@contextmanager
def wrong_key(site: Site, folder: Path) -> Iterator[Overrides]:
    make_key(folder / "another_key", "nobody")
    yield {"login": {"auth": {"key_file": str(folder / "another_key")}}}


@contextmanager
def lower_live_limit(site: Site, _: Path) -> Iterator[Overrides]:
    """The centre allows less than the profile: jobs of a user, or nodes of a job where nothing counts users."""
    box = site.container
    if isinstance(site, GridEngine):
        site._change(("-sconf",), ("-Mconf",), {"max_u_jobs": "2"}, file="global")
        try:
            yield {}
        finally:
            site._change(("-sconf",), ("-Mconf",), {"max_u_jobs": "0"}, file="global")
        return
    assert isinstance(site, SlurmCluster)
    if site.accounting:
        change = ("sacctmgr", "-i", "modify", "user", box.user.name, "set")
        box.run(*change, "MaxSubmitJobs=2")
        try:
            yield {}
        finally:
            box.run(*change, "MaxSubmitJobs=-1")
        return
    part = site.partitions[0].name
    box.run("scontrol", "update", f"PartitionName={part}", "MaxNodes=1")
    try:
        yield partitions(site, max_nodes=2)
    finally:
        box.run("scontrol", "update", f"PartitionName={part}", "MaxNodes=UNLIMITED")


@contextmanager
def code_missing(_site: Site, _: Path) -> Iterator[Overrides]:
    yield code("/opt/nowhere/matcompute-node")


@contextmanager
def version_mismatch(site: Site, _: Path) -> Iterator[Overrides]:
    real = Path(sys.prefix) / "bin/matcompute-node"
    script = (
        "#!/bin/sh\n"
        '[ "$1" = --version ] && { echo "matcompute-node, version 0.0.9"; exit 0; }\n'
        f'exec {real} "$@"\n'
    )
    path = site.home / "old-node"
    path.write_text(script)
    path.chmod(0o755)
    try:
        yield code(f"{site.container.user.home}/old-node")
    finally:
        path.unlink()


@contextmanager
def disk_full(site: Site, _: Path) -> Iterator[Overrides]:
    """A small file system, mounted where the jobs work, and filled."""
    box, folder = site.container, f"{site.container.user.home}/full"
    site("mkdir full")
    box.run("mount", "-t", "tmpfs", "-o", f"size=8m,uid={box.user.uid},mode=755", "tmpfs", folder)
    site("dd if=/dev/zero of=full/filled bs=1M 2>/dev/null || true")
    try:
        yield {"storage": {"work_dir": folder, "min_free_gb": 0}}
    finally:
        box.run("umount", folder)
        site("rmdir full")


@contextmanager
def walltime_too_long(site: Site, _: Path) -> Iterator[Overrides]:
    yield partitions(site, max_wall="48 h")


@contextmanager
def chatty_login_shell(site: Site, _: Path) -> Iterator[Overrides]:
    path = site.home / ".bashrc"
    before = path.read_text() if path.exists() else None
    path.write_text('echo "Welcome to the centre! Read the rules."\n' + (before or ""))
    try:
        yield {}
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)


FAULTS = [
    Fault("wrong-partition", "limits", wrong_partition, "did you mean"),
    Fault("missing-module", "codes", missing_module, "module 'quantum-espresso/7.3' cannot be loaded"),
    Fault("work-dir-unwritable", "storage", unwritable_work_dir, "cannot be written by mcuser"),
    Fault("wrong-key", "login", wrong_key, "Permission denied"),
    Fault("lower-limit", "limits", lower_live_limit, "the scheduler allows"),
    Fault("code-missing", "codes", code_missing, "/opt/nowhere/matcompute-node"),
    Fault("version-mismatch", "codes", version_mismatch, "is of version 0.0.9"),
    Fault("disk-full", "storage", disk_full, "is full"),
    Fault("walltime-too-long", "limits", walltime_too_long, "the scheduler allows 01:00:00"),
    Fault("chatty-shell", "login", chatty_login_shell, "Welcome to the centre! Read the rules."),
]


def test_there_are_ten_faults() -> None:
    assert len({fault.name for fault in FAULTS}) == 10


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_seeded_fault_is_named(
    fault: Fault, site: Site, tmp_path: Path, examine: Callable[..., DoctorReport]
) -> None:
    # The jobs that can still be tried are tried at one centre: everywhere they would take minutes.
    steps = None if site.name == "slurm-a" else [name for name in STEPS if name != "smoke"]
    with fault.seed(site, tmp_path) as overrides:
        report = examine(overrides, only=steps)
    assert not report.ok
    assert report.faults == (fault.name,), told(report)
    step = report.step(fault.step)
    assert step.state == "fail"
    (finding,) = step.findings
    assert fault.says in finding.message
    assert finding.fix
    # Steps before it are in order; the centre is well again afterwards (the next test finds it so).
    before = report.steps[: report.steps.index(step)]
    assert all(item.state == "ok" for item in before), told(report)


# ---------------------------------------------------------------------- what is safe is mended
def test_fix_makes_the_folder_and_gives_the_right_to_write(
    site: Site, examine: Callable[..., DoctorReport]
) -> None:
    only = ["login", "storage"]
    home = site.container.user.home
    absent = {"storage": {"work_dir": f"{home}/made/by/doctor"}}
    try:
        assert examine(absent, only=only).faults == ("work-dir-missing",)
        mended = examine(absent, only=only, fix=True)
        assert mended.faults == (), told(mended)
        assert mended.step("storage").fixed
        site("chmod 500 made/by/doctor")
        assert not examine(absent, only=only).ok
        assert examine(absent, only=only, fix=True).ok
        assert site("stat -c %a made/by/doctor").strip() == "700"
    finally:
        site("chmod -R u+rwx made; rm -rf made")


def test_fix_lowers_the_profile_to_the_live_limit(
    site: Site, tmp_path: Path, examine: Callable[..., DoctorReport]
) -> None:
    report = examine(partitions(site, max_wall="48 h"), only=["limits"], fix=True)
    assert report.ok, told(report)
    assert "max_wall is now 01:00:00" in report.step("limits").fixed[0]
    centre = Centre.load(tmp_path / f"{site.name}.yaml")
    assert centre.partitions[0].max_wall_s == 3600


def test_a_socket_of_a_dead_connection_is_removed(site: Site, examine: Callable[..., DoctorReport]) -> None:
    examine(only=["login"])
    (path,) = sockets(Centre.load(site.profile(site.container.root.parent)))
    assert path.exists()
    site.sshd_down()
    end = time.monotonic() + 20
    while path.exists() and time.monotonic() < end:  # ssh notices, and takes its own socket away
        time.sleep(0.1)
    site.sshd_up()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()  # the file stays, nobody listens
    assert "stale-socket" in examine(only=["login"]).faults
    assert examine(only=["login"]).faults == ()  # logging in has replaced it
