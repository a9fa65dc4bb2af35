"""Stages whose structures each get a process of their own: from planned rows to processes of a code's AiiDA plugin."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.campaign.adapters import calculator_adapter, parameters_model, stage_parameters
from matcompute.campaign.dispatcher.nodes import call_once, find_process, load, tag
from matcompute.campaign.state import State
from matcompute.campaign.state.batches import BatchRow, batches_of, by_id, members, set_batch
from matcompute.campaign.state.campaigns import CampaignRow, StageRow
from matcompute.campaign.state.structures import set_computed, unprepared
from matcompute.dataset import Status
from matcompute.errors import InputError, MatcomputeError

if TYPE_CHECKING:
    from matcompute.campaign.dispatcher.placing import Place
    from matcompute.campaign.model import Stage
    from matcompute.centres import RegisteredCentre

__all__ = ["codes_for", "prepared", "rows_and_parents", "start", "task_input"]

LOGGER = logging.getLogger(__name__)
#: Structures that one process makes ready at a time.
GROUP = 64


def prepared(
    state: State, batch: BatchRow, row: CampaignRow, stages: Sequence[StageRow], here: StageRow, stage: Stage
) -> BatchRow:
    """Return a planned row that has its AiiDA structure, made together with those of the rows after it.

    A crash before the rows know of their structures makes them again; nothing points to the first ones then.
    """
    from aiida.orm import Dict

    from matcompute_workflows.dft.functions import prepare_structures

    with state.read() as connection:
        batch = by_id(connection, batch.id)  # it may have been made ready since it was looked at
        batches = unprepared(connection, here.id, batch.id, GROUP)
    if batch.input_uuid is not None:
        return batch
    assert stage.calculator is not None
    own = _own(stage)
    spin, magmoms = getattr(own, "spin", "none"), getattr(own, "magmoms", "elements")

    def inputs() -> Mapping[str, Any]:
        rows, parents = rows_and_parents(state, row, stages, here, batches)
        return {"settings": Dict({"magmoms": "none" if spin == "none" else magmoms}), "rows": rows, **parents}

    label = f"{row.uuid}/{here.name}/structures/{batches[0].number}-{batches[-1].number}x{len(batches)}"
    extras = {"campaign": row.uuid, "stage": here.name}
    outputs = call_once(label, prepare_structures, inputs, extras=extras)
    with state.write() as connection:
        for k, item in enumerate(batches):
            set_batch(connection, item.id, input_uuid=outputs[f"s_{k}"].uuid)
    return replace(batch, input_uuid=outputs["s_0"].uuid)


def rows_and_parents(
    state: State, row: CampaignRow, stages: Sequence[StageRow], here: StageRow, batches: Sequence[BatchRow]
) -> tuple[Any, dict[str, Any]]:
    """Return where the structures of some rows are: an ArrayData of pairs, and the shards that the pairs count."""
    from aiida.orm import ArrayData

    with state.read() as connection:
        found = [members(connection, stages, here.position, batch.id) for batch in batches]
        results = {b.id: b.result_uuid for b in batches_of(connection, row.id, ["finished"])}
    uuids = [
        row.structures_uuid if int(item.parents[0]) == -1 else results[int(item.parents[0])] for item in found
    ]
    order = {uuid: k for k, uuid in enumerate(dict.fromkeys(uuids))}
    pairs = [(order[uuid], int(item.parent_rows[0])) for uuid, item in zip(uuids, found, strict=True)]
    rows = ArrayData()
    rows.set_array("rows", np.array(pairs, dtype=np.int64).reshape(-1, 2))
    return rows, {f"parent_{k}": load(str(uuid)) for uuid, k in order.items()}


def start(state: State, place: Place, here: StageRow, centre: RegisteredCentre) -> None:
    """Submit the process of a structure whose intent is written, or find that it was submitted already.

    A structure that the code cannot take (no potential of an element) is concluded here, with its cause.
    """
    row, batch = place.row, place.batch
    process = find_process(batch.label)
    if process is None:
        try:
            builder = _builder(place, batch, centre)
        except InputError as error:
            _refuse(state, batch, error)
            return
        from aiida.engine import submit

        process = submit(builder)
    tag(process, {"campaign": row.uuid, "stage": here.name, "batch": batch.number, "key": batch.key})
    with state.write() as connection:
        set_batch(connection, batch.id, state="submitted", process_uuid=process.uuid, submitted=time.time())
    LOGGER.info(
        "structure %s: process %d, centre %s (%s)", batch.label, process.pk, place.centre, place.partition
    )


def _builder(place: Place, batch: BatchRow, centre: RegisteredCentre) -> Any:
    from matcompute_workflows.dft.adapter import Prepared, Remedy
    from matcompute_workflows.dft.jobs import job_options_for

    stage = place.stage
    assert stage.calculator is not None
    adapter = calculator_adapter(stage.calculator.name)
    _, task = stage_parameters(stage)
    node = load(str(batch.input_uuid))
    remedy = Remedy(**(batch.remedy or {}))
    wanted = stage.resources
    options = job_options_for(
        centre,
        partition=None if centre.centre.is_local else place.partition,
        account=place.project or None,
        ranks=place.ranks,
        threads=wanted.threads,
        gpus=wanted.gpus,
        memory_gb=None if wanted.memory is None else wanted.memory * remedy.memory,
        walltime_s=None if place.walltime_s is None else place.walltime_s * remedy.walltime,
    )
    options |= _stash(_own(stage), centre)
    builder = adapter.builder(
        Prepared(node, _moments(node)),
        stage.kind,
        task,
        _own(stage),
        codes=codes_for(centre, adapter.plugins(stage.kind, task), place.partition),
        options=options,
        ranks=place.ranks,
        remedy=remedy,
    )
    builder.metadata.label = batch.label
    builder.metadata.description = f"campaign {place.row.name}, stage {stage.name}, structure {batch.number}"
    return builder


def _stash(own: Any, centre: RegisteredCentre) -> dict[str, Any]:
    """Return the option by which AiiDA copies files of a job to a place that is not purged."""
    names = list(getattr(own, "stash", ()))
    if not names:
        return {}
    target = centre.centre.storage.stash_dir
    if target is None:
        raise MatcomputeError(
            f"the campaign wants files stashed, but centre '{centre.centre.id}' has no place for them",
            hint="give its profile `storage.stash_dir`, or leave `stash` out",
        )
    return {"stash": {"source_list": names, "target_base": target, "stash_mode": "copy"}}


def _own(stage: Stage) -> Any:
    """Return the calculator's own parameters."""
    assert stage.calculator is not None
    model = parameters_model(calculator_adapter(stage.calculator.name))
    return model.model_validate(stage.calculator.parameters)


