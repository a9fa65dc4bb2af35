"""Local many-body tensor representation against dscribe; every fortieth of the 200 crystals."""

from __future__ import annotations

from _interleaved import compare, report, small200, use_peers

WEIGHTING = {"function": "exp", "scale": 0.9, "threshold": 1e-2}
CASES = {
    "k2": ({"function": "distance"}, {"min": 0, "max": 6, "n": 50, "sigma": 0.1}),
    "k3": ({"function": "angle"}, {"min": 0, "max": 180, "n": 50, "sigma": 4}),
}

if __name__ == "__main__":
    use_peers()
    from dscribe.descriptors import LMBTR

    from matcompute_kernels import local_mbtr

    structures = small200(40)
    species = sorted({z for atoms in structures for z in atoms.numbers.tolist()})
    results = {}
    for name, (geometry, grid) in CASES.items():
        peer = LMBTR(species=species, geometry=geometry, grid=grid, weighting=WEIGHTING, periodic=True)
        results[name] = compare(
            f"{name}, small200[::40]",
            lambda g=geometry, d=grid: local_mbtr(structures, species, g, d, WEIGHTING),
            lambda p=peer: p.create(structures),
            sum(map(len, structures)),
            "atoms",
        )
    report("local_mbtr", results, ["dscribe"])
