"""Novelty against scikit-learn's brute force: 2,000 items, 10,000 known ones, 252 features."""

from __future__ import annotations

from _interleaved import compare, report, use_peers

if __name__ == "__main__":
    use_peers()
    import numpy as np
    from sklearn.neighbors import NearestNeighbors

    from matcompute_kernels import novelty

    rng = np.random.default_rng(0)
    known, new = rng.normal(size=(10000, 252)), rng.normal(size=(2000, 252))
    peer = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(known)
    results = {
        "nearest": compare(
            "nearest", lambda: novelty(new, known), lambda: peer.kneighbors(new), len(new), "items"
        )
    }
    report("novelty", results, ["scikit-learn"])
