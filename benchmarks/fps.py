"""Farthest-point sampling against skmatter: 200 picks of 20,000 × 252."""

from __future__ import annotations

from _interleaved import compare, report, use_peers

if __name__ == "__main__":
    use_peers()
    import numpy as np
    from skmatter.sample_selection import FPS

    from matcompute_kernels import fps

    rng = np.random.default_rng(0)
    clusters = rng.normal(size=(40, 252))[rng.integers(0, 40, 20000)]
    sets = {
        "normal": rng.normal(size=(20000, 252)),
        "decaying": rng.normal(size=(20000, 252)) * np.exp(-np.arange(252) / 10),
        "clusters": 3 * clusters + rng.normal(size=(20000, 252)) * np.exp(-np.arange(252) / 20),
        "three_dimensions": rng.uniform(size=(20000, 3)) @ rng.normal(size=(3, 252)),
    }
    results = {}
    for name, x in sets.items():
        results[name] = compare(
            name, lambda x=x: fps(x, 200), lambda x=x: FPS(n_to_select=200).fit(x), 200, "picks"
        )
    report("fps", results, ["skmatter"])
