"""Ewald matrix and its eigenspectrum against dscribe on the 200 crystals."""

from __future__ import annotations

from _interleaved import compare, report, small200, use_peers

if __name__ == "__main__":
    use_peers()
    from dscribe.descriptors import EwaldSumMatrix

    from matcompute_kernels import ewald_matrix

    structures = small200()
    largest = max(map(len, structures))
    results = {}
    for permutation in ("none", "sorted_l2", "eigenspectrum"):
        peer = EwaldSumMatrix(n_atoms_max=largest, permutation=permutation)
        results[permutation] = compare(
            f"{permutation}, small200",
            lambda p=permutation: ewald_matrix(structures, largest, p),
            lambda p=peer: p.create(structures),
            len(structures),
            "structures",
        )
    report("ewald_matrix", results, ["dscribe"])
