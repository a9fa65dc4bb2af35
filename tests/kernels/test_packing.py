"""Density and packing against matminer's values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute_kernels import feature_labels, packing

PEERS = Path(__file__).parent / "data" / "screening_peers.npz"


def test_peer() -> None:
    with np.load(PEERS) as data:
        n = int(data["n"])
        ours = packing(
            [
                Atoms(data[f"numbers{k}"], data[f"positions{k}"], cell=data[f"cell{k}"], pbc=True)
                for k in range(n)
            ]
        )
        for k, row in enumerate(ours):
            np.testing.assert_allclose(row, data[f"packing{k}"], rtol=1e-8)
    assert len(feature_labels("packing")) == ours.shape[1] == 4


def test_close_packing() -> None:
    assert packing([bulk("Cu")])[0, 3] == pytest.approx(np.pi / np.sqrt(18))
    assert np.isnan(packing([bulk("Og", "fcc", 5.0)])[0, 2])
    assert packing([bulk("Cu")], dtype=np.float32).dtype == np.float32
