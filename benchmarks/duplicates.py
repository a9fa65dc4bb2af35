"""Duplicate groups against pymatgen's StructureMatcher: the 200 crystals, and many variants of a few of them."""

from __future__ import annotations

from _interleaved import compare, report, small200, use_peers

if __name__ == "__main__":
    use_peers()
    import numpy as np
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    from matcompute_kernels import duplicate_groups

    rng = np.random.default_rng(0)
    variants = []
    for atoms in small200(20):
        for step in range(12):
            a = atoms.copy()
            a.rattle(0.02 * (step % 6), seed=step)
            a.set_cell(a.cell.array @ (np.eye(3) + 0.01 * rng.normal(size=(3, 3))), scale_atoms=True)
            a.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
            variants.append(a[rng.permutation(len(a))])
    results = {}
    for name, crystals in (("small200", small200()), ("variants", variants)):
        structures = [AseAtomsAdaptor.get_structure(a) for a in crystals]

        def peer(structures: list = structures) -> list:
            # fresh copies and no memory of the last round
            StructureMatcher._get_reduced_istructure.cache_clear()
            return StructureMatcher().group_structures(structures)

        results[name] = compare(
            name, lambda c=crystals: duplicate_groups(c), peer, len(crystals), "structures"
        )
    report("duplicates", results, ["pymatgen"])
