"""Tasks on real calculators."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.eos import EquationOfState as EOS
from ase.eos import calculate_eos
from ase.units import GPa
from pydantic import ValidationError

from matcompute.dataset import Status
from matcompute.node.adapters import NoDeadline, TaskResult
from matcompute.node.tasks.eos import EOSParameters, EquationOfState
from matcompute.node.tasks.relax import Relax, RelaxParameters
from matcompute.node.tasks.static import Static, StaticParameters


def relax(atoms: Atoms, **parameters: object) -> TaskResult:
    return Relax.run(atoms, EMT(), RelaxParameters(**parameters), NoDeadline())  # type: ignore[arg-type]


def test_static_is_what_ase_says() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    result = Static.run(atoms.copy(), EMT(), StaticParameters(), NoDeadline())
    atoms.calc = EMT()
    assert result.status == Status.OK
    assert result.values["energy"] == atoms.get_potential_energy()
    assert result.values["energy_per_atom"] == atoms.get_potential_energy() / 4
    np.testing.assert_array_equal(result.site_values["forces"], atoms.get_forces())
    np.testing.assert_allclose(result.values["stress"], atoms.get_stress() / GPa)
    assert set(result.values) | set(result.site_values) == set(Static.output_names(StaticParameters()))


def test_static_refuses_monstrous_forces() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    result = Static.run(atoms, EMT(), StaticParameters(max_force_limit=0.1), NoDeadline())
    assert result.status == Status.EXPLODED
    assert "largest force" in result.message
    assert not result.values


@pytest.mark.parametrize("optimizer", ["FIRE", "FIRE2", "LBFGS", "BFGS", "BFGSLineSearch", "LBFGSLineSearch"])
def test_every_optimizer_finds_the_lattice_constant(optimizer: str) -> None:
    result = relax(bulk("Cu", a=3.75), fmax=0.005, optimizer=optimizer)
    assert result.status == Status.OK
    assert result.atoms is not None
    # ASE's EMT copper: 3.59 Å.
    assert (4 * result.atoms.get_volume()) ** (1 / 3) == pytest.approx(3.59, abs=0.01)
    assert np.abs(result.values["stress"]).max() < 1.0


def test_positions_only_keeps_the_cell() -> None:
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.rattle(0.05, seed=2)
    cell = atoms.cell.array.copy()
    result = relax(atoms, cell=False, fmax=0.01)
    assert result.status == Status.OK
    assert result.atoms is not None
    np.testing.assert_array_equal(result.atoms.cell.array, cell)
    assert result.values["max_force"] <= 0.01


def test_pressure_is_reached() -> None:
    result = relax(bulk("Cu", a=3.6), fmax=0.001, pressure=10.0)
    # Tension is positive: a compressed crystal has negative stress.
    np.testing.assert_allclose(result.values["stress"][:3], -10.0, atol=0.1)


def test_symmetry_is_kept_on_request() -> None:
    spglib = pytest.importorskip("spglib")
    atoms = bulk("Cu", a=3.8, cubic=True)
    atoms.numbers[0] = 47
    atoms.positions += np.random.default_rng(3).normal(scale=2e-3, size=(4, 3))

    def group(a: Atoms) -> int:
        cell = (a.cell.array, a.get_scaled_positions(), a.numbers)
        return int(spglib.get_symmetry_dataset(cell, symprec=1e-5).number)

    assert group(atoms) == 1
    kept = relax(atoms.copy(), keep_symmetry=True, symprec=0.05, fmax=0.01)
    free = relax(atoms.copy(), fmax=0.05)
    assert kept.status == Status.OK
    assert kept.atoms is not None
    assert free.atoms is not None
    assert group(kept.atoms) == 221
    assert group(free.atoms) == 1
    assert not kept.atoms.constraints


def test_explosion_by_volume() -> None:
    result = relax(bulk("Cu", a=2.6), max_volume_ratio=1.3)
    assert result.status == Status.EXPLODED
    assert "volume is" in result.message
    assert not result.site_values


@pytest.mark.parametrize("symbol", ["Cu", "Al", "Ni"])
def test_bulk_modulus_within_two_percent_of_ase(symbol: str) -> None:
    start = relax(bulk(symbol, "fcc"), fmax=1e-3).atoms
    assert start is not None
    atoms = start.copy()
    atoms.calc = EMT()
    v0, _, b0 = calculate_eos(atoms, npoints=9, eps=0.02).fit()
    result = EquationOfState.run(start, EMT(), EOSParameters(), NoDeadline())
    assert result.status == Status.OK
    assert result.values["bulk_modulus"] == pytest.approx(b0 / GPa, rel=0.02)
    assert result.values["equilibrium_volume"] == pytest.approx(v0, rel=0.001)
    curve = EOS(result.values["eos_volume"], result.values["eos_energy"], eos="birchmurnaghan")
    curve.fit()
    assert result.values["bulk_modulus_derivative"] == pytest.approx(curve.eos_parameters[2], rel=1e-3)
    assert result.values["eos_rms_error"] < 1e-3
    assert result.values["eos_volume"].shape == (7,)
    assert [i.shape for i in EquationOfState.outputs(EOSParameters(points=9)) if i.name == "eos_energy"] == [
        (9,)
    ]


def test_window_moves_onto_the_minimum() -> None:
    far = bulk("Cu", a=3.75)  # 14 % too large, outside of ±6 %
    missed = EquationOfState.run(far.copy(), EMT(), EOSParameters(recentre=0), NoDeadline())
    assert missed.status == Status.FIT_FAILED
    assert missed.message
    assert "bulk_modulus" not in missed.values
    assert missed.values["eos_energy"].shape == (7,)
    found = EquationOfState.run(far.copy(), EMT(), EOSParameters(recentre=3), NoDeadline())
    assert found.status == Status.OK
    near = EquationOfState.run(bulk("Cu", a=3.59), EMT(), EOSParameters(), NoDeadline())
    assert found.values["bulk_modulus"] == pytest.approx(near.values["bulk_modulus"], rel=0.02)


def test_eos_with_relaxed_positions() -> None:
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.numbers[0] = 47
    atoms.positions[1] += [0.1, 0, 0]
    frozen = EquationOfState.run(atoms.copy(), EMT(), EOSParameters(), NoDeadline())
    relaxed = EquationOfState.run(atoms.copy(), EMT(), EOSParameters(relax_positions=True), NoDeadline())
    assert relaxed.status == Status.OK
    assert (relaxed.values["eos_energy"] < frozen.values["eos_energy"] - 0.005).all()


def test_parameters_are_checked() -> None:
    with pytest.raises(ValidationError, match="fmax"):
        RelaxParameters(fmax=0)
    with pytest.raises(ValidationError, match="optimiser"):
        RelaxParameters(optimiser="FIRE")  # type: ignore[call-arg]
    unit = RelaxParameters.model_fields["fmax"].json_schema_extra
    assert unit == {"unit": "eV/angstrom"}


@pytest.mark.parametrize("optimizer", ["FIRE", "LBFGS", "BFGSLineSearch"])
def test_cached_filter_gives_the_bits_of_ase(optimizer: str) -> None:
    import ase.optimize
    from ase.filters import FrechetCellFilter

    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.numbers[:2] = 47, 78
    atoms.rattle(0.05, seed=5)
    plain = atoms.copy()
    plain.calc = EMT()
    run = getattr(ase.optimize, optimizer)(FrechetCellFilter(plain), logfile=None)
    run.run(fmax=0.02, steps=500)
    result = relax(atoms, fmax=0.02, optimizer=optimizer)
    assert result.atoms is not None
    assert result.values["n_steps"] == run.nsteps
    assert result.values["energy"] == plain.get_potential_energy()
    np.testing.assert_array_equal(result.atoms.positions, plain.positions)
    np.testing.assert_array_equal(result.atoms.cell.array, plain.cell.array)
