"""Walk every value, descriptor and selection of a dataset back to its source, by AiiDA links alone.

AiiDA has one profile per process, and the test's may have another: this runs in a process of its own, with the
workspace and the dataset as arguments, and prints what it has seen as JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def main(root: str, path: str) -> None:
    from matcompute.dataset import Dataset, Status, uuid_text
    from matcompute.dataset.descriptors import descriptor_process, descriptor_status
    from matcompute.workspace import Workspace

    Workspace(root).load_profile()
    from aiida.orm import load_node

    from matcompute_workflows.trace import trace_value, walk_back

    walked: dict[tuple[str, str], list] = {}
    counts = dict.fromkeys(("values", "descriptors", "selections"), 0)
    makers: dict[str, list[str]] = {}
    with Dataset(path) as data:
        ids = data.ids
        uuids = [uuid_text(value) for value in data.provenance.process_uuid]
        things = {
            name: ("values", np.asarray(data.status(name)), np.asarray(data.process(name)))
            for name in data.properties
        }
        for name in data.descriptors:
            things[name] = ("descriptors", descriptor_status(data, name), descriptor_process(data, name))
        for name, selection in data.selections.items():
            (process,) = selection.processes
            status = np.where(selection.mask, int(Status.OK), int(Status.NOT_SELECTED))
            things[name] = ("selections", status, np.full(len(data), process))
        for name, (kind, status, process) in things.items():
            found = makers.setdefault(name, [])
            for row in np.flatnonzero(status == Status.OK):
                assert process[row] >= 0, f"{name} of {ids[row]} has no process"
                key = (uuids[process[row]], str(ids[row]))
                if key not in walked:
                    walked[key] = walk_back(load_node(uuid=key[0]), key[1])
                label = walked[key][0].node.process_label
                if label not in found:
                    found.append(label)
                counts[kind] += 1
        # The public function finds the same process by name.
        for name, (_, status, process) in things.items():
            rows = np.flatnonzero(status == Status.OK)
            if not rows.size:
                continue  # a column that no structure has, such as the moment of what is not magnetic
            row = int(rows[-1])
            steps = trace_value(path, row, name)
            assert steps[0].node.uuid == uuids[process[row]], name
            details = steps[0].details
            if steps[0].node.process_label == "BatchCalculation":
                assert details["code"]["version"], name
    kinds = sorted({type(step.node).__name__ for steps in walked.values() for step in steps})
    ends = {steps[-1].node.uuid: steps[-1].node for steps in walked.values()}
    sources = []
    for node in ends.values():
        whole = hasattr(node, "filename")
        sources.append(
            [node.filename, node.get_content()]
            if whole
            else [sorted(node.base.repository.list_object_names()), ""]
        )
    print(
        json.dumps(
            {**counts, "walks": len(walked), "kinds": kinds, "sources": sources, "makers": makers},
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
