"""Magpie's statistics against matminer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from matcompute_kernels import Batch, KernelInputError, feature_labels, magpie
from matcompute_kernels.tables import atomic_masses, electron_shells, element_table, xray_coefficients

PEERS = Path(__file__).parent / "data" / "screening_peers.npz"


def test_reference(reference: Path) -> None:
    with np.load(reference / "matminer_magpie.npz") as data:
        np.testing.assert_allclose(magpie(data["formulas"]), data["X"], rtol=1e-12)
        assert feature_labels("magpie") == data["labels"].tolist()


@pytest.mark.parametrize("impute", [True, False])
def test_peer(impute: bool) -> None:
    with np.load(PEERS) as data:
        expected = data[f"magpie_{int(impute)}"]
        ours = magpie(data["magpie_formulas"].tolist(), impute_nan=impute)
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_formula_structure_and_float32(small200: Batch) -> None:
    some = small200[:20]
    values = magpie(some)
    np.testing.assert_allclose(magpie(some.formulas()), values, rtol=1e-12, atol=1e-9)
    single = magpie(some, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, values, rtol=1e-6)
    assert magpie([]).shape == (0, 132)


def test_order_of_elements_does_not_matter() -> None:
    a, b, c = magpie(["Fe2O3", "O3Fe2", "FeO1.5"])
    np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(a, c, rtol=1e-13, atol=1e-13)


def test_bad_input() -> None:
    with pytest.raises(KernelInputError, match="structure 1") as error:
        magpie(["Fe2O3", "Fe2Qz"])
    assert error.value.index == 1
    with pytest.raises(KernelInputError, match="dtype"):
        magpie(["Fe"], dtype=np.int64)


def test_tables() -> None:
    names, table = element_table("magpie_elements.csv")
    assert len(names) == 22
    assert table[26, names.index("MeltingT")] == 1811
    assert atomic_masses()[8] == pytest.approx(15.9994, abs=1e-3)
    assert sum(n for _, _, n in electron_shells()[26]) == 26
    assert xray_coefficients().shape == (119, 8)
