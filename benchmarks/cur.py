"""CUR selection against skmatter: 40 picks of 2,000 × 120."""

from __future__ import annotations

from _interleaved import compare, report, use_peers

if __name__ == "__main__":
    use_peers()
    import numpy as np
    from skmatter.sample_selection import CUR

    from matcompute_kernels import cur

    x = np.random.default_rng(0).normal(size=(2000, 120)) * np.exp(-np.arange(120) / 15)
    results = {"rows": compare("rows", lambda: cur(x, 40), lambda: CUR(n_to_select=40).fit(x), 40, "picks")}
    report("cur", results, ["skmatter"])
