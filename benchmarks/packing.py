"""Density and packing features against matminer; every twentieth of the 200 crystals."""

from __future__ import annotations

from _interleaved import compare, report, small200, use_peers

if __name__ == "__main__":
    use_peers()
    from matminer.featurizers.structure.order import DensityFeatures, MaximumPackingEfficiency
    from pymatgen.io.ase import AseAtomsAdaptor

    from matcompute_kernels import packing

    atoms = small200(20)
    structures = [AseAtomsAdaptor.get_structure(a) for a in atoms]
    density, efficiency = DensityFeatures(), MaximumPackingEfficiency()
    results = {
        "small200": compare(
            "four features",
            lambda: packing(atoms),
            lambda: [density.featurize(s) + efficiency.featurize(s) for s in structures],
            len(atoms),
            "structures",
        )
    }
    report("packing", results, ["matminer"])
