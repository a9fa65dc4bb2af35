"""The fit against its own formula, against ASE, and where it has to refuse."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.eos import EquationOfState
from ase.units import GPa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from matcompute.node.tasks.birch_murnaghan import FitError, fit_birch_murnaghan


def birch_murnaghan(v: np.ndarray, e0: float, v0: float, b0: float, b1: float) -> np.ndarray:
    """F. Birch, Phys. Rev. 71, 809 (1947), in its usual form; b0 in GPa."""
    x = (v0 / v) ** (2 / 3)
    return e0 + 9 * v0 * b0 * GPa / 16 * ((x - 1) ** 3 * b1 + (x - 1) ** 2 * (6 - 4 * x))


@settings(deadline=None, max_examples=60)
# B0' = 4: the cubic term vanishes, and one stationary point lies far out.
@example(e0=-620.7, v0=26.912, b0=500.0, b1=4.0, strain=0.02, shift=0.0)
@example(e0=0.0, v0=60.0, b0=500.0, b1=4.0, strain=0.02, shift=-0.5)
@given(
    e0=st.floats(-1e4, 10),
    v0=st.floats(5, 60),
    b0=st.floats(1, 500),
    b1=st.floats(2, 7),
    strain=st.floats(0.02, 0.12),
    shift=st.floats(-0.5, 0.5),
)
def test_recovers_its_parameters(
    e0: float, v0: float, b0: float, b1: float, strain: float, shift: float
) -> None:
    volumes = v0 * (1 + shift * strain) * np.linspace(1 - strain, 1 + strain, 9)
    fit = fit_birch_murnaghan(volumes, birch_murnaghan(volumes, e0, v0, b0, b1))
    # The depth of the well against the rounding of e0 limits what can be got back.
    noise = 1e-15 * max(abs(e0), 1) / (v0 * b0 * GPa * strain**2)
    assert fit.volume == pytest.approx(v0, rel=1e-9 + 100 * noise / strain)
    assert fit.bulk_modulus == pytest.approx(b0, rel=1e-7 + 1e3 * noise)
    assert fit.bulk_modulus_derivative == pytest.approx(b1, rel=1e-6 + 1e4 * noise / strain, abs=1e-5)
    assert fit.energy == pytest.approx(e0, abs=1e-10 * max(1, abs(e0)))
    assert fit.rms_error < 1e-10 * max(1, abs(e0))


@pytest.mark.parametrize(("symbol", "a"), [("Cu", 3.59), ("Al", 3.99), ("Ni", 3.49)])
def test_agrees_with_ase(symbol: str, a: float) -> None:
    volumes, energies = [], []
    for strain in np.linspace(0.98, 1.02, 9):
        atoms = bulk(symbol, "fcc", a=a * strain)
        atoms.calc = EMT()
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    v0, _, b0 = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    fit = fit_birch_murnaghan(np.array(volumes), np.array(energies))
    assert fit.volume == pytest.approx(v0, rel=1e-4)
    assert fit.bulk_modulus == pytest.approx(b0 / GPa, rel=5e-3)


def test_rms_error_is_that_of_the_residuals() -> None:
    volumes = np.linspace(15, 18, 7)
    energies = birch_murnaghan(volumes, -3.0, 16.5, 80.0, 4.5)
    noise = 1e-3 * np.array([1, -1, 1, -1, 1, -1, 1])
    assert 3e-4 < fit_birch_murnaghan(volumes, energies + noise).rms_error < 1e-3


@pytest.mark.parametrize("v0", [10.0, 14.0, 25.0])
def test_minimum_out_of_range(v0: float) -> None:
    volumes = np.linspace(15, 18, 7)
    with pytest.raises(FitError, match=r"outside|no minimum"):
        fit_birch_murnaghan(volumes, birch_murnaghan(volumes, 0.0, v0, 100.0, 4.0))


def test_curvature_of_the_wrong_sign() -> None:
    volumes = np.linspace(15, 18, 7)
    with pytest.raises(FitError):
        fit_birch_murnaghan(volumes, -birch_murnaghan(volumes, 0.0, 16.5, 100.0, 4.0))


def test_values_that_are_not_finite() -> None:
    volumes = np.linspace(15, 18, 7)
    with pytest.raises(FitError, match="finite"):
        fit_birch_murnaghan(volumes, np.full(7, np.nan))
