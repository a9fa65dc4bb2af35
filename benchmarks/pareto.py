"""Pareto front of 5,000 items in three criteria against its definition in NumPy (no packaged peer)."""

from __future__ import annotations

from _interleaved import compare, report, use_peers

if __name__ == "__main__":
    use_peers()
    import numpy as np

    from matcompute_kernels import pareto_front

    x = np.random.default_rng(0).normal(size=(5000, 3))

    def definition() -> np.ndarray:
        return np.array([not np.any((x <= p).all(axis=1) & (x < p).any(axis=1)) for p in x])

    assert np.array_equal(definition(), pareto_front(x))
    results = {"three_criteria": compare("5,000 × 3", lambda: pareto_front(x), definition, 5000, "items")}
    report("pareto", results, ["numpy"])
