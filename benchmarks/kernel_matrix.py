"""Similarity matrices against the dgemm of the same matrices (252 features), scikit-learn and dscribe.

"blas" cases: x·yᵀ by NumPy is the peer, and the ratio is the fraction of its peak. With itself, half is computed, so
that the ratio may exceed 1.
"""

from __future__ import annotations

from _interleaved import compare, report, use_peers

if __name__ == "__main__":
    use_peers()
    import numpy as np
    from dscribe.kernels import AverageKernel
    from sklearn.metrics.pairwise import pairwise_kernels

    from matcompute_kernels import kernel_matrix

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, 252)), rng.normal(size=(3000, 252))
    few = x[:500]
    results = {}
    for kernel in ("linear", "polynomial", "rbf", "laplacian"):
        results[f"blas_{kernel}_itself"] = compare(
            f"{kernel} with itself, dgemm",
            lambda k=kernel: kernel_matrix(x, kernel=k),
            lambda: x @ y.T,
            len(x) ** 2,
            "pairs",
        )
        results[f"blas_{kernel}"] = compare(
            f"{kernel}, dgemm", lambda k=kernel: kernel_matrix(x, y, k), lambda: x @ y.T, len(x) ** 2, "pairs"
        )
        a, b = (few, few.copy()) if kernel == "laplacian" else (x, y)
        results[f"sklearn_{kernel}"] = compare(
            f"{kernel}, scikit-learn",
            lambda k=kernel, a=a, b=b: kernel_matrix(a, b, k),
            lambda k=kernel, a=a, b=b: pairwise_kernels(a, b, metric=k),
            len(a) ** 2,
            "pairs",
        )
    sets = [rng.normal(size=(rng.integers(4, 30), 252)) for _ in range(40)]
    for metric in ("linear", "rbf"):
        peer = AverageKernel(metric=metric)
        results[f"average_{metric}"] = compare(
            f"average {metric}, dscribe",
            lambda m=metric: kernel_matrix(sets, kernel="average", metric=m),
            lambda p=peer: p.create(sets),
            len(sets) * (len(sets) + 1) // 2,
            "pairs",
        )
    report("kernel_matrix", results, ["numpy", "scikit-learn", "dscribe"])
