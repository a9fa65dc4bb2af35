"""Fill in the inputs of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matcompute_workflows.shard import ShardData

if TYPE_CHECKING:
    from aiida.engine import ProcessBuilder
    from aiida.orm import RemoteData, SinglefileData

    from matcompute.centres import RegisteredCentre

__all__ = ["build_batch", "scheduler_options"]


def build_batch(
    centre: RegisteredCentre,
    shard: ShardData,
    task: Mapping[str, Any],
    *,
    label: str,
    resources: Mapping[str, Any] | None = None,
    model: SinglefileData | None = None,
    parent: RemoteData | None = None,
    description: str = "",
    max_iterations: int | None = None,
    clean_workdir: bool = False,
) -> ProcessBuilder:
    """Return a builder of :class:`matcompute_workflows.BatchWorkChain`, ready for ``aiida.engine.submit``.

    Parameters
    ----------
    centre
        From :func:`matcompute.centres.register`.
    shard
        The structures.
    task
        ``task``, ``parameters`` (canonical units), ``calculator`` (``name``, ``parameters``, ``model_sha256``) and
        ``stage``; see :func:`matcompute_workflows.taskfile.check_task`.
    label
        Unique key of the batch; becomes the label of the work chain's node, by which it is found again.
    resources
        ``ranks`` (MPI; 0 is none), ``processes``, ``threads``, ``gpus``, ``memory_gb``, ``walltime_s``, and at a centre
        with a scheduler ``partition``, ``account``, ``extra_directives`` (lines of the job script); each optional.
    model
        Weights in place of those that the calculator's package ships.
    parent
        Folder of a job at the same centre whose checkpoint is taken over.
    max_iterations
        Jobs that may follow one another before the batch is given up.
    clean_workdir
        Empty the jobs' folders at the end.
    """
    from aiida.orm import Bool, Dict, Int

    from matcompute_workflows.workchain import BatchWorkChain

    wanted: dict[str, Any] = {
        "ranks": 0,
        "processes": 1,
        "threads": 1,
        "gpus": 0,
        "memory_gb": None,
        "walltime_s": None,
        "partition": None,
        "account": None,
        "extra_directives": (),
    }
    unknown = set(resources or {}) - set(wanted)
    if unknown:
        raise ValueError(f"unknown resources {sorted(unknown)}; known: {sorted(wanted)}")
    wanted.update(resources or {})

    builder: Any = BatchWorkChain.get_builder()
    builder.metadata.label = label
    builder.metadata.description = description
    builder.batch.code = centre.codes["matcompute-node"]
    builder.batch.shard = shard
    builder.batch.task = Dict(dict(task))
    if model is not None:
        builder.batch.model = model
    if parent is not None:
        builder.batch.parent_folder = parent
    options = builder.batch.metadata.options
    ranks = int(wanted["ranks"] or 0)
    options.ranks = ranks
    options.processes = int(wanted["processes"] or 1)
    options.threads = int(wanted["threads"] or 1)
    options.gpus = int(wanted["gpus"] or 0)
    options.withmpi = ranks > 0
    if centre.slots is not None:
        options.slots = str(centre.slots)
    for name, value in scheduler_options(centre, wanted).items():
        setattr(options, name, value)
    if not centre.centre.is_local:
        # How far a restart may go when a job needed more.
        part = centre.centre.partition(wanted["partition"] or centre.partition)
        options.largest_memory_kb = round(part.mem_gb * 1e6)
        if part.max_wall_s is not None:
            options.longest_wallclock_seconds = int(part.max_wall_s)
    builder.batch.metadata.label = label
    if max_iterations is not None:
        builder.max_iterations = Int(max_iterations)
    if clean_workdir:
        builder.clean_workdir = Bool(True)
    return builder


def scheduler_options(centre: RegisteredCentre, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return AiiDA's options by which a job asks the centre's scheduler for what it needs.

    Parameters
    ----------
    centre
        From :func:`matcompute.centres.register`.
    wanted
        As in :func:`build_batch`.
    """
    from matcompute.centres import Request, job_options

    profile = centre.centre
    ranks, threads = int(wanted["ranks"] or 0), int(wanted["threads"] or 1)
    partition = profile.partition(wanted["partition"] or centre.partition)
    walltime = wanted["walltime_s"]
    if walltime is None and profile.scheduler.type != "direct":
        walltime = partition.max_wall_s  # else the scheduler's default, which may be minutes
    request = Request(
        ranks=ranks,
        cores=threads if ranks > 0 else int(wanted["processes"] or 1) * threads,
        gpus=int(wanted["gpus"] or 0) if profile.scheduler.type != "direct" else 0,
        memory_gb=wanted["memory_gb"],
        walltime_s=walltime,
    )
    options = job_options(
        profile, request, partition=partition.name, account=wanted["account"] or centre.account
    )
    extra = list(wanted["extra_directives"] or ())
    if extra:
        given = options.get("custom_scheduler_commands")
        options["custom_scheduler_commands"] = "\n".join([*([given] if given else []), *extra])
    return options
