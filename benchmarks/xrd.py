"""Powder diffraction patterns against pymatgen; every fourth of the 200 crystals."""

from __future__ import annotations

from _interleaved import compare, report, small200, use_peers

if __name__ == "__main__":
    use_peers()
    from pymatgen.analysis.diffraction.xrd import XRDCalculator
    from pymatgen.io.ase import AseAtomsAdaptor

    from matcompute_kernels import xrd

    atoms = small200(4)
    structures = [AseAtomsAdaptor.get_structure(a) for a in atoms]
    peer = XRDCalculator()
    results = {
        "small200": compare(
            "Cu Kα, 0 … 90°",
            lambda: xrd(atoms),
            lambda: [peer.get_pattern(s) for s in structures],
            len(atoms),
            "structures",
        )
    }
    report("xrd", results, ["pymatgen"])
