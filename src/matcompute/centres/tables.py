"""Centres as tables and lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from matcompute.centres.durations import format_duration

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from matcompute.centres.doctor import DoctorReport, Step
    from matcompute.centres.model import Centre
    from matcompute.centres.registry import Registration

__all__ = [
    "centre_lines",
    "centres_table",
    "partition_table",
    "registration_lines",
    "step_lines",
    "verdict",
]

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red"), "skip": ("–", "dim")}


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        right = column in {"nodes", "cores", "memory", "GPUs", "jobs", "core-hours"}
        table.add_column(column, justify="right" if right else "left")
    return table


def centres_table(centres: dict[str, Centre]) -> Table:
    """Return one line for each centre."""
    table = _table("centre", "title", "scheduler", "login", "cores", "GPUs", "clearance", "jobs")
    for name, centre in centres.items():
        login = centre.login
        where = "this machine" if login.transport == "local" else ", ".join(login.hosts)
        gpus = sum(part.nodes * part.n_gpus for part in centre.partitions)
        table.add_row(
            name,
            centre.title,
            centre.scheduler.type,
            where,
            str(centre.cores),
            str(gpus or ""),
            centre.clearance,
            f"≤ {centre.window}",
        )
    return table


def centre_lines(centre: Centre) -> Iterator[tuple[str, str]]:
    """Yield what a profile says, apart from its partitions: name and value."""
    login, scheduler = centre.login, centre.scheduler
    yield "centre", f"{centre.id}: {centre.title}"
    yield "clearance", centre.clearance
    if centre.centre.contact:
        yield "contact", centre.centre.contact
    if login.transport != "local":
        user = f"{login.user}@" if login.user else ""
        jump = f" through {login.proxy_jump}" if login.proxy_jump else ""
        yield "login", f"{user}{', '.join(login.hosts)}{jump} ({login.transport}, {login.auth.method})"
    limits = [f"{scheduler.max_submitted} of our jobs"]
    if scheduler.max_user_jobs is not None:
        limits.append(f"{scheduler.max_user_jobs} of yours in all")
    if scheduler.submit_per_min is not None:
        limits.append(f"{scheduler.submit_per_min:g} submissions a minute")
    yield "scheduler", f"{scheduler.type}, at most {', '.join(limits)}"
    yield "work dir", centre.storage.work_dir
    yield "mpi", centre.launch.mpi
    if centre.launch.modules:
        yield "modules", " ".join(centre.launch.modules)
    for code in centre.codes:
        where = f" in {', '.join(code.partitions)}" if code.partitions else ""
        image = f" in {code.container.image}" if code.container is not None else ""
        yield "code", f"{code.name}: {code.executable}{image}{where}"
    for project in centre.projects:
        quota = f", {project.quota_core_h:g} core-hours" if project.quota_core_h is not None else ""
        until = f", until {project.until}" if project.until is not None else ""
        yield "project", f"{project.account}{quota}{until}{' (default)' if project.default else ''}"


def partition_table(centre: Centre) -> Table:
    """Return one line for each partition."""
    table = _table("partition", "nodes", "cores", "memory", "GPUs", "longest job", "charge")
    for part in centre.partitions:
        gpus = f"{part.n_gpus} {part.gpus.type}" if part.n_gpus else ""
        wall = "" if part.max_wall is None else format_duration(part.max_wall)
        charge = f"{part.charge.per_hour:g} / {part.charge.unit.replace('_h', '-hour')}"
        table.add_row(part.name, str(part.nodes), str(part.cores), f"{part.mem_gb:g} GB", gpus, wall, charge)
    return table


def registration_lines(done: Registration, *, dry_run: bool = False) -> Iterator[str]:
    """Yield what registering a profile has done, or would do."""
    name = done.centre.id
    if done.new:
        yield f"centre '{name}' {'would be' if dry_run else 'is'} registered"
        return
    if not done.changed:
        yield f"centre '{name}' is up to date"
        return
    count = len(done.differences)
    yield f"centre '{name}': {count} value{'s' if count > 1 else ''} {'would change' if dry_run else 'changed'}"
    for difference in done.differences:
        yield f"  {difference}"
    if done.moves:
        yield "  another machine, account or scheduler: new jobs go to a new AiiDA computer"
    if done.jobs:
        jobs = f"{done.jobs} job{'s' if done.jobs > 1 else ''} in flight"
        yield f"  {jobs}: {'they keep the computer that they have' if done.moves else 'they go on as they are'}"


def step_lines(step: Step) -> Iterator[Text]:
    """Yield a step of the doctor, its faults, and what mends them."""
    from rich.text import Text

    mark, colour = _MARKS[step.state]
    line = Text(f"{mark} ", style=colour)
    line.append(f"{step.name:<8}", style="bold" if step.state == "fail" else "")
    shown = {item.message for item in step.findings}
    line.append(step.message if step.message not in shown else "")
    yield line
    for item in step.findings:
        colour = _MARKS[item.state][1]
        yield Text(f"    {item.fault}: ", style=colour).append(item.message, style="default")
        if item.fix:
            yield Text("      fix: ", style="dim").append(item.fix, style="default")
    for what in step.fixed:
        yield Text(f"    fixed: {what}", style="green")


def verdict(report: DoctorReport) -> str:
    """Return the last line of an examination."""
    failed = [step.name for step in report.steps if step.state == "fail"]
    warned = [step.name for step in report.steps if step.state == "warn"]
    if failed:
        return f"centre '{report.centre}' is not ready: {', '.join(failed)}"
    return f"centre '{report.centre}' is ready" + (f" (look at: {', '.join(warned)})" if warned else "")
