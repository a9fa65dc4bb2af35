"""The calculation functions between batches, so that the graph from source file to final dataset has no gap.

They run in the process that calls them (the dispatcher). Every file that they read is an input node and every file
that they write is an output node.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from aiida.engine import calcfunction
from aiida.orm import ArrayData, Data, Dict, FolderData, List, SinglefileData

from matcompute_workflows.shard import ShardData

__all__ = ["apply_gate", "ingest_structures", "mark_lost", "merge_campaign", "take_rows"]


@calcfunction
def ingest_structures(
    parameters: Dict, campaign_file: SinglefileData, **sources: FolderData
) -> dict[str, Data]:
    """Read the sources of a campaign, screen and dedupe, and write the structures shard.

    Parameters
    ----------
    parameters
        ``structures``: items of the campaign file; ``references``: elements that need a pure structure (list or
        "auto"); ``metadata``: fields of :class:`matcompute.dataset.Metadata`.
    campaign_file
        The campaign file (source of generated structures).
    sources
        ``source_<i>``: the files of item i, from :func:`matcompute_workflows.sources.source_nodes`.

    Returns
    -------
    dict
        ``structures`` (:class:`ShardData`) and ``report`` (Dict: counts, and every structure kept out with its cause).
    """
    from matcompute.dataset import Metadata
    from matcompute.structures import StructuresSpec, ingest
    from matcompute_workflows.sources import unpack_sources

    settings = parameters.get_dict()
    specs = [StructuresSpec.model_validate(item) for item in settings["structures"]]
    with tempfile.TemporaryDirectory(prefix="matcompute-ingest-") as name:
        folder = Path(name)
        campaign = folder / "base" / campaign_file.filename
        campaign.parent.mkdir()
        campaign.write_bytes(campaign_file.get_content(mode="rb"))
        files = unpack_sources(sources, len(specs), folder / "sources")
        report = ingest(
            specs,
            campaign.parent,
            folder / "structures.h5",
            campaign_file=campaign,
            references=settings.get("references"),
            metadata=Metadata(**_metadata(settings)),
            files=files,
        )
        return {"structures": ShardData(folder / "structures.h5"), "report": Dict(report.as_dict())}


@calcfunction
def take_rows(rows: Data, **parents: ShardData) -> ShardData:
    """Write the shard of a batch: chosen rows of one or more shards, structures and identities only.

    Parameters
    ----------
    rows
        Pairs ``[parent, row]``: an ArrayData with the array ``rows`` i8[n, 2], or a List or Dict (key ``rows``).
    parents
        The shards; the parent numbers count them in natural order of their names (``parent_0``, ``parent_1`` …).
    """
    from matcompute_workflows.rows import natural_order, write_rows

    ordered = [parents[key] for key in natural_order(parents)]
    with tempfile.TemporaryDirectory(prefix="matcompute-rows-") as name:
        path = Path(name) / "shard.h5"
        write_rows(_pairs(rows), ordered, path)
        return ShardData(path)


@calcfunction
def apply_gate(parameters: Dict, structures: ShardData, **results: Data) -> dict[str, Data]:
    """Decide which entries pass a gate.

    Parameters
    ----------
    parameters
        ``kind`` (hull, filter, top), ``stage`` (the gate's own name), ``parameters`` (of the gate), ``stages`` (names
        of the earlier stages, in order).
    structures
        All structures of the campaign.
    results
        Result shards and outputs of earlier gates, under any names; the stage of each is its own attribute. An entry
        that two shards of one stage hold takes the later one in natural order of the names. The name ``references``
        is kept for a file of further entries for the hull (SinglefileData).

    Returns
    -------
    dict
        ``gate`` (:class:`ShardData`): the entries considered, the columns that the gate adds, and the selection under
        the gate's name.
    """
    from matcompute_workflows.gating import write_gate

    settings = parameters.get_dict()
    references = results.pop("references", None)
    with tempfile.TemporaryDirectory(prefix="matcompute-gate-") as name:
        path = Path(name) / "gate.h5"
        write_gate(settings, structures, results, references, path)
        return {"gate": ShardData(path, stage=settings["stage"])}


@calcfunction
def merge_campaign(parameters: Dict, structures: ShardData, **shards: ShardData) -> dict[str, Data]:
    """Write the final dataset of a campaign: every entry, final structures, all columns, selections, provenance.

    Parameters
    ----------
    parameters
        ``metadata`` (fields of :class:`matcompute.dataset.Metadata`) and ``stages`` (names in order).
    structures
        All structures of the campaign.
    shards
        Result shards and outputs of gates, under any names; see :func:`apply_gate`.

    Returns
    -------
    dict
        ``dataset`` (:class:`ShardData`).
    """
    from aiida.engine import Process

    from matcompute_workflows.merging import write_dataset

    settings = parameters.get_dict()
    process: Any = Process.current()
    with tempfile.TemporaryDirectory(prefix="matcompute-merge-") as name:
        path = Path(name) / "dataset.h5"
        write_dataset(
            path,
            _metadata(settings),
            list(settings.get("stages", [])),
            structures,
            shards,
            merge_process=None if process is None else process.node,
        )
        return {"dataset": ShardData(path, filename="dataset.h5")}


@calcfunction
def mark_lost(results: ShardData) -> dict[str, Data]:
    """Mark as lost what a given-up batch has not attempted."""
    from matcompute_workflows.rows import write_lost

    with tempfile.TemporaryDirectory(prefix="matcompute-lost-") as name:
        path = Path(name) / "results.h5"
        with results.as_path() as source:
            write_lost(source, path)
        return {"results": ShardData(path, stage=results.stage)}


def _metadata(settings: dict[str, Any]) -> dict[str, Any]:
    metadata = dict(settings.get("metadata", {}))
    if "contributors" in metadata:
        metadata["contributors"] = tuple(metadata["contributors"])
    return metadata


def _pairs(rows: Data) -> Any:
    import numpy as np

    if isinstance(rows, ArrayData):
        values = rows.get_array("rows")
    elif isinstance(rows, Dict):
        values = rows.get_dict()["rows"]
    elif isinstance(rows, List):
        values = rows.get_list()
    else:
        raise TypeError(f"rows must be an ArrayData, List or Dict, not {type(rows).__name__}")
    return np.asarray(values, dtype=np.int64).reshape(-1, 2)
