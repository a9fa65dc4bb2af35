"""Many-body tensor representation, k = 2 and 3, against dscribe on the 200 crystals.

The crystal of 4,096 atoms is left out: dscribe holds a dense distance matrix of the extended structure, gigabytes there
(estimated, not measured).
"""

from __future__ import annotations

from _interleaved import compare, report, small200, use_peers

CASES = {
    "k2": (
        {"function": "inverse_distance"},
        {"min": 0, "max": 1, "n": 100, "sigma": 0.02},
        {"function": "exp", "r_cut": 8, "threshold": 1e-3},
    ),
    "k3": (
        {"function": "cosine"},
        {"min": -1, "max": 1, "n": 100, "sigma": 0.05},
        {"function": "exp", "r_cut": 6, "threshold": 1e-3},
    ),
}

if __name__ == "__main__":
    use_peers()
    from dscribe.descriptors import MBTR

    from matcompute_kernels import mbtr

    structures = small200()
    species = sorted({z for atoms in structures for z in atoms.numbers.tolist()})
    results = {}
    for name, (geometry, grid, weighting) in CASES.items():
        peer = MBTR(species=species, geometry=geometry, grid=grid, weighting=weighting, periodic=True)
        results[name] = compare(
            f"{name}, small200",
            lambda g=geometry, d=grid, w=weighting: mbtr(structures, species, g, d, w),
            lambda p=peer: p.create(structures),
            len(structures),
            "structures",
        )
    report("mbtr", results, ["dscribe"])
