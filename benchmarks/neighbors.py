"""Neighbour lists: full list within 5 Å (pairs, shifts, distances; ours also vectors), against pymatgen and vesin."""

from __future__ import annotations

from _interleaved import big4096, compare, report, small200, use_peers

use_peers()

import numpy as np  # noqa: E402
import vesin  # noqa: E402
from pymatgen.optimization.neighbors import find_points_in_spheres  # noqa: E402

from matcompute_kernels import Batch, neighbor_list  # noqa: E402

R_CUT = 5.0
results = {}
for name, items in (("small200", small200()), ("big4096", big4096())):
    batch = Batch.from_atoms(items)
    arrays = [
        (a.positions.copy(), np.ascontiguousarray(a.cell.array), np.array([1, 1, 1], dtype=np.int64))
        for a in items
    ]
    boxes = [(a.positions.copy(), a.cell.array.copy()) for a in items]
    calculator = vesin.NeighborList(cutoff=R_CUT, full_list=True)

    def ours(batch: Batch = batch) -> None:
        neighbor_list(batch, R_CUT)

    def by_pymatgen(arrays: list = arrays) -> None:
        for positions, cell, pbc in arrays:
            find_points_in_spheres(positions, positions, R_CUT, pbc, cell, 1e-8)

    def by_vesin(boxes: list = boxes, calculator: vesin.NeighborList = calculator) -> None:
        for points, box in boxes:
            calculator.compute(points=points, box=box, periodic=True, quantities="ijSd", copy=True)

    pairs = len(neighbor_list(batch, R_CUT))
    assert sum(len(calculator.compute(points, box, True, "i")[0]) for points, box in boxes) == pairs
    results[f"{name} pymatgen"] = compare(f"{name}, pymatgen", ours, by_pymatgen, pairs, "pairs", rounds=9)
    results[f"{name} vesin"] = compare(f"{name}, vesin", ours, by_vesin, pairs, "pairs", rounds=9)

report("neighbors", results, ["pymatgen", "vesin"])
