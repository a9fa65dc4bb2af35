"""Valle-Oganov fingerprint against dscribe on the 200 crystals.

The crystal of 4,096 atoms is left out: dscribe holds a dense distance matrix of the extended structure, gigabytes there
(estimated, not measured).
"""

from __future__ import annotations

from _interleaved import compare, report, small200, use_peers

if __name__ == "__main__":
    use_peers()
    from dscribe.descriptors import ValleOganov

    from matcompute_kernels import valle_oganov

    structures = small200()
    species = sorted({z for atoms in structures for z in atoms.numbers.tolist()})
    peer = ValleOganov(species=species, function="distance", n=100, sigma=0.05, r_cut=8.0)
    results = {
        "distance": compare(
            "distance, small200",
            lambda: valle_oganov(structures, species, n=100, sigma=0.05, r_cut=8.0),
            lambda: peer.create(structures),
            len(structures),
            "structures",
        )
    }
    report("valle_oganov", results, ["dscribe"])
