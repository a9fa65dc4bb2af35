"""The calculation functions around per-structure processes, so that the graph has no gap there either."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from aiida.engine import calcfunction
from aiida.orm import ArrayData, Data, Dict, StructureData

from matcompute_workflows.shard import ShardData

__all__ = ["gather_structures", "prepare_structures", "with_hubbard"]


@calcfunction
def prepare_structures(settings: Dict, rows: ArrayData, **parents: ShardData) -> dict[str, Data]:
    """Make AiiDA structures of rows of shards.

    Parameters
    ----------
    settings
        ``magmoms``: where starting moments come from (``auto``, ``elements``, ``none``).
    rows
        Array ``rows`` i8[n, 2]: number of the parent and row in it.
    parents
        The shards, ``parent_0``, ``parent_1`` …

    Returns
    -------
    dict
        ``s_<k>`` (StructureData) for row k, and ``moments`` (Dict: ``s_<k>`` → kind → μ_B, of those that are magnetic).
    """
    from matcompute_workflows.dft.shards import structures_of
    from matcompute_workflows.rows import natural_order

    ordered = [parents[name] for name in natural_order(parents)]
    pairs = np.asarray(rows.get_array("rows"), dtype=np.int64).reshape(-1, 2)
    made, moments = structures_of(pairs, ordered, str(settings.get_dict()["magmoms"]))
    found: dict[str, Data] = {f"s_{k}": structure for k, structure in enumerate(made)}
    found["moments"] = Dict({f"s_{k}": item for k, item in enumerate(moments) if item})
    return found


@calcfunction
def gather_structures(task: Dict, rows: ArrayData, outcomes: Dict, **nodes: Data) -> ShardData:
    """Write the result shard of structures that were computed one by one.

    Parameters
    ----------
    task
        ``task``, ``parameters``, ``calculator`` (``name``, ``parameters``), ``stage``, ``settings`` (for ``/methods``).
    rows
        Array ``rows`` i8[n, 2]: number of the parent and row in it.
    outcomes
        ``outcomes``: a list with ``status``, ``message``, ``attempt``, ``core_s`` for each structure.
    nodes
        ``parent_<j>``: the shards that hold the structures; ``p<k>_<name>``: outputs of structure k's process.

    Returns
    -------
    ShardData
        Same entries, final structures, results.
    """
    from matcompute.dataset import Method
    from matcompute_workflows.dft.registry import calculator_of
    from matcompute_workflows.dft.shards import Row, write_found
    from matcompute_workflows.rows import natural_order

    said = task.get_dict()
    adapter, kind, parameters = calculator_of(said)
    parents = {name: node for name, node in nodes.items() if name.startswith("parent_")}
    outputs: dict[int, dict[str, Data]] = {}
    for name, node in nodes.items():
        if name.startswith("p") and name not in parents:
            number, _, what = name[1:].partition("_")
            outputs.setdefault(int(number), {})[what] = node
    pairs = np.asarray(rows.get_array("rows"), dtype=np.int64).reshape(-1, 2)
    ordered = [parents[name] for name in natural_order(parents)]
    sizes = _sizes(pairs, ordered)
    told = outcomes.get_dict()
    found = [
        Row(
            adapter.read(kind, parameters, outputs.get(k, {}), int(sizes[k])),
            item["status"],
            item["message"],
            item["attempt"],
            item["core_s"],
        )
        for k, item in enumerate(told["outcomes"])
    ]
    versions = sorted({adapter.code_version(mine) for mine in outputs.values()} - {""})
    method = Method(
        name=adapter.name,
        code=adapter.title,
        code_version=", ".join(versions),
        model=str(said["settings"].get("functional", "")),
        parameters={
            "task": kind,
            "task_parameters": parameters.model_dump(mode="json"),
            "plugin": f"{adapter.package} {adapter.version}",
            **said["settings"],
        },
    )
    with tempfile.TemporaryDirectory(prefix="matcompute-gather-") as name:
        path = Path(name) / "results.h5"
        infos = adapter.task(kind).outputs(parameters)
        write_found(pairs, ordered, found, infos, method, path, relaxed=kind == "relax")
        return ShardData(path, stage=str(said["stage"]))


def _sizes(pairs: np.ndarray, parents: list[ShardData]) -> np.ndarray:
    sizes = np.zeros(len(pairs), dtype=np.int64)
    for number, shard in enumerate(parents):
        at = np.flatnonzero(pairs[:, 0] == number)
        if at.size:
            with shard.dataset() as dataset:
                sizes[at] = np.asarray(dataset.entry_column("row_size", pairs[at, 1]))
    return sizes


@calcfunction
def with_hubbard(structure: StructureData, u: Dict) -> Data:
    """Return the structure with DFT+U on its sites.

    Parameters
    ----------
    structure
        The structure.
    u
        Kind → ``[orbital, U in eV]``.

    Returns
    -------
    HubbardStructureData
        Of aiida-quantumespresso.
    """
    from aiida_quantumespresso.data.hubbard_structure import HubbardStructureData

    made = HubbardStructureData.from_structure(structure)
    for kind, (orbital, value) in u.get_dict().items():
        made.initialize_onsites_hubbard(kind, orbital, float(value), "Ueff", use_kinds=True)
    return made
