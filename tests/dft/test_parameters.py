"""What the parameters of the calculator ``qe`` come to: k-points, cutoffs, units, DFT+U, moments."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from matcompute.first_principles import mesh_of, starting_moments
from matcompute_workflows.dft.adapter import Prepared
from matcompute_workflows.dft.magnetism import kinds_of
from matcompute_workflows.dft.protocols import hubbard_u, protocol, protocol_names
from matcompute_workflows.dft.qe import Qe, cutoffs_of
from matcompute_workflows.dft.qe_parameters import (
    BOHR,
    RY,
    QeParameters,
    pools,
    pw_overrides,
    resolved,
)


def _prepared(atoms: Atoms, kinds: list[tuple[str, str]] | None = None) -> Prepared:
    """A structure as the builders see it: kinds with symbols, and sites."""
    pairs = kinds or [(s, s) for s in dict.fromkeys(atoms.get_chemical_symbols())]
    found = [SimpleNamespace(name=name, symbol=symbol) for name, symbol in pairs]
    return Prepared(SimpleNamespace(kinds=found, sites=list(range(len(atoms)))))  # type: ignore[arg-type]


def test_protocols_get_finer() -> None:
    names = protocol_names("qe")
    assert names == ("fast", "balanced", "stringent")
    values = [protocol("qe", name) for name in names]
    for key in ("kpoint_spacing", "degauss", "energy_threshold", "fmax"):
        assert all(a[key] > b[key] for a, b in pairwise(values)), key
    assert protocol("qe", "fast", {"degauss": 0.5, "fmax": None}) == {**values[0], "degauss": 0.5}


def test_parameters_override_the_protocol() -> None:
    assert resolved(QeParameters(protocol="fast"))["kpoint_spacing"] == 0.30
    assert resolved(QeParameters(protocol="fast", kpoint_spacing=0.2))["kpoint_spacing"] == 0.2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"namelists": {"ELEKTRONS": {}}}, "unknown namelist 'ELEKTRONS'"),
        ({"namelists": {"SYSTEM": {"ecutwfc": 3}}}, "has a key of its own"),
        ({"namelists": {"CONTROL": {"outdir": "/"}}}, "has a key of its own"),
        ({"cutoff_wfc": 0}, "greater than 0"),
        ({"protocol": "fastest"}, "Input should be 'fast', 'balanced' or 'stringent'"),
        ({"kpoints": 1}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_parameters_are_refused(values: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        QeParameters(**values)


@pytest.mark.parametrize("spacing", [0.1, 0.15, 0.3, 0.77])
@pytest.mark.parametrize(
    "atoms", [bulk("Si"), bulk("Cu", cubic=True), bulk("Mg"), bulk("Si").repeat((1, 2, 3))]
)
def test_the_mesh_is_the_plugins(workspace: object, atoms: Atoms, spacing: float) -> None:
    from aiida.orm import Bool, Float, StructureData
    from aiida_quantumespresso.calculations.functions.create_kpoints_from_distance import (
        create_kpoints_from_distance,
    )

    node = create_kpoints_from_distance(
        StructureData(ase=atoms), Float(spacing), Bool(False), metadata={"store_provenance": False}
    )
    assert tuple(node.get_kpoints_mesh()[0]) == mesh_of(atoms.cell.array, spacing)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 512), st.integers(1, 2000))
def test_pools_divide_the_ranks(ranks: int, n_kpoints: int) -> None:
    found = pools(ranks, n_kpoints)
    assert ranks % found == 0
    assert found <= n_kpoints
    assert not any(ranks % n == 0 and n <= n_kpoints for n in range(found + 1, ranks + 1))


def test_units_of_the_input_file() -> None:
    parameters = QeParameters(
        protocol="fast",
        cutoff_wfc=30 * RY,
        cutoff_rho=240 * RY,
        namelists={"electrons": {"mixing_beta": 0.3}},
    )
    overrides = pw_overrides(
        parameters,
        "vc-relax",
        _prepared(bulk("Si")),
        cutoffs_of(parameters, []),
        fmax=0.05,
        steps=7,
        pressure=2.0,
    )
    blocks = overrides["pw"]["parameters"]
    assert overrides["kpoints_distance"] == 0.30
    assert blocks["SYSTEM"]["ecutwfc"] == pytest.approx(30)
    assert blocks["SYSTEM"]["ecutrho"] == pytest.approx(240)
    assert blocks["SYSTEM"]["degauss"] == pytest.approx(0.27 / RY)
    # 0.05 eV/Å in Ry/bohr, 2 GPa in kbar.
    assert blocks["CONTROL"]["forc_conv_thr"] == pytest.approx(0.05 / RY * BOHR)
    assert blocks["CONTROL"]["nstep"] == 7
    assert blocks["CELL"]["press"] == 20.0
    assert blocks["ELECTRONS"]["conv_thr"] == pytest.approx(2e-7 / RY)
    assert blocks["ELECTRONS"]["mixing_beta"] == 0.3


def test_fixed_occupations_have_no_width() -> None:
    overrides = pw_overrides(QeParameters(smearing="fixed"), "scf", _prepared(bulk("Si")), (400, 1600))
    system = overrides["pw"]["parameters"]["SYSTEM"]
    assert system["occupations"] == "fixed"
    assert "degauss" not in system


def test_cutoffs_follow_the_largest_potential() -> None:
    recommended = [(400.0, 3200.0), (600.0, 2400.0)]
    assert cutoffs_of(QeParameters(), recommended) == (600.0, 3200.0)
    assert cutoffs_of(QeParameters(protocol="stringent"), recommended) == pytest.approx((780.0, 4160.0))
    # Who raises one of the two means the family's ratio for the other.
    assert cutoffs_of(QeParameters(cutoff_wfc=800), recommended) == (800.0, 6400.0)
    assert cutoffs_of(QeParameters(cutoff_wfc=800, cutoff_rho=3300), recommended) == (800.0, 3300.0)


def test_u_is_for_oxides_and_fluorides() -> None:
    assert hubbard_u({"Ni", "O"}) == {"Ni": ("3d", 6.2)}
    assert hubbard_u({"Ni", "Al"}) == {}
    assert hubbard_u({"Mo", "F", "Li"}) == {"Mo": ("4d", 4.38)}
    assert hubbard_u({"Ni", "Al"}, {"Ni": 4.0, "Fe": 5.0}) == {"Ni": ("3d", 4.0)}
    assert hubbard_u({"Ni", "O"}, {"Ni": 0.0}) == {}
    overrides = pw_overrides(
        QeParameters(hubbard="auto"),
        "scf",
        _prepared(
            bulk("NiO", "rocksalt", a=4.2).repeat((1, 1, 2)), [("Ni", "Ni"), ("Ni1", "Ni"), ("O", "O")]
        ),
        (400, 3200),
        hubbard_card=False,
    )
    assert overrides["pw"]["parameters"]["SYSTEM"]["hubbard_u"] == {"Ni": 6.2, "Ni1": 6.2}


def test_moments_start_from_an_earlier_stage() -> None:
    assert starting_moments(["Si", "C"]) is None
    assert starting_moments(["Fe", "O"]).tolist() == [3.0, 0.0]
    known = np.array([2.2, 0.05])
    assert starting_moments(["Fe", "O"], known).tolist() == [2.2, 0.05]
    # What the earlier stage has found to be without moments stays so; what it has not found is by element.
    assert starting_moments(["Fe", "O"], np.array([0.01, 0.02])) is None
    assert starting_moments(["Fe", "O"], np.array([np.nan, 0.0])).tolist() == [3.0, 0.0]


def test_sites_with_other_moments_are_other_kinds() -> None:
    names, moments = kinds_of(["Fe", "Fe", "Fe", "O"], np.array([2.0, -2.1, 2.2, 0.0]))
    assert names == ["Fe", "Fe1", "Fe", "O"]
    assert moments == pytest.approx({"Fe": 2.1, "Fe1": -2.1, "O": 0.0})
    assert kinds_of(["Fe", "O"], None) == (["Fe", "O"], {})


def test_costs_grow_with_size_and_protocol() -> None:
    sizes = np.array([1, 2, 8, 32])
    costs = [
        Qe.evaluation_cost(sizes, QeParameters(protocol=name)) for name in ("fast", "balanced", "stringent")
    ]
    assert all((np.diff(c) > 0).all() for c in costs)
    assert (costs[0] < costs[1]).all()
    assert (costs[1] < costs[2]).all()
    task = Qe.task("eos")
    parameters = task.Parameters(points=7)
    assert Qe.jobs("eos", parameters) == 7
    assert Qe.jobs("relax", None) == 1
    static = Qe.stored_bytes("static", None, QeParameters(), 8)
    assert Qe.stored_bytes("eos", parameters, QeParameters(), 8) > 5 * static > 1e5
