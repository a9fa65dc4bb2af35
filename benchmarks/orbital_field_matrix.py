"""Orbital field matrix against matminer; every fortieth of the 200 crystals."""

from __future__ import annotations

from _interleaved import compare, report, small200, use_peers

if __name__ == "__main__":
    use_peers()
    from matminer.featurizers.structure.matrix import OrbitalFieldMatrix
    from pymatgen.io.ase import AseAtomsAdaptor

    from matcompute_kernels import orbital_field_matrix

    atoms = small200(40)
    structures = [AseAtomsAdaptor.get_structure(a) for a in atoms]
    peer = OrbitalFieldMatrix()
    results = {
        "small200": compare(
            "mean matrix",
            lambda: orbital_field_matrix(atoms),
            lambda: [peer.featurize(s) for s in structures],
            len(atoms),
            "structures",
        )
    }
    report("orbital_field_matrix", results, ["matminer"])
