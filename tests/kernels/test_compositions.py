"""Compositions from formulas, mappings, structures and tables."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition

from matcompute_kernels import Batch, KernelInputError
from matcompute_kernels.compositions import Compositions, as_compositions
from matcompute_kernels.elements import SYMBOLS


def as_dicts(compositions: Compositions) -> list[dict[str, float]]:
    ptr = compositions.ptr
    return [
        dict(zip([SYMBOLS[z] for z in compositions.numbers[a:b]], compositions.amounts[a:b].tolist()))
        for a, b in pairwise(ptr)
    ]


@pytest.mark.parametrize(
    "formula",
    [
        "Fe2O3",
        "LiFePO4",
        "Ca(OH)2",
        "K2[PtCl6]",
        "(NH4)2SO4",
        "La0.7Sr0.3MnO3",
        "He",
        "Ca3(PO4)2(OH)",
        "C2H6C1",
    ],
)
def test_reads_formulas_as_pymatgen_does(formula: str) -> None:
    (ours,) = as_dicts(as_compositions([formula]))
    assert ours == pytest.approx(Composition(formula).get_el_amt_dict())


@given(
    st.lists(
        st.dictionaries(st.sampled_from(SYMBOLS[1:104]), st.integers(1, 99), min_size=1, max_size=6),
        min_size=1,
        max_size=8,
    )
)
def test_formula_and_mapping_agree(amounts: list[dict[str, int]]) -> None:
    formulas = ["".join(f"{s}{n}" for s, n in item.items()) for item in amounts]
    assert as_dicts(as_compositions(formulas)) == as_dicts(as_compositions(amounts)) == amounts


def test_other_forms() -> None:
    expected = [{"Na": 1.0, "Cl": 1.0}, {"Fe": 2.0}]
    batch = Batch.from_atoms([bulk("NaCl", "rocksalt", 5.6), bulk("Fe", cubic=True)])
    assert as_dicts(as_compositions(batch)) == expected
    assert as_dicts(as_compositions([Composition("NaCl"), Composition("Fe2")])) == expected
    table = np.zeros((2, 30))
    table[0, [10, 16]] = 1
    table[1, 25] = 2
    assert as_dicts(as_compositions(table)) == expected
    assert len(as_compositions([])) == 0


@pytest.mark.parametrize(
    ("bad", "index"),
    [
        (["Fe", "Xx2"], 1),
        (["Fe", "Fe2)", "O"], 1),
        (["(Fe"], 0),
        (["Fe", ""], 1),
        (["fe"], 0),
        (["Fe[O)"], 0),
        (["Fe2.", "Fe-1"], 1),
        (["Fé"], 0),
        ([{"Fe": 1}, {"Fe": -1}], 1),
        ([{"Fe": 1}, {"Qq": 1}], 1),
        ([{"Fe": 1}, {}], 1),
        ([{"Fe": 1}, "O("], 1),
        ([{"Fe": 1}, 7], 1),
    ],
)
def test_bad_input_names_its_index(bad: list, index: int) -> None:
    with pytest.raises(KernelInputError) as error:
        as_compositions(bad)
    assert error.value.index == index


def test_bad_table() -> None:
    with pytest.raises(KernelInputError, match="structure 1"):
        as_compositions(np.array([[1.0, 0.0], [0.0, 0.0]]))
