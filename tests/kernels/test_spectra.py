from __future__ import annotations

import numpy as np
import pytest

from matcompute_kernels import feature_labels, local_mbtr, mbtr, valle_oganov

SPECIES = ["H", "O", "F", "Na", "Mg", "Cl", "Ti", "Fe", "Zn", "K", "S", "Li"]
WEIGHTING = {"function": "exp", "r_cut": 3.5, "threshold": 1e-3}
GRID = {"min": -1, "max": 4, "sigma": 0.1, "n": 20}
CASES = {
    "k1": lambda b, **k: mbtr(b, SPECIES, "atomic_number", {**GRID, "max": 20, "sigma": 1}, **k),
    "k2": lambda b, **k: mbtr(b, SPECIES, "distance", GRID, WEIGHTING, **k),
    "k3": lambda b, **k: mbtr(b, SPECIES, "cosine", GRID, WEIGHTING, **k),
    "local k2": lambda b, **k: local_mbtr(b, SPECIES, "distance", GRID, WEIGHTING, **k),
    "local k3": lambda b, **k: local_mbtr(b, SPECIES, "cosine", GRID, WEIGHTING, **k),
}


@pytest.mark.parametrize("name", CASES)
def test_sparse_is_dense(crystal, name):
    function, batch = CASES[name], [crystal, crystal[[0]], crystal[[1, 3]], crystal]
    for normalization in ("none", "l2"):
        dense = function(batch, normalization=normalization)
        sparse = function(batch, normalization=normalization, sparse=True)
        assert sparse.shape == dense.shape
        assert len(sparse) == len(dense)
        np.testing.assert_array_equal(sparse.toarray(), dense)
        np.testing.assert_array_equal(sparse.tocsr().toarray(), dense)
    assert sparse.nbytes < dense.nbytes / (2 if name == "k1" else 3)
    row = sparse.row(0)
    labels = [label.rsplit(" ", 1)[0] for label in _labels(name)[:: GRID["n"]]]
    assert list(row) == [label for label in labels if label in row]
    assert sum(spectrum.sum() for spectrum in row.values()) == pytest.approx(dense[0].sum())
    assert function(batch, sparse=True, dtype="float32").values.dtype == np.float32


def _labels(name: str) -> list[str]:
    geometry = {"k1": "atomic_number", "k2": "distance", "k3": "cosine"}[name.split()[-1]]
    kernel = "local_mbtr" if name.startswith("local") else "mbtr"
    return feature_labels(kernel, species=SPECIES, geometry=geometry, grid=GRID)


def test_much_smaller_for_many_elements(crystal):
    sparse = mbtr(crystal, SPECIES, "cosine", GRID, WEIGHTING, sparse=True)
    assert 8 * sparse.nbytes < 936 * 20 * 8
    angles = valle_oganov(crystal, SPECIES, "angle", 20, 5.0, 3.5, sparse=True)
    np.testing.assert_array_equal(angles.toarray(), valle_oganov(crystal, SPECIES, "angle", 20, 5.0, 3.5))
