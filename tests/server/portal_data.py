"""A small real dataset for the portal: alloys by EMT, with formation energies and distances to the hull."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from matcompute.dataset import (
    Dataset,
    DatasetWriter,
    Metadata,
    Method,
    ProcessRecord,
    Provenance,
    Quality,
    Source,
    Status,
    uuid_array,
)
from matcompute.gates.hull import hull_columns
from matcompute_kernels import Batch

METALS = ("Al", "Cu", "Ni", "Pd")
SOURCE, INGEST, SHARD, RELAX, RESULT = (f"00000000-0000-4000-8000-{k:012d}" for k in range(1, 6))


def alloys(metals: tuple[str, ...] = METALS) -> list[Atoms]:
    """Return the elements, L1_0, L1_2 (both ways) and B2 of every pair, and the first three shared out over L1_0."""
    lattice = {s: bulk(s).cell.volume * 4 for s in metals}
    found = [bulk(s, cubic=True) for s in metals]

    def on_fcc(*symbols: str) -> Atoms:
        edge = np.mean([lattice[s] for s in symbols]) ** (1 / 3)
        sites = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
        return Atoms(symbols, scaled_positions=sites, cell=[edge] * 3, pbc=True)

    if len(metals) > 2:
        found += [on_fcc(a, a, *(b for b in metals[:3] if b != a)) for a in metals[:3]]
    for a, b in combinations(metals, 2):
        found += [on_fcc(a, b, b, b), on_fcc(b, a, a, a), on_fcc(a, a, b, b)]
        edge = np.mean([lattice[a], lattice[b]]) ** (1 / 3) * 0.5 ** (1 / 3)
        found.append(Atoms([a, b], scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[edge] * 3, pbc=True))
    return found


def relax(atoms: Atoms) -> tuple[float, float]:
    """Relax cell and sites; return energy (eV) and bulk modulus (GPa, from three energies around the minimum)."""
    atoms.calc = EMT()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=60)
    energy, volume, step = atoms.get_potential_energy(), atoms.get_volume(), 0.02
    energies = []
    for factor in (1 - step, 1 + step):
        other = atoms.copy()
        other.set_cell(atoms.cell * factor ** (1 / 3), scale_atoms=True)
        other.calc = EMT()
        energies.append(other.get_potential_energy())
    curvature = (energies[0] - 2 * energy + energies[1]) / (step * volume) ** 2
    return float(energy), float(volume * curvature * 160.21766)


def write_alloys(path: Path, metals: tuple[str, ...] = METALS, **metadata: Any) -> None:
    """Write the relaxed alloys as a dataset file."""
    frames = alloys(metals)
    numbers = [relax(atoms) for atoms in frames]
    n = len(frames)
    sizes = [len(a) for a in frames]
    batch = Batch(
        np.concatenate([a.numbers for a in frames]).astype("u1"),
        np.concatenate([a.positions for a in frames]),
        np.array([a.cell.array for a in frames]),
        np.ones((n, 3), bool),
        np.concatenate([[0], np.cumsum(sizes)]),
    )
    energy = np.array([e for e, _ in numbers])
    results = {
        "energy": energy,
        "energy_per_atom": energy / sizes,
        "volume_per_atom": np.array([a.get_volume() for a in frames]) / sizes,
        "bulk_modulus": np.array([b for _, b in numbers]),
        "stress": np.array([a.get_stress() for a in frames]) * 160.21766,
    }
    status = np.full(n, Status.OK, dtype="u1")
    facts = {
        "title": "Al–Cu–Ni–Pd 合金（EMT）",
        "description": "EMT 势下弛豫的二元合金（L1₀、L1₂、B2）。Binary alloys in L1₀, L1₂ and B2, relaxed with EMT.",
        "domain": "advanced-nonferrous-metals",
        "license": "CC-BY-4.0",
        "campaign": "emt-alloys",
        "campaign_uuid": "00000000-0000-4000-8000-0000000000aa",
    } | metadata
    plain = path.with_suffix(".plain.h5")
    for target in (plain, path):
        with DatasetWriter(target, Metadata(**facts)) as writer:
            method = writer.add_method(Method("emt", code="ase", code_version="3.29.0", centre="local"))
            source = writer.add_source(Source("structures.extxyz", "ab" * 32, SOURCE))
            records = (
                ProcessRecord(
                    INGEST, "ingest", inputs=(("source", SOURCE),), outputs=(("structures", SHARD),)
                ),
                ProcessRecord(
                    RELAX,
                    "relax",
                    "matcompute.batch",
                    inputs=(("structures", SHARD),),
                    outputs=(("results", RESULT),),
                    code="matcompute-node",
                    code_version="0.1.0",
                    computer="local",
                    method_index=method,
                ),
            )
            writer.set_provenance(Provenance(records))
            writer.append(
                batch,
                results=results,
                status=dict.fromkeys(results, status),
                process=dict.fromkeys(results, np.full(n, 1)),
                entry={
                    "source_index": np.full(n, source),
                    "source_line": np.cumsum([0, *(s + 2 for s in sizes[:-1])]) + 1,
                    "method_index": np.full(n, method),
                    "node_uuid": np.repeat(uuid_array([SHARD]), n, axis=0),
                    "quality": np.full(n, Quality.CONVERGED),
                    "attempt": np.ones(n),
                },
            )
            if "e_above_hull" in results:
                writer.set_selection(
                    "stable",
                    results["e_above_hull"] <= 0.02,
                    expression="e_above_hull <= 0.02",
                    inputs=["e_above_hull"],
                )
        if target == plain:
            with Dataset(plain) as dataset:
                above, formation, _, _ = hull_columns(dataset, energy, np.ones(n, bool))
            results |= {"e_above_hull": above, "formation_energy": formation}
    plain.unlink()
