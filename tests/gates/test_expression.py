"""Filter expressions: what they accept, what they refuse, and that units are honoured."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcompute.errors import InputError
from matcompute.gates.expression import Expression

UNITS = {"e_above_hull": "eV/atom", "bulk_modulus": "GPa", "density": "g/cm^3", "n_steps": "1"}
VALUES = {
    "e_above_hull": np.array([0.0, 0.1, np.nan]),
    "bulk_modulus": np.array([120.0, 200.0, 90.0]),
    "density": np.array([2.0, 3.0, 4.0]),
    "n_steps": np.array([3.0, 4.0, 5.0]),
}
ELEMENTS = np.zeros((3, 119), dtype=bool)
ELEMENTS[:, 13] = True
ELEMENTS[1, 28] = True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e_above_hull <= 0.05 eV/atom and bulk_modulus >= 100 GPa", [1, 0, 0]),
        ("e_above_hull<=50 meV/atom", [1, 0, 0]),
        ("bulk_modulus > 0.1 TPa", [1, 1, 0]),
        ("bulk_modulus > 1e11 Pa", [1, 1, 0]),
        ("bulk_modulus > 100", [1, 1, 0]),  # a bare number beside a column: the column's own unit
        ("1e-3 < e_above_hull", [0, 1, 0]),
        ("100 GPa < bulk_modulus < 150 GPa", [1, 0, 0]),
        ("bulk_modulus / density > 55 GPa*cm^3/g", [1, 1, 0]),
        ("bulk_modulus ** 2 > 1e4 GPa^2", [1, 1, 0]),
        ("bulk_modulus - 10 GPa > 9e1 GPa", [1, 1, 0]),
        ("not bulk_modulus > 100 GPa", [0, 0, 1]),
        ("bulk_modulus > 150 GPa or n_steps == 3", [1, 1, 0]),
        ("(bulk_modulus > 150 GPa or n_steps == 3) and density < 2.5 g/cm^3", [1, 0, 0]),
        ("-bulk_modulus < -100 GPa", [1, 1, 0]),
        ("abs(e_above_hull) < 1e-3 eV/atom", [1, 0, 0]),
        ("sqrt(n_steps) >= 2", [0, 1, 1]),
        ("has(Al, Ni)", [0, 1, 0]),
        ("not has(Ni) and bulk_modulus >= 90 GPa", [1, 0, 1]),
        ("bulk_modulus >= 100 GPa\n  and has(Al)", [1, 1, 0]),
    ],
)
def test_values(text: str, expected: list[int]) -> None:
    expression = Expression(text)
    expression.check(UNITS)
    assert expression.evaluate(VALUES, UNITS, ELEMENTS).tolist() == [bool(e) for e in expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("bulk_modulus >", "character 14"),
        ("bulk_modulus >= 100 GPaa", "unknown unit 'GPaa'"),
        ("bulk_modulus >= 100 eV", "units do not fit"),
        ("bulk_modulus + 3", "units do not fit"),
        ("bulk_modulus + 3 GPa", "not a condition"),
        ("2 * bulk_modulus > 100", "needs a unit"),
        ("e_above_hul < 1", "did you mean 'e_above_hull'"),
        ("sine(bulk_modulus) < 1", "unknown function 'sine'"),
        ("bulk_modulus and n_steps > 1", "need conditions"),
        ("has(Xx)", "not a chemical element"),
        ("__import__('os').system('true')", "cannot read the expression"),
        ("bulk_modulus.__class__ == 1", "cannot read the expression"),
        ("[x for x in y]", "cannot read the expression"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Expression(text).check(UNITS)


def test_columns() -> None:
    text = "relax__energy < 3 eV and not has(Al) or abs(bulk_modulus) > 3 GPa"
    assert Expression(text).columns == {"relax__energy", "bulk_modulus"}


@given(
    st.floats(1e-3, 1e3),
    st.sampled_from([("GPa", 1.0), ("MPa", 1e3), ("kbar", 10.0), ("eV/angstrom^3", 1 / 160.2176634)]),
)
def test_any_unit_of_pressure_gives_the_same_answer(limit: float, unit: tuple[str, float]) -> None:
    values = {"bulk_modulus": np.linspace(1e-3, 1.1e3, 57)}
    # Away from the limit by more than rounding.
    keep = np.abs(values["bulk_modulus"] / limit - 1) > 1e-9
    got = Expression(f"bulk_modulus >= {limit * unit[1]!r} {unit[0]}").evaluate(values, UNITS)
    assert (got == (values["bulk_modulus"] >= limit))[keep].all()


@given(st.text(max_size=40))
def test_no_text_does_more_than_raise_an_input_error(text: str) -> None:
    with contextlib.suppress(InputError):
        Expression(text).check(UNITS)
