"""Magpie's composition statistics against matminer, from formulas."""

from __future__ import annotations

from _interleaved import compare, report, use_peers

if __name__ == "__main__":
    use_peers()
    import numpy as np
    from matminer.featurizers.composition import ElementProperty
    from pymatgen.core import Composition, Element

    from matcompute_kernels import magpie

    rng = np.random.default_rng(0)
    elements = [Element.from_Z(z).symbol for z in range(1, 84)]
    formulas = [
        "".join(f"{e}{rng.integers(1, 12)}" for e in rng.choice(elements, rng.integers(1, 6), replace=False))
        for _ in range(500)
    ]
    peer = ElementProperty.from_preset("magpie")
    results = {
        "formulas": compare(
            "500 formulas",
            lambda: magpie(formulas),
            lambda: [peer.featurize(Composition(f)) for f in formulas],
            len(formulas),
            "formulas",
        )
    }
    report("magpie", results, ["matminer"])
