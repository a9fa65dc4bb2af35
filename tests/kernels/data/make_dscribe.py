"""Make dscribe_other.npz: outputs of dscribe 2.1.2 at other structures and settings than the reference data.

Run in the environment that `make bench` makes (benchmarks/peers.txt): python tests/kernels/data/make_dscribe.py
The file holds the structures (numbers, positions, cell, pbc by name), a JSON list of cases (kernel, structure, our
keywords) and the peer's array of each case.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from ase import Atoms
from dscribe.descriptors import ACSF, LMBTR, MBTR, CoulombMatrix, EwaldSumMatrix, SineMatrix, ValleOganov

SPECIES = ["O", "Na", "Cl"]
CELL = [[4.1, 0.3, -0.5], [1.2, 3.9, 0.4], [-0.8, 0.9, 4.5]]


def structures() -> dict[str, Atoms]:
    rng = np.random.default_rng(1)
    # Not closer than 1.2 Å: random points on a grid of 2 Å, moved by up to 0.4 Å.
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    positions = 2.0 * corners[rng.permutation(8)[:5]] + rng.uniform(-0.4, 0.4, (5, 3))
    triclinic = Atoms("NaClNaOO", positions=positions, cell=CELL, pbc=True)
    slab = triclinic.copy()
    slab.pbc = [True, False, True]
    molecule = Atoms("NaClNaOO", positions=positions)
    return {"triclinic": triclinic, "slab": slab, "molecule": molecule}


def grid(function: str) -> dict:
    return {
        "distance": {"min": 0.5, "max": 5.0, "n": 30, "sigma": 0.1},
        "inverse_distance": {"min": 0.1, "max": 0.8, "n": 30, "sigma": 0.01},
        "cosine": {"min": -1.0, "max": 1.0, "n": 25, "sigma": 0.04},
        "angle": {"min": 0.0, "max": 180.0, "n": 25, "sigma": 5.0},
        "atomic_number": {"min": 0.0, "max": 20.0, "n": 15, "sigma": 0.3},
    }[function]


def main() -> None:
    made, cases, arrays = structures(), [], {}

    def add(kernel: str, structure: str, array: np.ndarray, **keywords: object) -> None:
        arrays[f"case{len(cases)}"] = np.asarray(array)
        cases.append({"kernel": kernel, "structure": structure, "keywords": keywords})

    exponential = {"function": "exp", "r_cut": 4.5, "threshold": 1e-3}
    scaled = {"function": "exp", "scale": 0.5, "threshold": 1e-2}
    square = {"function": "inverse_square", "r_cut": 5.0}
    cutoff = {"function": "smooth_cutoff", "r_cut": 3.5}
    sharp = {"function": "smooth_cutoff", "r_cut": 3.5, "sharpness": 3}
    periodic_terms = [
        ("atomic_number", None), ("distance", exponential), ("inverse_distance", scaled), ("distance", square),
        ("cosine", exponential), ("angle", scaled), ("cosine", cutoff), ("cosine", sharp),
    ]  # fmt: skip
    for name, atoms in made.items():
        periodic = name != "molecule"
        terms = periodic_terms + (
            [("distance", {"function": "unity"}), ("angle", None)] if not periodic else []
        )
        for function, weighting in terms:
            setting = {"geometry": {"function": function}, "grid": grid(function), "weighting": weighting}
            for normalization in ("none", "l2", "n_atoms", "valle_oganov"):
                if normalization == "valle_oganov" and name != "triclinic":
                    continue
                if normalization in ("l2", "n_atoms") and name == "slab":
                    continue
                extra = {"normalization": normalization, "normalize_gaussians": normalization != "n_atoms"}
                peer = MBTR(species=SPECIES, periodic=periodic, **setting, **extra)
                add("mbtr", name, peer.create(atoms), species=SPECIES, **setting, **extra)
        for function, weighting in terms:
            if function == "atomic_number" or (
                weighting and ("r_cut" in weighting or weighting["function"] not in ("exp", "unity"))
            ):
                continue
            setting = {"geometry": {"function": function}, "grid": grid(function), "weighting": weighting}
            for normalization in ("none", "l2"):
                extra = {"normalization": normalization, "normalize_gaussians": normalization == "none"}
                peer = LMBTR(species=SPECIES, periodic=periodic, **setting, **extra)
                add("local_mbtr", name, peer.create(atoms), species=SPECIES, **setting, **extra)
        if name in ("slab", "triclinic"):
            setting = {"geometry": {"function": "cosine"}, "grid": grid("cosine"), "weighting": scaled}
            peer = LMBTR(species=SPECIES, periodic=True, **setting)
            add("local_mbtr", name, peer.create(atoms), species=SPECIES, **setting)
        acsf = {
            "g2": [[0.5, 1.0], [1.0, 0.0]], "g3": [1.0, 0.3],
            "g4": [[0.01, 1, -1], [0.02, 2.5, 1], [0.1, 7, 0.5], [0.1, 8, 1]], "g5": [[0.03, 3, -1], [0.1, 16, 1]],
        }  # fmt: skip
        for chosen in (["g2"], ["g3"], ["g4"], ["g5"], list(acsf)):
            peer = ACSF(
                species=SPECIES, r_cut=4.3, periodic=periodic, **{f"{k}_params": acsf[k] for k in chosen}
            )
            add("acsf", name, peer.create(atoms), species=SPECIES, r_cut=4.3, **{k: acsf[k] for k in chosen})
    atoms = made["triclinic"]
    for function, sigma in (("distance", 0.1), ("angle", 4.0)):
        keywords = {"function": function, "n": 40, "sigma": sigma, "r_cut": 5.0}
        add(
            "valle_oganov",
            "triclinic",
            ValleOganov(species=SPECIES, **keywords).create(atoms),
            species=SPECIES,
            **keywords,
        )
    for permutation in ("none", "sorted_l2", "eigenspectrum"):
        shape = {"n_atoms_max": 7, "permutation": permutation}
        add("coulomb_matrix", "molecule", CoulombMatrix(**shape).create(made["molecule"]), **shape)
        add("sine_matrix", "triclinic", SineMatrix(**shape).create(atoms), **shape)
        for sums in (
            {},
            {"accuracy": 1e-8, "w": 2.0},
            {"r_cut": 9.0, "g_cut": 6.0, "a": 0.6},
            {"a": 0.7, "accuracy": 1e-10},
        ):
            add("ewald_matrix", "triclinic", EwaldSumMatrix(**shape).create(atoms, **sums), **shape, **sums)
    for name, atoms in made.items():
        for key in ("numbers", "positions", "pbc"):
            arrays[f"{name}_{key}"] = getattr(atoms, key)
        arrays[f"{name}_cell"] = atoms.cell.array
    np.savez_compressed(
        Path(__file__).with_name("dscribe_other.npz"), cases=np.array(json.dumps(cases)), **arrays
    )
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
