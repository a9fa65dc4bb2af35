"""Sine matrix and its eigenspectrum against dscribe on the 200 crystals."""

from __future__ import annotations

from _interleaved import compare, report, small200, use_peers

if __name__ == "__main__":
    use_peers()
    from dscribe.descriptors import SineMatrix

    from matcompute_kernels import sine_matrix

    structures = small200()
    largest = max(map(len, structures))
    results = {}
    for permutation in ("none", "sorted_l2", "eigenspectrum"):
        peer = SineMatrix(n_atoms_max=largest, permutation=permutation)
        results[permutation] = compare(
            f"{permutation}, small200",
            lambda p=permutation: sine_matrix(structures, largest, p),
            lambda p=peer: p.create(structures),
            len(structures),
            "structures",
        )
    report("sine_matrix", results, ["dscribe"])
