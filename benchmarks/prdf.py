"""Partial radial distribution functions (20 Å, 0.1 Å) against matminer; every twentieth of the 200 crystals."""

from __future__ import annotations

from _interleaved import compare, report, small200, use_peers

if __name__ == "__main__":
    use_peers()
    from matminer.featurizers.structure import PartialRadialDistributionFunction
    from pymatgen.io.ase import AseAtomsAdaptor

    from matcompute_kernels import prdf

    structures = [AseAtomsAdaptor.get_structure(atoms) for atoms in small200(20)]
    peer = PartialRadialDistributionFunction(20.0, 0.1)
    peer.fit(structures)
    ours = lambda: prdf(structures, peer.elements_, 20.0, 0.1)  # noqa: E731
    results = {
        "20 Å": compare(
            "small200[::20]",
            ours,
            lambda: [peer.featurize(structure) for structure in structures],
            len(structures),
            "structures",
        )
    }
    report("prdf", results, ["matminer", "pymatgen"])
