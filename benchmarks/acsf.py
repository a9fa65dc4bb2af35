"""Atom-centred symmetry functions (11 G2, 12 G4) against dscribe."""

from __future__ import annotations

import json

from _interleaved import REFERENCE, big4096, compare, report, small200, use_peers

if __name__ == "__main__":
    use_peers()
    from dscribe.descriptors import ACSF

    from matcompute_kernels import acsf

    setting = json.loads((REFERENCE / "meta.json").read_text())["dscribe_acsf"]
    g2, g4 = setting["g2"], setting["g4"]
    results = {}
    for name, structures in (("small200", small200()), ("big4096", big4096())):
        species = sorted({z for atoms in structures for z in atoms.numbers.tolist()})
        peer = ACSF(species=species, r_cut=5.0, g2_params=g2, g4_params=g4, periodic=True)
        results[name] = compare(
            name,
            lambda s=structures, z=species: acsf(s, z, 5.0, g2=g2, g4=g4),
            lambda s=structures, p=peer: p.create(s),
            sum(map(len, structures)),
            "atoms",
        )
    report("acsf", results, ["dscribe"])
