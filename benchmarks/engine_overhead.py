"""What the engine costs: EMT relaxations by ``matcompute campaign run`` against the same calls in a bare process pool.

Both read one extxyz file of rattled fcc alloy supercells and use the same cores. The campaign is the whole command in a
fresh workspace: reading, screening, AiiDA daemon, batches, provenance, dataset. The bare loop is what one would write
without us: a :class:`multiprocessing.Pool` around ASE's optimiser that keeps nothing. The loop is timed before and
after the campaign and its mean is taken, since machines drift.

Prints one JSON line; ``ratios.engine_overhead`` is ours/bare.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# One thread a process on both sides, set before NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)

import numpy as np  # noqa: E402

from _machine import machine  # noqa: E402

FMAX, STEPS = 0.01, 500
CAMPAIGN = """\
schema: matcompute.campaign/v1
name: overhead
title: EMT relaxations of rattled fcc alloys
domain: advanced-nonferrous-metals
licence: CC0-1.0
contributors: [{{name: matcompute benchmark}}]
structures:
  - files: structures.extxyz
stages:
  - relax: {{calculator: emt, cell: false, fmax: {fmax} eV/angstrom, steps: {steps}}}
"""


def write_structures(path: Path, count: int, seed: int = 7) -> None:
    """Write rattled 3×3×3 fcc supercells (108 atoms) of random alloys."""
    import ase.io
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    species = np.array(["Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"])
    frames = []
    for _ in range(count):
        pair = rng.choice(species, size=2, replace=False)
        atoms = bulk("Cu", "fcc", a=4.0, cubic=True).repeat(3)
        atoms.symbols = rng.choice(pair, size=len(atoms))
        length = np.mean([bulk(symbol, cubic=True).cell[0, 0] for symbol in atoms.symbols])
        atoms.set_cell(atoms.cell * length / 4.0, scale_atoms=True)
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


def relax(atoms: object) -> tuple[float, float]:
    """Relax with ASE alone; return the energy in eV and the CPU time in s."""
    from ase.calculators.emt import EMT
    from ase.optimize import LBFGS

    begun = time.process_time()
    atoms.calc = EMT()  # type: ignore[attr-defined]
    LBFGS(atoms, logfile=None).run(fmax=FMAX, steps=STEPS)
    return float(atoms.get_potential_energy()), time.process_time() - begun  # type: ignore[attr-defined]


def bare(path: Path, cores: int) -> tuple[float, np.ndarray, float]:
    """Return wall time in s, energies in eV, and mean CPU time of a relaxation in s."""
    import ase.io

    begun = time.perf_counter()
    frames = ase.io.read(path, index=":")
    with multiprocessing.Pool(cores) as pool:
        found = pool.map(relax, frames, chunksize=4)
    wall = time.perf_counter() - begun
    return wall, np.array([e for e, _ in found]), float(np.mean([t for _, t in found]))


def campaign(folder: Path) -> tuple[float, float, np.ndarray]:
    """Return wall times of ``init`` and of ``campaign run`` in s, and energies in eV in the order of the file."""
    from matcompute.dataset import Dataset

    program = str(Path(sys.executable).parent / "matcompute")
    workspace = folder / "workspace"
    begun = time.perf_counter()
    subprocess.run([program, "init", str(workspace)], check=True, stdout=subprocess.DEVNULL)
    init = time.perf_counter() - begun
    try:
        begun = time.perf_counter()
        command = [
            program,
            "-w",
            str(workspace),
            "campaign",
            "run",
            str(folder / "overhead.yaml"),
            "--no-progress",
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)
        wall = time.perf_counter() - begun
    finally:
        subprocess.run(
            [program, "-w", str(workspace), "workspace", "stop"], check=False, stdout=subprocess.DEVNULL
        )
    with Dataset(workspace / "datasets" / "overhead.h5") as dataset:
        energies = np.asarray(dataset.column("energy"))
        # Entries are in the order of the file unless duplicates were dropped, and there are none.
        return (
            init,
            wall,
            energies[np.argsort(np.asarray(dataset.entry_column("source_line")), kind="stable")],
        )


def main() -> None:
    """Run both and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="Where to work (default: a temporary folder).")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="engine-overhead-", dir=options.folder) as name:
        folder = Path(name)
        write_structures(folder / "structures.extxyz", options.count)
        (folder / "overhead.yaml").write_text(CAMPAIGN.format(fmax=FMAX, steps=STEPS))
        before, expected, cpu = bare(folder / "structures.extxyz", cores)
        print(f"bare loop: {before:.1f} s, {cpu:.3f} s of CPU a relaxation", file=sys.stderr)
        init, ours, energies = campaign(folder)
        after, _, _ = bare(folder / "structures.extxyz", cores)
    loop = (before + after) / 2
    worst = float(np.abs(energies - expected).max())
    assert len(energies) == options.count
    assert worst <= 1e-10, f"energies differ by {worst} eV"
    print(
        json.dumps(
            {
                "benchmark": "engine_overhead",
                "ratios": {"engine_overhead": round(ours / loop, 4)},
                "peers": {"multiprocessing.Pool": {"wall_s": [round(before, 2), round(after, 2)]}},
                "ours": {"wall_s": round(ours, 2), "init_s": round(init, 2)},
                "relaxations": options.count,
                "cpu_s_per_relaxation": round(cpu, 4),
                "largest_energy_difference_eV": worst,
                "machine": machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
