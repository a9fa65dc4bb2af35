"""Nearest neighbours against scikit-learn's brute force: 10,000 × 252, k = 10."""

from __future__ import annotations

from _interleaved import compare, report, use_peers

if __name__ == "__main__":
    use_peers()
    import numpy as np
    from sklearn.neighbors import NearestNeighbors

    from matcompute_kernels import knn

    x = np.random.default_rng(0).normal(size=(10000, 252))
    peer = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(x)
    results = {"self": compare("k = 10", lambda: knn(x, 10), lambda: peer.kneighbors(), len(x), "rows")}
    report("knn", results, ["scikit-learn"])
