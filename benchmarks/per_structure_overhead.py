"""How long a per-structure stage takes, against submitting the same builders to AiiDA directly.

Both run pw.x on the same trivial crystals, with the same builders, centre and core slots, each in a workspace of its
own with a daemon of its own. Ours is a campaign: structures become AiiDA nodes of the graph, every process is planned,
routed, watched, accounted for, its results written into a dataset with their provenance, its folders removed. Direct
is a loop that calls ``aiida.engine.submit`` for all of them, and then waits; it keeps nothing else.
Measured from the first submission to the last end (ours: until the last result is recorded).

Prints one JSON line; ``ratios.per_structure`` is direct/ours: 0.91 is 10 % more wall.
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

#: Coarse enough that AiiDA's own work is what takes the time.
CALCULATOR = {
    "protocol": "fast",
    "cutoff_wfc": 8 * 13.605693122994,
    "cutoff_rho": 32 * 13.605693122994,
    "kpoint_spacing": 3.0,
}
CAMPAIGN = """\
schema: matcompute.campaign/v1
name: overhead
title: trivial crystals
domain: frontier-materials
licence: CC0-1.0
contributors: [{{name: matcompute benchmark}}]
structures:
  - files: structures.extxyz
stages:
  - static: {{calculator: {calculator}}}
"""


def write_structures(folder: Path, count: int) -> list[Any]:
    """Write small distinct crystals."""
    import ase.io
    from ase.build import bulk

    frames = [bulk("Si", a=5.3 + 0.4 * k / count) for k in range(count)]
    ase.io.write(folder / "structures.extxyz", frames, format="extxyz")
    calculator = json.dumps({"name": "qe", **CALCULATOR})
    (folder / "overhead.yaml").write_text(CAMPAIGN.format(calculator=calculator))
    return frames


def ours(folder: Path, root: Path) -> tuple[float, float]:
    """Run the campaign; return the wall time of its stage and of the whole command in s."""
    from matcompute.campaign.state import State
    from matcompute.campaign.state.batches import batches_of
    from matcompute.campaign.state.campaigns import find

    program = str(Path(sys.executable).parent / "matcompute")
    subprocess.run([program, "init", str(root)], check=True, stdout=sys.stderr)
    subprocess.run(
        [program, "-w", str(root), "pseudo", "install", "debian-qe"], check=True, stdout=sys.stderr
    )
    command = [program, "-w", str(root), "campaign", "run", str(folder / "overhead.yaml"), "--no-progress"]
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr)
    whole = time.perf_counter() - begun
    with State(root / "state.sqlite") as state, state.read() as connection:
        batches = batches_of(connection, find(connection, "overhead").id)
    assert all(batch.state == "finished" and batch.n_ok == 1 for batch in batches)
    subprocess.run([program, "-w", str(root), "workspace", "stop"], check=True, stdout=sys.stderr)
    first = min(batch.submitted or np.inf for batch in batches)
    return max(batch.finished or 0.0 for batch in batches) - first, whole


def direct(folder: Path, root: Path, frames: list[Any]) -> float:
    """Submit the same builders in a loop, in a process of its own; return the wall time in s."""
    done = subprocess.run(
        [sys.executable, __file__, "--direct", str(root), str(folder / "structures.extxyz")],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(done.stdout.splitlines()[-1])


def submit_directly(root: Path, structures: Path) -> float:
    """Do it, and wait for the end."""
    import ase.io

    from matcompute.workspace import Workspace

    workspace = Workspace.create(root)
    workspace.load_profile()
    from aiida.engine import submit
    from aiida.orm import StructureData

    from matcompute.campaign.dispatcher.nodes import process_states
    from matcompute.campaign.dispatcher.structures import codes_for
    from matcompute.centres.registry import registered
    from matcompute_workflows.dft import Prepared
    from matcompute_workflows.dft.jobs import job_options_for
    from matcompute_workflows.dft.pseudos import install
    from matcompute_workflows.dft.qe import Qe

    install("debian-qe")
    centre = registered(workspace, "local")
    workspace.ensure_daemon()
    task, parameters = Qe.task("static").Parameters(), Qe.Parameters(**CALCULATOR)
    nodes = [StructureData(ase=atoms).store() for atoms in ase.io.read(structures, ":")]
    codes = codes_for(centre, Qe.plugins("static", task), centre.centre.partitions[0].name)
    begun = time.perf_counter()
    flying = set()
    for node in nodes:
        options = job_options_for(centre, partition=None, account=None, ranks=0)
        builder = Qe.builder(Prepared(node), "static", task, parameters, codes=codes, options=options)
        flying.add(submit(builder).uuid)
    while flying:
        flying -= {uuid for uuid, (_, ended) in process_states(flying).items() if ended}
        time.sleep(0.2)
    wall = time.perf_counter() - begun
    workspace.stop_daemon()
    return wall


def main() -> None:
    """Run both in turns and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument(
        "--once",
        action="store_true",
        help="direct only before ours, not after it too: two thirds of the time",
    )
    parser.add_argument(
        "--direct", nargs=2, type=Path, metavar=("ROOT", "STRUCTURES"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.direct:
        print(submit_directly(*options.direct))
        return
    with tempfile.TemporaryDirectory(prefix="per-structure-") as name:
        folder = Path(name)
        frames = write_structures(folder, options.count)
        before = direct(folder, folder / "direct-1", frames)
        mine, whole = ours(folder, folder / "ours")
        peers = [before] if options.once else [before, direct(folder, folder / "direct-2", frames)]
    peer = sum(peers) / len(peers)
    print(
        json.dumps(
            {
                "benchmark": "per_structure_overhead",
                "ratios": {"per_structure": round(peer / mine, 3)},
                "peers": {"aiida.engine.submit": {"wall_s": [round(wall, 1) for wall in peers]}},
                "ours": {"wall_s": round(mine, 1), "campaign_run_s": round(whole, 1)},
                "structures": options.count,
                "machine": machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
