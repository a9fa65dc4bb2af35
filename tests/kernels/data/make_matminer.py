"""Make matminer_rdf.npz: RDF and PRDF of matminer 0.10.1, in the format of make_dscribe.py.

Run in the environment that `make bench` makes (benchmarks/peers.txt): python tests/kernels/data/make_matminer.py
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
from ase.build import bulk
from matminer.featurizers.structure import PartialRadialDistributionFunction, RadialDistributionFunction
from pymatgen.io.ase import AseAtomsAdaptor


def main() -> None:
    warnings.filterwarnings("ignore")
    oxide = bulk("MgO", "rocksalt", a=4.213, cubic=True)
    oxide.symbols[0], oxide.symbols[3] = "Fe", "F"
    oxide.rattle(0.1, seed=3)
    skewed = bulk("NaCl", "rocksalt", a=5.637)
    strained = skewed.cell.array @ [[1.03, 0.02, 0.0], [0.05, 0.98, 0.04], [0.0, 0.06, 1.02]]
    skewed.set_cell(strained, scale_atoms=True)
    cases, arrays = [], {}
    for name, atoms in (("oxide", oxide), ("skewed", skewed)):
        structure = AseAtomsAdaptor.get_structure(atoms)
        for r_cut, bin_size in ((20.0, 0.1), (7.0, 0.3)):
            keywords = {"r_cut": r_cut, "bin_size": bin_size}
            arrays[f"case{len(cases)}"] = RadialDistributionFunction(r_cut, bin_size).featurize(structure)
            cases.append({"kernel": "rdf", "structure": name, "keywords": keywords})
            peer = PartialRadialDistributionFunction(r_cut, bin_size, include_elems=["S"]).fit([structure])
            arrays[f"case{len(cases)}"] = peer.featurize(structure)
            species = sorted(peer.elements_)
            cases.append({
                "kernel": "prdf", "structure": name, "keywords": {"species": species, **keywords},
                "labels": peer.feature_labels()[:: 7],
            })  # fmt: skip
        for key in ("numbers", "positions", "pbc"):
            arrays[f"{name}_{key}"] = getattr(atoms, key)
        arrays[f"{name}_cell"] = atoms.cell.array
    np.savez_compressed(
        Path(__file__).with_name("matminer_rdf.npz"), cases=np.array(json.dumps(cases)), **arrays
    )
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
