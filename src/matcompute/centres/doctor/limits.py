"""Step 3: the profile against what the scheduler allows now."""

from __future__ import annotations

from collections.abc import Iterator

from matcompute.centres.doctor.patient import Patient
from matcompute.centres.doctor.report import Finding, Step, worst
from matcompute.centres.durations import format_duration
from matcompute.centres.model import PartitionBlock
from matcompute.centres.schedulers.direct import MACHINE
from matcompute.centres.schedulers.live import LimitsError, LiveLimits, LivePartition, limits
from matcompute.errors import did_you_mean
from matcompute.yamlfile import KeyPath, format_key

__all__ = ["examine_limits"]

#: Memory is given in several kinds of gigabytes: so much more than the live value is no fault.
_MEMORY_TOLERANCE = 1.05


def examine_limits(patient: Patient) -> Step:
    """Compare every limit of the profile with the live one."""
    kind = patient.centre.scheduler.type
    try:
        live = limits(patient.way, kind)
    except LimitsError as error:
        patient.bad_partitions |= {part.name for part in patient.centre.partitions}
        fault = "scheduler-missing" if error.missing else "scheduler-down"
        fix = (
            "put its commands on the PATH of non-interactive shells, or set login.use_login_shell: true"
            if error.missing
            else "wait until it is up again, or tell the centre; `matcompute centre list` shows what is affected"
        )
        return Step("limits", "fail", error.message, (Finding(fault, error.message, fix),))
    if live is None:
        return Step("limits", "skip", f"limits of {kind} cannot be read; the profile is taken at its word")
    patient.live = live
    findings = [*_partitions(patient, live), *_counts(patient, live)]
    notes = list(_notes(patient, live))
    version = f"{live.scheduler} {live.version}".strip()
    count = len(live.partitions)
    bad = next((item.message for item in findings if item.state == "fail"), None)
    message = bad or f"{version}: {count} partition{'s' if count > 1 else ''} as the profile says"
    return Step(
        "limits", worst(findings), message, tuple(findings), details={**live.to_dict(), "notes": notes}
    )


def live_partition(live: LiveLimits, part: PartitionBlock) -> LivePartition | None:
    """Return what the scheduler says of a partition; None if there is none of that name."""
    return live.partitions.get(MACHINE) if live.scheduler == "direct" else live.partitions.get(part.name)


def _partitions(patient: Patient, live: LiveLimits) -> Iterator[Finding]:
    centre = patient.centre
    for index, part in enumerate(centre.partitions):
        found = live_partition(live, part)
        if found is None:
            patient.bad_partitions.add(part.name)
            yield Finding(
                "wrong-partition",
                f"there is no partition '{part.name}' at {centre.id}{did_you_mean(part.name, live.partitions)}",
                f"write the scheduler's name into partitions[{index}].name; it has: "
                f"{', '.join(sorted(live.partitions))}",
            )
            continue
        if not found.up:
            patient.bad_partitions.add(part.name)
            yield Finding(
                "partition-down",
                f"partition '{part.name}' starts no jobs: its state is {found.state}",
                "wait, or ask the centre; take it out of the profile if it is gone",
                "warn",
            )
        elif found.nodes_up < found.nodes:
            down = found.nodes - found.nodes_up
            if found.nodes_up == 0:
                patient.bad_partitions.add(part.name)
            yield Finding(
                "nodes-down",
                f"{down} of the {found.nodes} nodes of partition '{part.name}' start no jobs",
                "nothing is wrong with the profile; jobs wait longer",
                "warn",
            )
        yield from _partition(patient, index, part, found)