def _moments(node: Any) -> dict[str, float] | None:
    """Return the starting moments of a structure that ``prepare_structures`` has made."""
    creator = node.creator
    if creator is None or "moments" not in creator.outputs:
        return None
    link = node.base.links.get_incoming(node_class=type(creator)).one().link_label
    found: dict[str, float] | None = creator.outputs.moments.get_dict().get(link)
    return found


def codes_for(centre: RegisteredCentre, plugins: Sequence[str], partition: str) -> dict[str, Any]:
    """Return AiiDA calculation plugin → code of a centre's partition.

    Raises
    ------
    MatcomputeError
        If the centre has no such code.
    """
    found = {}
    for plugin in plugins:
        block = next((b for b in centre.centre.codes if b.plugin == plugin and b.runs_in(partition)), None)
        if block is None or block.name not in centre.codes:
            raise MatcomputeError(
                f"centre '{centre.centre.id}' has no code with the plugin {plugin} in partition '{partition}'",
                hint=f"add it to `codes` in its profile: {{name: …, plugin: {plugin}, executable: …}}",
            )
        found[plugin] = centre.codes[block.name]
    return found


def _refuse(state: State, batch: BatchRow, error: InputError) -> None:
    message = error.message if error.hint is None else f"{error.message}; {error.hint}"
    LOGGER.warning("structure %s is not submitted: %s", batch.label, message)
    with state.write() as connection:
        set_computed(
            connection,
            batch,
            status=int(Status.UNSUPPORTED_SPECIES),
            message=message,
            core_s=0.0,
            exit_status=None,
        )


def task_input(stage: Stage, species: Sequence[str]) -> dict[str, Any]:
    """Return the ``task`` input of ``gather_structures``: what was computed, and all that decided the numbers."""
    assert stage.calculator is not None
    adapter = calculator_adapter(stage.calculator.name)
    return {
        "task": stage.kind,
        "parameters": stage.parameters,
        "calculator": {"name": stage.calculator.name, "parameters": stage.calculator.parameters},
        "stage": stage.name,
        "settings": adapter.settings(_own(stage), species),
    }
