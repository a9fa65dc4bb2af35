"""Energies above hull against pymatgen's PhaseDiagram and a plain linear programme."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from scipy.optimize import linprog

from matcompute_kernels import KernelInputError, energy_above_hull
from matcompute_kernels.screening.hull import hull


def entries(
    n: int, elements: list[str], parts: tuple[int, int], seed: int, low: float = -1.0, high: float = 0.5
) -> tuple[list[Composition], np.ndarray]:
    """Elemental references and n compounds of a random number of elements, total energies."""
    rng = np.random.default_rng(seed)
    compositions = [Composition({e: int(rng.integers(1, 4))}) for e in elements]
    energies = [c.num_atoms * rng.uniform(-5, -1) for c in compositions]
    reference = {e: x / c.num_atoms for e, c, x in zip(elements, compositions, energies)}
    for _ in range(n):
        chosen = rng.choice(elements, rng.integers(parts[0], parts[1] + 1), replace=False)
        c = Composition({e: int(rng.integers(1, 7)) for e in chosen})
        compositions.append(c)
        energies.append(sum(reference[e] * c[e] for e in chosen) + c.num_atoms * rng.uniform(low, high))
    return compositions, np.array(energies)


@pytest.mark.parametrize(
    ("n", "elements", "parts", "low", "high"),
    [
        (30, ["Li"], (1, 1), -1, 1),
        (60, ["Al", "Ni"], (1, 2), -1, 0.5),
        (300, ["Li", "Fe", "P", "O"], (1, 4), -1, 0.5),
        (300, ["Li", "Fe", "P", "O"], (2, 4), -1, -0.98),
        (100, ["Li", "Fe", "P", "O"], (2, 4), 0.1, 0.5),
        (80, ["Li", "Na", "Mg", "Al", "Si", "O"], (2, 6), -1, 0.2),
    ],
)
def test_agrees_with_pymatgen(n: int, elements: list[str], parts: tuple, low: float, high: float) -> None:
    compositions, energies = entries(n, elements, parts, n, low, high)
    peer = [PDEntry(c, e) for c, e in zip(compositions, energies)]
    diagram = PhaseDiagram(peer)
    result = hull(compositions, energies)
    expected = np.array([diagram.get_e_above_hull(e) for e in peer])
    np.testing.assert_allclose(result.e_above_hull, expected, rtol=0, atol=1e-10)
    formation = np.array([diagram.get_form_energy_per_atom(e) for e in peer])
    np.testing.assert_allclose(result.formation_energy, formation, rtol=0, atol=1e-10)
    stable = {(e.composition.reduced_formula, round(e.energy_per_atom, 9)) for e in diagram.stable_entries}
    ours = {
        (compositions[i].reduced_formula, round(energies[i] / compositions[i].num_atoms, 9))
        for i in np.flatnonzero(result.stable)
    }
    assert ours == stable
    for i in range(len(compositions)):  # the decomposition has the composition and the energy of the hull
        parts_of = result.decomposition(i)
        assert sum(parts_of.values()) == pytest.approx(1, abs=1e-7)
        mixed = sum(energies[j] / compositions[j].num_atoms * x for j, x in parts_of.items())
        own = energies[i] / compositions[i].num_atoms
        assert own - mixed == pytest.approx(expected[i], abs=1e-6)
        for element in elements:
            amount = sum(compositions[j].get_atomic_fraction(element) * x for j, x in parts_of.items())
            assert amount == pytest.approx(compositions[i].get_atomic_fraction(element), abs=1e-6)


def test_many_systems_of_twelve_elements() -> None:
    elements = ["Li", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ca", "Fe", "Ti", "O"]
    compositions, energies = entries(500, elements, (2, 4), 5)
    ours = energy_above_hull(compositions, energies)
    fractions = np.array([[c.get_atomic_fraction(e) for e in elements] for c in compositions]).T
    per_atom = energies / [c.num_atoms for c in compositions]
    for i in np.random.default_rng(0).choice(len(compositions), 40, replace=False):
        lowest = linprog(per_atom, A_eq=fractions, b_eq=fractions[:, i], method="highs").fun
        assert ours[i] == pytest.approx(per_atom[i] - lowest, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 25))
def test_degenerate_energies(seed: int, size: int, n: int) -> None:
    """Energies on a coarse grid: ties, points in a facet, duplicates."""
    rng = np.random.default_rng(seed)
    elements = ["Li", "Fe", "P", "O"][:size]
    compositions = [Composition(e) for e in elements]
    energies = [0.0] * size
    for _ in range(n):
        c = Composition({e: int(rng.integers(1, 4)) for e in elements[: rng.integers(1, size + 1)]})
        compositions.append(c)
        energies.append(float(rng.integers(-4, 3)) * 0.25 * (len(c) > 1) * c.num_atoms)
    ours = energy_above_hull(compositions, energies)
    fractions = np.array([[c.get_atomic_fraction(e) for e in elements] for c in compositions]).T
    per_atom = np.array(energies) / [c.num_atoms for c in compositions]
    for i in range(len(compositions)):
        lowest = linprog(per_atom, A_eq=fractions, b_eq=fractions[:, i], method="highs").fun
        assert ours[i] == pytest.approx(per_atom[i] - lowest, abs=1e-9)


def test_order_and_spelling_do_not_matter() -> None:
    compositions, energies = entries(60, ["Li", "Fe", "O"], (2, 3), 3)
    ours = energy_above_hull(compositions, energies)
    order = np.random.default_rng(1).permutation(len(compositions))
    shuffled = energy_above_hull([compositions[i] for i in order], energies[order])
    np.testing.assert_allclose(shuffled, ours[order], atol=1e-12)
    formulas = [c.formula.replace(" ", "") for c in compositions]
    np.testing.assert_allclose(energy_above_hull(formulas, energies), ours, atol=1e-12)
    per_atom = energies / [c.num_atoms for c in compositions]
    np.testing.assert_allclose(energy_above_hull(compositions, per_atom, per_atom=True), ours, atol=1e-12)
    table = np.array([[c.get_atomic_fraction(z) for z in ("Li", "O", "Fe")] for c in compositions])
    full = np.zeros((len(table), 26))
    full[:, [2, 7, 25]] = table
    np.testing.assert_allclose(energy_above_hull(full, per_atom), ours, atol=1e-12)


def test_references_join_the_hull() -> None:
    compositions, energies = entries(40, ["Al", "Ni"], (2, 2), 4)
    whole = energy_above_hull(compositions, energies)
    part = energy_above_hull(compositions[20:], energies[20:], references=(compositions[:20], energies[:20]))
    np.testing.assert_allclose(part, whole[20:], atol=1e-12)


def test_missing_reference() -> None:
    with pytest.raises(KernelInputError, match=r"structure 1: no entry of elemental O"):
        energy_above_hull(["Li", "Li2O", "LiFe"], [0, -1, -2])
    values = energy_above_hull(["Li", "Li2O", "Fe", "LiFe"], [0, -1, 0, -2], missing="nan")
    assert values[[0, 2, 3]].tolist() == [0, 0, 0]
    assert np.isnan(values[1])


def test_bad_input() -> None:
    with pytest.raises(KernelInputError, match="structure 1"):
        energy_above_hull(["Li", "Li2"], [0, np.nan])
    with pytest.raises(KernelInputError, match="energies"):
        energy_above_hull(["Li", "Li2"], [0])
    with pytest.raises(KernelInputError, match="energies"):
        energy_above_hull(["Li"], ["low"])
    with pytest.raises(KernelInputError, match="missing"):
        energy_above_hull(["Li"], [0], missing="skip")
    assert energy_above_hull([], []).shape == (0,)
