"""REMatch against dscribe: 40 structures of 4 to 29 sites, 252 features."""

from __future__ import annotations

from _interleaved import compare, report, use_peers

if __name__ == "__main__":
    use_peers()
    import numpy as np
    from dscribe.kernels import REMatchKernel

    from matcompute_kernels import rematch

    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(rng.integers(4, 30), 252)) for _ in range(40)]
    sets = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in sets]
    results = {}
    for metric, gamma in (("linear", None), ("rbf", 0.5)):
        peer = REMatchKernel(metric=metric, gamma=gamma)
        results[metric] = compare(
            metric,
            lambda m=metric, g=gamma: rematch(sets, metric=m, gamma=g),
            lambda p=peer: p.create(sets),
            len(sets) * (len(sets) + 1) // 2,
            "pairs",
        )
    report("rematch", results, ["dscribe"])
