"""Numbers behind the portal's pictures, against independent computations; and small formatting rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import ConvexHull

from matcompute.server.portal.catalogue import Query, parse_elements, parse_number
from matcompute.server.portal.cite import Citation
from matcompute.server.portal.plots import (
    amounts,
    histogram,
    hull_diagram,
    lower_hull,
    spread,
    ternary_diagram,
)
from matcompute.server.portal.view import element_places, format_formula, format_number, format_size
from matcompute.server.portal.words import Words, preferred


@pytest.mark.parametrize("seed", range(20))
def test_lower_hull_is_that_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate([[0.0, 1.0], rng.integers(0, 13, 40) / 12])
    y = np.concatenate([[0.0, 0.0], rng.normal(-0.1, 0.2, 40)])
    hull = lower_hull(x, y)
    found = ConvexHull(np.column_stack([x, y]))
    # Facets whose normal points down make the lower hull.
    lower = np.unique(found.simplices[found.equations[:, 1] < -1e-12])
    assert set(hull) == set(lower)
    assert (np.diff(x[hull]) > 0).all()


def test_hull_diagram_of_a_binary() -> None:
    formulas = ["Al", "Ni", "AlNi", "AlNi3", "Al3Ni", "Cu", "AlCu"]
    energies = np.array([0.0, 0.0, -0.6, -0.2, np.nan, 0.0, -0.3])
    diagram = hull_diagram(("Al", "Ni"), formulas, energies)
    assert diagram.rows.tolist() == [0, 1, 2, 3]
    assert diagram.x.tolist() == [0.0, 1.0, 0.5, 0.75]
    assert [formulas[diagram.rows[k]] for k in diagram.hull] == ["Al", "AlNi", "Ni"]


@pytest.mark.parametrize("seed", range(8))
def test_the_ternary_hull_is_pymatgens(seed: int) -> None:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    rng = np.random.default_rng(seed)
    system = ("Al", "Cu", "Ni")
    counts = rng.integers(0, 4, (40, 3))
    counts[:3] = np.eye(3)
    counts = counts[counts.sum(axis=1) > 0]
    formulas = ["".join(f"{s}{n}" for s, n in zip(system, row) if n) for row in counts]
    energy = np.where((counts > 0).sum(axis=1) == 1, 0.0, rng.normal(-0.1, 0.3, len(counts)))
    diagram = ternary_diagram(system, [*formulas, "AlPd", "Ni"], np.append(energy, [-9.0, np.nan]))
    assert diagram.rows.tolist() == list(range(len(formulas)))
    entries = [PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in zip(formulas, energy)]
    phases = PhaseDiagram(entries)
    above = [phases.get_e_above_hull(entry) for entry in entries]
    np.testing.assert_allclose(diagram.above, above, atol=1e-9)
    # Lines end at stable phases, and no two of them cross but there.
    on_hull = diagram.above < 1e-9
    stable = {(round(x, 9), round(y, 9)) for x, y in zip(diagram.x[on_hull], diagram.y[on_hull])}
    assert {(round(x, 9), round(y, 9)) for x, y in diagram.lines.reshape(-1, 2)} <= stable
    # A triangulation of a triangle: each line but those of the sides belongs to two facets (Euler).
    ends = {tuple(p) for p in diagram.lines.reshape(-1, 2).round(9).tolist()}
    sides = sum(_on_one_side(*line) for line in diagram.lines)
    facets = (2 * len(diagram.lines) - sides) / 3
    assert len(ends) - len(diagram.lines) + facets == 1


def _on_one_side(a: float, b: float, c: float, d: float) -> bool:
    root = np.sqrt(3)
    distances = [(b, d), (root * a - b, root * c - d), (root * (1 - a) - b, root * (1 - c) - d)]
    return any(abs(p) < 1e-9 and abs(q) < 1e-9 for p, q in distances)


def test_a_ternary_without_compounds() -> None:
    diagram = ternary_diagram(("Al", "Cu", "Ni"), ["AlCuNi", "Al"], np.array([0.1, 0.0]))
    assert diagram.above.tolist() == [0.1, 0.0]
    assert len(diagram.lines) == 3
    assert ternary_diagram(("Al", "Cu", "Ni"), [], np.array([])).x.size == 0


@given(arrays(float, st.integers(0, 300), elements=st.floats(-1e6, 1e6)))
def test_histogram_counts_all(values: np.ndarray) -> None:
    found = histogram(values)
    assert found["count"] == sum(found["counts"]) == values.size
    if values.size:
        edges = np.array(found["edges"])
        assert (np.diff(edges) > 0).all()
        assert edges[0] <= values.min() + 1e-6 * abs(values.min())
        assert values.max() <= edges[-1] + 1e-6 * abs(values.max())
        assert 1 <= len(found["counts"]) <= 70
        assert found["median"] == np.median(values)


def test_histogram_leaves_out_what_is_no_number() -> None:
    assert histogram(np.array([np.nan, np.inf]))["count"] == 0
    assert histogram(np.array([1.0, np.nan, 1.0]))["counts"] == [2]


def test_spread_is_even_and_repeats() -> None:
    assert spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    chosen = spread(1_000_000, 4000)
    assert chosen.size == np.unique(chosen).size == 4000
    assert (chosen[0], chosen[-1]) == (0, 999_999)
    assert np.array_equal(chosen, spread(1_000_000, 4000))


def test_amounts() -> None:
    assert amounts("AlNi3") == {"Al": 1, "Ni": 3}
    assert amounts("C12H22O11") == {"C": 12, "H": 22, "O": 11}


@pytest.mark.parametrize(
    ("text", "found", "unknown"),
    [
        ("Al Ni", ("Al", "Ni"), []),
        ("al, ni", ("Al", "Ni"), []),
        ("Al-Ni", ("Al", "Ni"), []),
        ("铝 Ni", ("Ni",), ["铝"]),
        ("AlNi", ("Al", "Ni"), []),
        ("Al、Al", ("Al",), []),
        ("Co", ("Co",), []),
        ("CO", ("C", "O"), []),
        ("Xx", (), ["Xx"]),
        ("", (), []),
    ],
)
def test_elements_as_people_write_them(text: str, found: tuple[str, ...], unknown: list[str]) -> None:
    assert parse_elements(text) == (found, unknown)


def test_numbers_as_people_write_them() -> None:
    assert parse_number(" −1.5e-3 ") == -0.0015
    assert parse_number("") is None
    for wrong in ("abc", "nan", "inf", "1e999"):
        with pytest.raises(ValueError):
            parse_number(wrong)


def test_a_query_survives_its_address() -> None:
    from urllib.parse import parse_qs

    query = Query("a&b", ("advanced-steel",), ("Al", "Ni"), "density", -1.5, 2e9, 7)
    values = parse_qs(query.href(before=7)[1:])
    again, problems = Query.parse({k: v[0] for k, v in values.items()}, values["domain"])
    assert again == query
    assert problems == []


def test_formatting() -> None:
    assert format_number(1234567) == "1\u202f234\u202f567"
    assert format_number(-1.2e-7) == "−1.2×10⁻⁷"
    assert format_number(None) == format_number(float("nan")) == "–"
    assert format_size(999) == "999\u202fB"
    assert format_size(1_500_000) == "1.5\u202fMB"
    assert format_formula("Al2O3") == "Al<sub>2</sub>O<sub>3</sub>"
    assert format_formula("<b>2") == "&lt;b&gt;2"


def test_the_periodic_table_has_every_element_once() -> None:
    places = {symbol: (column, row) for symbol, column, row in element_places()}
    assert len(places) == len(set(places.values())) == 118
    known = {
        "H": (1, 1),
        "He": (18, 1),
        "B": (13, 2),
        "Fe": (8, 4),
        "La": (3, 8),
        "Lu": (17, 8),
        "Hf": (4, 6),
    }
    assert {s: places[s] for s in known} == known
    assert places["Og"] == (18, 7)


@pytest.mark.parametrize(
    ("header", "language"),
    [("en", "en"), ("zh-TW,zh;q=0.9,en;q=0.8", "zh"), ("de, en;q=0.3, zh;q=0.2", "en"), ("*;q=x,;;", "zh")],
)
def test_preferred_language(header: str, language: str) -> None:
    assert preferred(header) == language


def test_a_stage_stands_behind_the_name() -> None:
    assert Words("en").property("eos-2__bulk_modulus") == "Bulk modulus (eos-2)"
    assert Words("zh").property("my_number", "my long name") == "my long name"


def test_a_citation_prefers_the_doi() -> None:
    cite = Citation(
        dataset_id="1" * 8,
        version=2,
        title="T",
        created="2026-01-02T03:04:05Z",
        publisher="P",
        url="https://node.example/x",
        authors=("Li, W.", "Å. Berg"),
        doi="10.1234/abc",
    )
    assert (
        cite.to_text() == "Li, W.; Å. Berg (2026). T (version 2) [Data set]. P. https://doi.org/10.1234/abc"
    )
    assert "author = {{Li, W.} and {Å. Berg}}" in cite.to_bibtex()
    assert "DO  - 10.1234/abc" in cite.to_ris()
