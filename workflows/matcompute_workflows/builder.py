"""Fill in the inputs of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matcompute_workflows.shard import ShardData

if TYPE_CHECKING:
    from aiida.engine import ProcessBuilder
    from aiida.orm import SinglefileData

    from matcompute.centres import RegisteredCentre

__all__ = ["build_batch"]


def build_batch(
    centre: RegisteredCentre,
    shard: ShardData,
    task: Mapping[str, Any],
    *,
    label: str,
    resources: Mapping[str, Any] | None = None,
    model: SinglefileData | None = None,
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
        ``ranks`` (MPI; 0 is none), ``processes``, ``threads``, ``gpus``, ``memory_gb``, ``walltime_s``; each
        optional.
    model
        Weights in place of those that the calculator's package ships.
    max_iterations
        Jobs that may follow one another before the batch is given up.
    clean_workdir
        Empty the jobs' folders at the end.
    """
    from aiida.orm import Bool, Dict, Int

    from matcompute_workflows.workchain import BatchWorkChain

    wanted = {"ranks": 0, "processes": 1, "threads": 1, "gpus": 0, "memory_gb": None, "walltime_s": None}
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
    options = builder.batch.metadata.options
    ranks = int(wanted["ranks"] or 0)
    options.ranks = ranks
    options.processes = int(wanted["processes"] or 1)
    options.threads = int(wanted["threads"] or 1)
    options.gpus = int(wanted["gpus"] or 0)
    options.withmpi = ranks > 0
    options.resources = {"num_machines": 1, "num_mpiprocs_per_machine": max(1, ranks)}
    if centre.slots is not None:
        options.slots = str(centre.slots)
    if wanted["memory_gb"]:
        options.max_memory_kb = round(float(wanted["memory_gb"]) * 1e6)
    if wanted["walltime_s"]:
        options.max_wallclock_seconds = max(1, round(float(wanted["walltime_s"])))
    builder.batch.metadata.label = label
    if max_iterations is not None:
        builder.max_iterations = Int(max_iterations)
    if clean_workdir:
        builder.clean_workdir = Bool(True)
    return builder
