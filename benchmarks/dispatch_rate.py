"""How many batches an hour the dispatcher brings through, against bare AiiDA submission on the same centre.

Both run the same tiny EMT batches in one workspace, with the same daemon, centre and window, in turns. Ours is a
campaign: planning, routing, limits, provenance of the input shards, recording, accounting. Bare is a loop that calls
``aiida.engine.submit`` whenever the window has room, with shards that were written beforehand, and keeps nothing else.
Measured from the first submission to the last end, as the state tables and AiiDA's nodes have it.

Prints one JSON line; ``ratios.dispatch_rate`` is ours/bare in batches per hour.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from _machine import machine

CAMPAIGN = """\
schema: matcompute.campaign/v1
name: rate
title: one structure a batch
domain: advanced-nonferrous-metals
licence: CC0-1.0
contributors: [{name: matcompute benchmark}]
structures:
  - files: structures.extxyz
stages:
  - static: {calculator: emt, batch_size: 1}
"""


def write_structures(path: Path, count: int) -> list[Any]:
    """Write small distinct crystals."""
    import ase.io
    from ase.build import bulk

    frames = [bulk("Cu", "fcc", a=3.5 + 0.3 * k / count, cubic=True) for k in range(count)]
    ase.io.write(path, frames, format="extxyz")
    return frames


def ours(folder: Path, workspace: Any) -> float:
    """Run the campaign; return batches per hour."""
    from matcompute.campaign.state import State
    from matcompute.campaign.state.batches import batches_of
    from matcompute.campaign.state.campaigns import find

    program = str(Path(sys.executable).parent / "matcompute")
    command = [
        program,
        "-w",
        str(workspace.root),
        "campaign",
        "run",
        str(folder / "rate.yaml"),
        "--no-progress",
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)
    with State(workspace.state_path) as state, state.read() as connection:
        batches = batches_of(connection, find(connection, "rate").id)
    assert all(batch.state == "finished" and batch.n_ok == 1 for batch in batches)
    begun = min(batch.submitted or np.inf for batch in batches)
    ended = max(batch.finished or 0.0 for batch in batches)
    return 3600 * len(batches) / (ended - begun)


def bare(folder: Path, workspace: Any, frames: list[Any], window: int) -> float:
    """Submit the same batches in a loop; return batches per hour."""
    from aiida.engine import submit

    from matcompute.campaign.dispatcher.nodes import process_states
    from matcompute.centres.registry import registered
    from matcompute.dataset import DatasetWriter, Metadata
    from matcompute_kernels import Batch
    from matcompute_workflows import ShardData, build_batch

    centre = registered(workspace, "local")
    shards = []
    for number, atoms in enumerate(frames):
        path = folder / f"shard-{number}.h5"
        with DatasetWriter(path, Metadata(title="rate"), overwrite=True) as writer:
            writer.append(Batch.from_atoms([atoms]))
        shards.append(path)
    task = {
        "task": "static",
        "parameters": {},
        "calculator": {"name": "emt", "parameters": {}},
        "stage": "static",
    }
    workspace.ensure_daemon()
    waiting = list(enumerate(shards))
    flying: set[str] = set()
    begun = time.perf_counter()
    while waiting or flying:
        while waiting and len(flying) < window:
            number, path = waiting.pop(0)
            flying.add(submit(build_batch(centre, ShardData(path), task, label=f"bare/{number}")).uuid)
        flying -= {uuid for uuid, (_, ended) in process_states(flying).items() if ended}
        time.sleep(0.1)
    return 3600 * len(frames) / (time.perf_counter() - begun)


def main() -> None:
    """Run both and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    options = parser.parse_args()
    from matcompute.centres.registry import load_centre
    from matcompute.workspace import Workspace

    with tempfile.TemporaryDirectory(prefix="dispatch-rate-") as name:
        folder = Path(name)
        frames = write_structures(folder / "structures.extxyz", options.count)
        (folder / "rate.yaml").write_text(CAMPAIGN)
        workspace = Workspace.create(folder / "workspace")
        try:
            window = load_centre(workspace, "local").window
            workspace.load_profile()
            first = bare(folder, workspace, frames[: max(4, options.count // 2)], window)
            rate = ours(folder, workspace)
            second = bare(folder, workspace, frames[: max(4, options.count // 2)], window)
        finally:
            from matcompute.campaign.dispatcher.launch import end_dispatcher

            end_dispatcher(workspace)
            workspace.stop_daemon()
    peer = (first + second) / 2
    print(
        json.dumps(
            {
                "benchmark": "dispatch_rate",
                "ratios": {"dispatch_rate": round(rate / peer, 3)},
                "peers": {"aiida.engine.submit": {"batches_per_hour": [round(first), round(second)]}},
                "ours": {"batches_per_hour": round(rate)},
                "batches": options.count,
                "window": window,
                "machine": machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