def _partition(patient: Patient, index: int, part: PartitionBlock, found: LivePartition) -> Iterator[Finding]:
    where: KeyPath = ("partitions", index)
    if part.max_wall is not None and found.max_wall_s is not None and part.max_wall > found.max_wall_s:
        live = format_duration(found.max_wall_s)
        yield _lower(
            patient,
            "walltime-too-long",
            (*where, "max_wall"),
            live,
            f"partition '{part.name}': max_wall is {format_duration(part.max_wall)}, "
            f"the scheduler allows {live}: longer jobs are refused or never start",
        )
    if part.max_nodes is not None and found.max_nodes is not None and part.max_nodes > found.max_nodes:
        yield _lower(
            patient,
            "lower-limit",
            (*where, "max_nodes"),
            found.max_nodes,
            f"partition '{part.name}': max_nodes is {part.max_nodes}, the scheduler allows {found.max_nodes}",
        )
    for name, mine, theirs, unit in (
        ("cores", float(part.cores), found.cores, ""),
        ("mem_gb", part.mem_gb / _MEMORY_TOLERANCE, found.mem_gb, " GB"),
        ("gpus", float(part.n_gpus), found.gpus, ""),
    ):
        if theirs is not None and mine > theirs:
            value = getattr(part, name) if name != "gpus" else part.n_gpus
            yield Finding(
                "lower-limit",
                f"partition '{part.name}': {name} is {value:g}{unit}, its largest node has {theirs:.4g}{unit}",
                f"set {format_key((*where, name))}: {theirs:.4g}",
            )
    if part.nodes > found.nodes:
        yield Finding(
            "lower-limit",
            f"partition '{part.name}': nodes is {part.nodes}, the scheduler has {found.nodes}",
            f"set {format_key((*where, 'nodes'))}: {found.nodes}",
            "warn",
        )
    resource = part.gpus.resource
    # A plain 'gpu' is any of them.
    offered = {*found.resources, *(name.split(":")[0] for name in found.resources)}
    if part.n_gpus and resource and found.resources and resource not in offered:
        hint = did_you_mean(resource, found.resources)
        yield Finding(
            "wrong-gpu-resource",
            f"partition '{part.name}': no GPU is called '{resource}' there{hint}",
            f"set {format_key((*where, 'gpus', 'resource'))} to one of: {', '.join(found.resources)}",
        )
    environment = part.parallel_environment
    if environment and patient.centre.scheduler.type == "sge" and environment not in found.environments:
        patient.bad_partitions.add(part.name)
        hint = did_you_mean(environment, found.environments)
        yield Finding(
            "wrong-parallel-environment",
            f"queue '{part.name}' has no parallel environment '{environment}'{hint}",
            f"set {format_key((*where, 'parallel_environment'))} to one of: {', '.join(found.environments)}",
        )


def _counts(patient: Patient, live: LiveLimits) -> Iterator[Finding]:
    scheduler = patient.centre.scheduler
    if live.max_submit is not None:
        limit, name = live.max_submit
        for key in ("max_submitted", "max_user_jobs"):
            mine = getattr(scheduler, key)
            if mine is not None and mine > limit:
                yield _lower(
                    patient,
                    "lower-limit",
                    ("scheduler", key),
                    max(1, limit),
                    f"scheduler.{key} is {mine}, the scheduler allows {limit} jobs ({name})",
                )
    if (
        scheduler.max_array is not None
        and live.max_array is not None
        and scheduler.max_array > live.max_array
    ):
        yield _lower(
            patient,
            "lower-limit",
            ("scheduler", "max_array"),
            max(1, live.max_array),
            f"scheduler.max_array is {scheduler.max_array}, the scheduler allows {live.max_array}",
        )


def _lower(patient: Patient, fault: str, path: KeyPath, value: str | int, message: str) -> Finding:
    repair = None
    if patient.path is not None:

        def repair() -> str:
            return patient.lower(path, value, "the live limit")

    return Finding(
        fault, message, f"set {format_key(path)}: {value}, or ask the centre for more", "fail", repair
    )


def _notes(patient: Patient, live: LiveLimits) -> Iterator[str]:
    """Yield where the scheduler allows more than the profile uses."""
    for part in patient.centre.partitions:
        found = live_partition(live, part)
        if found is None:
            continue
        if part.max_wall is not None and found.max_wall_s is not None and found.max_wall_s > part.max_wall:
            yield (
                f"partition '{part.name}' allows {format_duration(found.max_wall_s)}, "
                f"the profile uses {format_duration(part.max_wall)}"
            )
        for name, mine, theirs in (
            ("nodes", part.nodes, found.nodes),
            ("cores", part.cores, found.cores),
            ("gpus", part.n_gpus, found.gpus),
        ):
            if theirs is not None and theirs > mine:
                yield f"partition '{part.name}' has {theirs} {name}, the profile uses {mine}"
    known = {part.name for part in patient.centre.partitions}
    others = sorted(set(live.partitions) - known - {MACHINE})
    if others:
        yield f"partitions that the profile does not use: {', '.join(others)}"
