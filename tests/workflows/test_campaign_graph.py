"""From source file to final dataset through every kind of node, and the way back by links alone."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

STAGES = ["relax", "hull", "eos", "top"]


@pytest.fixture(scope="module")
def campaign(workspace, centre, wait_for, tmp_path_factory):
    """A small campaign by hand: ingest, relax in two batches, hull, eos of what passed, top, merge."""
    from aiida.engine import submit
    from aiida.orm import ArrayData, Dict, List, SinglefileData

    from matcompute.structures import StructuresSpec
    from matcompute_workflows import apply_gate, build_batch, ingest_structures, merge_campaign, take_rows
    from matcompute_workflows.sources import source_nodes

    folder = tmp_path_factory.mktemp("campaign")
    write(folder / "pure.extxyz", [bulk("Cu", a=3.7), bulk("Al", a=4.1), bulk("Cu", a=3.7)])
    (folder / "campaign.yaml").write_text(
        "schema: matcompute.campaign/v1\n# prototypes are made from this line\n"
    )
    specs = [
        StructuresSpec.model_validate({"files": "*.extxyz"}),
        StructuresSpec.model_validate(
            {"prototypes": ["L1_2", "B2", "L1_0"], "elements": {"A": ["Cu"], "B": ["Al"]}, "line": 2}
        ),
    ]
    ingested = ingest_structures(
        Dict({"structures": [s.model_dump(mode="json") for s in specs], "references": ["Al", "Cu"]}),
        SinglefileData(folder / "campaign.yaml"),
        **source_nodes(specs, folder),
    )
    structures, report = ingested["structures"], ingested["report"].get_dict()
    n = structures.n_entries

    def run(stage, parameters, shards):
        task = {
            "task": stage,
            "parameters": parameters,
            "calculator": {"name": "emt", "parameters": {}},
            "stage": stage,
        }
        nodes = [
            submit(build_batch(centre, s, task, label=f"graph/{stage}/{i}")) for i, s in enumerate(shards)
        ]
        wait_for(*nodes)
        assert all(node.is_finished_ok for node in nodes)
        return [node.outputs.results for node in nodes]

    halves = [
        take_rows(List([[0, row] for row in rows]), parent_0=structures)
        for rows in (range(n // 2), range(n // 2, n))
    ]
    relaxed = run("relax", {}, halves)
    hull = apply_gate(
        Dict({"kind": "hull", "stage": "hull", "parameters": {"max": 0.0}, "stages": ["relax"]}),
        structures,
        relax_0=relaxed[0],
        relax_1=relaxed[1],
    )["gate"]
    with hull.open() as gate:
        passed = gate.ids[gate.selections["hull"].mask].tolist()
    pairs = []
    for number, shard in enumerate(relaxed):
        with shard.open() as dataset:
            pairs += [[number, row] for row, name in enumerate(dataset.ids) if name in passed]
    rows = ArrayData()
    rows.set_array("rows", np.array(pairs, dtype=np.int64))
    eos = run("eos", {}, [take_rows(rows, parent_0=relaxed[0], parent_1=relaxed[1])])
    shards = {"relax_0": relaxed[0], "relax_1": relaxed[1], "hull_0": hull, "eos_0": eos[0]}
    top = apply_gate(
        Dict(
            {
                "kind": "top",
                "stage": "top",
                "parameters": {"n": 1, "by": "bulk_modulus"},
                "stages": ["relax", "hull", "eos"],
            }
        ),
        structures,
        **shards,
    )["gate"]
    dataset = merge_campaign(
        Dict({"metadata": {"title": "graph test", "license": "CC-BY-4.0"}, "stages": STAGES}),
        structures,
        **shards,
        top_0=top,
    )["dataset"]
    path = dataset.save_as(folder / "final.h5")
    return {
        "path": path,
        "node": dataset,
        "structures": structures,
        "report": report,
        "passed": passed,
        "eos": eos[0],
        "relaxed": relaxed,
        "folder": folder,
    }


def test_ingest_keeps_order_and_counts(campaign):
    report = campaign["report"]
    assert report["n_read"] == 6
    assert report["n_duplicates"] == 1
    with campaign["structures"].open() as structures:
        assert len(structures) == 5
        lines = structures.entry_column("source_line").tolist()
        names = [structures.sources[i].path for i in structures.entry_column("source_index")]
    assert names == ["pure.extxyz"] * 2 + ["campaign.yaml"] * 3
    assert lines[:2] == [1, 4]


def test_every_entry_and_column_is_in_the_final_dataset(campaign):
    from matcompute.dataset import Dataset, Quality, Status

    with Dataset(campaign["path"]) as final, campaign["structures"].open() as structures:
        assert final.ids.tolist() == structures.ids.tolist()
        assert final.metadata.title == "graph test"
        # cpu_time is given by both stages: the later one owns the plain name.
        assert {"energy_per_atom", "e_above_hull", "bulk_modulus", "cpu_time", "relax__cpu_time"} <= set(
            final.properties
        )
        passed = np.isin(final.ids, campaign["passed"])
        assert 0 < passed.sum() < len(final), "the gate must divide, or the test shows nothing"
        assert np.all(final.status("bulk_modulus")[passed] == Status.OK)
        assert np.all(final.status("bulk_modulus")[~passed] == Status.NOT_SELECTED)
        assert np.isnan(final.column("bulk_modulus")[~passed]).all()
        assert final.selections["hull"].mask.tolist() == passed.tolist()
        assert final.selections["top"].mask.sum() == 1
        selected = (final.entry_column("quality") & Quality.SELECTED) != 0
        assert selected.tolist() == final.selections["top"].mask.tolist()
        for shard in campaign["relaxed"]:
            with shard.open() as part:
                rows = final.find_all(part.ids)
                assert np.array_equal(final.column("energy_per_atom", rows), part.column("energy_per_atom"))
                for row, its in zip(rows, range(len(part)), strict=True):
                    assert np.array_equal(final.batch([row]).positions, part.batch([its]).positions)
                    assert np.array_equal(final.column("forces", [row]), part.column("forces", [its]))


def test_the_structure_hash_is_that_of_the_row(campaign):
    from matcompute.dataset import Dataset
    from matcompute_kernels import structure_hash

    with Dataset(campaign["path"]) as final:
        assert final.entry_column("structure_hash").tolist() == [
            h.decode() if isinstance(h, bytes) else str(h) for h in structure_hash(final.batch())
        ]


def test_every_value_walks_back_to_its_source_file_by_links_alone(campaign):
    from aiida.orm import FolderData, SinglefileData, load_node

    from matcompute.dataset import Dataset, Status, uuid_text
    from matcompute_workflows import trace_value, walk_back

    walks = {}
    walked = 0
    with Dataset(campaign["path"]) as final:
        ids = final.ids.tolist()
        for name in final.properties:
            status, process = final.status(name), final.process(name)
            for row in np.flatnonzero(~np.isin(status, [Status.NOT_ATTEMPTED, Status.NOT_SELECTED])):
                uuid = uuid_text(final.provenance.process_uuid[process[row]])
                if (uuid, row) not in walks:
                    walks[uuid, row] = walk_back(load_node(uuid), ids[row])
                steps = walks[uuid, row]
                assert any(isinstance(step.node, FolderData | SinglefileData) for step in steps)
                files = [file for step in steps for file in step.details.get("files", [])]
                assert final.sources[int(final.entry_column("source_index")[row])].path in files
                walked += 1
    assert walked > 40
    row = ids.index(campaign["passed"][0])
    by_name = trace_value(campaign["path"], campaign["passed"][0], "bulk_modulus")
    labels = [step.label for step in by_name]
    assert labels in [[step.label for step in steps] for (_, at), steps in walks.items() if at == row]
    assert [label.split()[0] for label in labels if "shard" not in label][:5] == [
        "BatchCalculation",
        "take_rows",
        "BatchCalculation",
        "take_rows",
        "ingest_structures",
    ]


def test_the_file_alone_tells_the_chain_too(campaign):
    from matcompute.dataset import Dataset
    from matcompute.dataset.trace import trace_value

    with Dataset(campaign["path"]) as final:
        row = int(np.flatnonzero(final.selections["top"].mask)[0])
        steps = trace_value(final, row, "bulk_modulus")
    kinds = [step.kind for step in steps]
    assert kinds[0] == "value"
    assert kinds[-1] == "source"
    processes = [step for step in steps if step.kind == "process"]
    labels = [step.label for step in processes]
    assert any("eos" in label for label in labels)
    assert any("relax" in label for label in labels)
    assert any("ingest" in label for label in labels)
    batch = processes[0]
    assert batch.details["computer"] == "local"
    assert batch.details["code"] == "matcompute-node@local"
    assert steps[-1].uuid, "the source file's node is named"


def test_shards_of_an_unknown_entry_are_refused(campaign, write_shard):
    from aiida.orm import Dict

    from matcompute.dataset import DatasetError
    from matcompute_workflows import ShardData, merge_campaign

    foreign = ShardData(write_shard([bulk("Ag")]), stage="relax").store()
    with pytest.raises(DatasetError, match="not among the campaign's structures"):
        merge_campaign(Dict({"stages": ["relax"]}), campaign["structures"], part=foreign)
    with pytest.raises(DatasetError, match="stage 'relax'"):
        merge_campaign(Dict({"stages": ["eos"]}), campaign["structures"], part=foreign)


def test_verdi_tools_work_on_it(campaign, workspace, matcompute, tmp_path):
    def verdi(*arguments):
        return matcompute("verdi", *arguments, cwd=workspace.root).stdout

    eos = campaign["eos"].creator
    chain = eos.caller
    assert "BatchWorkChain" in verdi("process", "list", "-a")
    assert "BatchCalculation" in verdi("process", "report", chain.pk) + verdi("process", "status", chain.pk)
    assert '"task": "eos"' in verdi("calcjob", "inputcat", eos.pk, "task.json")
    assert "finished" in verdi("calcjob", "outputcat", eos.pk, "summary.json")
    assert "results" in verdi("process", "show", eos.pk)
    verdi(
        "node", "graph", "generate", campaign["node"].pk, tmp_path / "graph.dot", "-f", "dot"
    ) if _has_dot() else None
    archive = tmp_path / "campaign.aiida"
    verdi("archive", "create", "--no-call-calc-backward", "-N", campaign["node"].pk, "--", archive)
    assert "aiida" in verdi("archive", "info", archive).lower() or archive.stat().st_size > 0
    info = verdi("archive", "info", "--detailed", archive)
    assert "matcompute" in info


def _has_dot():
    import shutil

    return shutil.which("dot") is not None
