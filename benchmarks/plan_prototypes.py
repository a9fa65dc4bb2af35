"""Planning 10⁵ decorated prototypes, against decorating them one by one with ASE and with pymatgen.

Ours reads the campaign file, decorates, screens for overlaps, hashes, dedupes and estimates every stage; the peers only
decorate (element substitution and volume), on a sample. The plan must stay below 60 s and 1 GB.

    python benchmarks/plan_prototypes.py --out benchmarks/results/plan_prototypes.json
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from _machine import machine

TEXT = """\
schema: matcompute.campaign/v1
name: plan-prototypes
title: Many prototypes
domain: frontier-materials
licence: CC0-1.0
contributors: [{{name: benchmark}}]
structures:
  - prototypes: [perovskite, half-Heusler, full-Heusler]
    elements: [transition-metals, alkali-metals, alkaline-earth-metals, chalcogens]
    limit: {n}
stages:
  - relax: {{calculator: chgnet}}
  - hull: {{max: 0.1}}
  - eos: {{calculator: chgnet}}
"""


def ours(n: int) -> dict[str, float]:
    from matcompute.campaign.model import Campaign
    from matcompute.campaign.plan import plan

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_text(TEXT.format(n=n))
        start = time.perf_counter()
        made = plan(Campaign.load(path))
        seconds = time.perf_counter() - start
    assert made.structures.n_read == n
    return {
        "seconds": seconds,
        "max_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "kept": made.structures.n_kept,
    }


def choices(n: int) -> list[tuple[str, str, str]]:
    from itertools import islice, permutations

    from matcompute.structures.elements import expand_elements

    elements = expand_elements(["transition-metals", "alkali-metals", "alkaline-earth-metals", "chalcogens"])
    return list(islice(permutations(elements, 3), n))


def with_ase(chosen: list[tuple[str, str, str]]) -> float:
    from ase.data import atomic_numbers
    from ase.spacegroup import crystal

    from matcompute.structures.elements import atomic_volumes

    volumes = atomic_volumes()
    mother = crystal(
        ["Ca", "Ti", "O"], [(0.5,) * 3, (0,) * 3, (0.5, 0, 0)], spacegroup=221, cellpar=[4, 4, 4, 90, 90, 90]
    )
    start = time.perf_counter()
    for symbols in chosen:
        numbers = [atomic_numbers[s] for s in symbols]
        atoms = mother.copy()
        atoms.numbers[:] = [numbers[0], numbers[1], numbers[2], numbers[2], numbers[2]]
        scale = (volumes[atoms.numbers].sum() / 64.0) ** (1 / 3)
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
    return time.perf_counter() - start


def with_pymatgen(chosen: list[tuple[str, str, str]]) -> float:
    from ase.data import atomic_numbers
    from pymatgen.core import Lattice, Structure

    from matcompute.structures.elements import atomic_volumes

    volumes = atomic_volumes()
    coords = [[0.5] * 3, [0] * 3, [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    mother = Structure(Lattice.cubic(4), ["Ca", "Ti", "O", "O", "O"], coords)
    start = time.perf_counter()
    for a, b, x in chosen:
        structure = mother.copy()
        structure.replace_species({"Ca": a, "Ti": b, "O": x})
        structure.scale_lattice(sum(volumes[atomic_numbers[s]] for s in (a, b, x, x, x)))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    ours(
        1000
    )  # compiled kernels come from Numba's cache in a user's second call; both are wanted: this one warms
    found = ours(arguments.structures)
    each = found["seconds"] / arguments.structures
    chosen = choices(arguments.sample)
    peers = {"ase": with_ase(chosen) / len(chosen), "pymatgen": with_pymatgen(chosen) / len(chosen)}
    line = {
        "benchmark": "plan_prototypes",
        "ratios": {name: round(seconds / each, 2) for name, seconds in peers.items()},
        "peers": {name: version(name) for name in peers},
        "seconds": round(found["seconds"], 2),
        "max_rss_gb": round(found["max_rss_gb"], 3),
        "structures": arguments.structures,
        "kept": found["kept"],
        "limits": {"seconds": 60, "max_rss_gb": 1.0},
        "within_limits": bool(found["seconds"] < 60 and found["max_rss_gb"] < 1),
        "machine": machine(),
    }
    text = json.dumps(line)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
