from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pymatgen.core import Lattice, Structure

from matcompute_kernels import Batch


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    sizes = draw(st.lists(st.integers(0, 6), max_size=6))
    m, n = sum(sizes), len(sizes)
    floats = st.floats(-1e3, 1e3, width=64)
    return Batch(
        numbers=draw(hnp.arrays("u1", m, elements=st.integers(1, 118))),
        positions=draw(hnp.arrays("f8", (m, 3), elements=floats)),
        cell=draw(hnp.arrays("f8", (n, 3, 3), elements=floats)),
        pbc=draw(hnp.arrays(bool, (n, 3))),
        ptr=np.concatenate([[0], np.cumsum(sizes, dtype="i8")]),
    )


def same(a: Batch, b: Batch) -> bool:
    return all(
        np.array_equal(getattr(a, k), getattr(b, k)) for k in ("numbers", "positions", "cell", "pbc", "ptr")
    )


@given(batches())
@settings(max_examples=60, deadline=None)
def test_atoms_round_trip(batch: Batch) -> None:
    assert same(Batch.from_atoms(batch.iter_atoms()), batch)


@given(batches(), st.data())
@settings(max_examples=60, deadline=None)
def test_slices_and_index_arrays_agree_with_single_structures(batch: Batch, data: st.DataObject) -> None:
    n = len(batch)
    start, stop = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    singles = [batch[k] for k in range(start, stop)]
    assert same(batch[start:stop], Batch.concatenate(singles) if singles else batch[0:0])
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=8)) if n else [], dtype=int)
    expected = [batch.to_atoms(int(k)) for k in rows]
    assert same(batch[rows], Batch.from_atoms(expected))


def test_slices_share_memory() -> None:
    batch = Batch.from_atoms([bulk("Cu"), bulk("NaCl", "rocksalt", a=5.64), bulk("Al", cubic=True)])
    part = batch[1:3]
    for name in ("numbers", "positions", "cell", "pbc"):
        assert np.shares_memory(getattr(part, name), getattr(batch, name))
    assert part.ptr.tolist() == [0, 2, 6]


def test_step_negative_and_mask() -> None:
    batch = Batch.from_atoms([bulk(x) for x in ("Cu", "Al", "Ni", "Ag")])
    assert batch[::2].formulas() == ["Cu", "Ni"]
    assert batch[::-1].formulas() == ["Ag", "Ni", "Al", "Cu"]
    assert batch[-1].formulas() == ["Ag"]
    assert batch[np.array([True, False, False, True])].formulas() == ["Cu", "Ag"]
    with pytest.raises(IndexError):
        batch[4]
    with pytest.raises(IndexError, match="mask"):
        batch[np.array([True])]


def test_structures_round_trip() -> None:
    structure = Structure(
        Lattice.from_parameters(3, 4, 5, 80, 95, 100), ["Al", "Ni"], [[0, 0, 0], [0.5, 0.4, 0.3]]
    )
    back = next(Batch.from_structures([structure]).iter_structures())
    assert np.allclose(back.lattice.matrix, structure.lattice.matrix, atol=0)
    assert np.allclose(back.frac_coords, structure.frac_coords, atol=1e-12)
    assert [s.symbol for s in back.species] == ["Al", "Ni"]


def test_disordered_structure_is_refused() -> None:
    alloy = Structure(Lattice.cubic(4), [{"Al": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    with pytest.raises(ValueError, match="disordered"):
        Batch.from_structures([alloy])


def test_volumes_formulas_and_sites() -> None:
    batch = Batch.from_atoms(
        [bulk("Cu", cubic=True, a=3.6), molecule("H2O"), bulk("NaCl", "rocksalt", a=5.64)]
    )
    assert batch.volumes == pytest.approx([3.6**3, 0, 5.64**3 / 4])
    assert batch.formulas() == ["Cu", "H2O", "ClNa"]
    assert batch.n_sites.tolist() == [4, 3, 2]


def test_formula_is_pymatgens_in_alphabetical_order() -> None:
    from pymatgen.core import Composition

    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 40, size=200)
    ptr = np.concatenate([[0], np.cumsum(sizes)])
    numbers = rng.integers(1, 104, size=ptr[-1]).astype("u1")
    batch = Batch(numbers, np.zeros((ptr[-1], 3)), np.zeros((200, 3, 3)), np.zeros((200, 3), bool), ptr)
    for i, formula in enumerate(batch.formulas()):
        symbols = Composition.from_dict(
            dict(zip(*np.unique(numbers[ptr[i] : ptr[i + 1]], return_counts=True)))
        )
        amounts = {k.symbol: int(v) for k, v in symbols.items()}
        divisor = np.gcd.reduce(list(amounts.values()))
        expected = "".join(
            f"{s}{amounts[s] // divisor if amounts[s] > divisor else ''}" for s in sorted(amounts)
        )
        assert formula == expected


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"positions": np.zeros((2, 2))}, "positions"),
        ({"ptr": np.array([0, 3, 2])}, "ptr"),
        ({"ptr": np.array([0, 1])}, "cell"),
        ({"numbers": np.array([1, 200])}, "atomic numbers"),
    ],
)
def test_wrong_arrays_are_refused(change: dict[str, np.ndarray], text: str) -> None:
    arrays = {
        "numbers": np.array([1, 2]),
        "positions": np.zeros((2, 3)),
        "cell": np.zeros((2, 3, 3)),
        "pbc": np.zeros((2, 3), bool),
        "ptr": np.array([0, 1, 2]),
    }
    Batch(**arrays)
    with pytest.raises(ValueError, match=text):
        Batch(**(arrays | change))
