"""The whole way of real crystals: CHGNet relaxation → gate → Quantum ESPRESSO relaxation → equation of state.

Two crystals; with ``MATCOMPUTE_CRYSTALS=all`` ten, of elements for which Debian ships PBE pseudopotentials, in an
hour and a half of two cores; or silicon and those that it names, as in ``Fe,B``. The second code, ABINIT with
norm-conserving pseudopotentials of another make, starts from the structures that Quantum ESPRESSO has relaxed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from ase.build import bulk
from ase.collections import dcdft
from ase.io import write

from matcompute.dataset import Dataset, Status
from tests.engine.conftest import Site

_ASKED = os.environ.get("MATCOMPUTE_CRYSTALS", "CSi")
#: Seconds for the campaign: CI's two crystals, or the many of a run by hand.
_CAMPAIGN_S = 3500 if _ASKED == "CSi" else 7100

pytestmark = [
    pytest.mark.apt,
    pytest.mark.slow,
    pytest.mark.timeout(_CAMPAIGN_S + 100),
    pytest.mark.skipif(
        shutil.which("pw.x") is None or shutil.which("abinit") is None,
        reason="no Quantum ESPRESSO or no ABINIT (apt: quantum-espresso, abinit)",
    ),
]

#: Elements: all-electron PBE (WIEN2k) of the Delta test, K. Lejaeghere et al., Science 351, aad3000 (2016), as ASE has
#: it: volume in Å^3 an atom, bulk modulus in GPa. Compounds and diamond: J. Paier et al., J. Chem. Phys. 124, 154709
#: (2006), PBE: lattice constant in Å, bulk modulus in GPa.
COMPOUNDS = {"C": (3.574, 431.0), "CSi": (4.380, 210.0), "BN": (3.626, 370.0)}
START = {
    "Si": bulk("Si", a=5.43),
    "Ge": bulk("Ge", a=5.66),
    "C": bulk("C", a=3.57),
    "CSi": bulk("SiC", "zincblende", a=4.36),
    "BN": bulk("BN", "zincblende", a=3.62),
    "Ni": bulk("Ni", a=3.52),
    "Fe": bulk("Fe", a=2.87),
    "B": dcdft["B"],  # α-boron
    "Rh": bulk("Rh", a=3.80),
    "Cu": bulk("Cu", a=3.61),
}
NAMES = [name for name in START if name == "Si" or _ASKED == "all" or name in _ASKED.split(",")]
#: Both pseudopotentials date from before 2010; all-electron volumes are 3.4 % and 2.2 % smaller, as is ABINIT's.
OLD = {"Rh", "Cu"}
FILE = """\
schema: matcompute.campaign/v1
name: crystals
title: elastic properties of crystals by three methods
domain: frontier-materials
licence: CC0-1.0
contributors: [{name: matcompute tests}]
structures:
  - files: crystals.extxyz
stages:
  - relax: {calculator: chgnet, magmoms: true}
  - eos: {name: eos_chgnet, calculator: chgnet, points: 5}
  - filter: {name: stiff, expression: "bulk_modulus > 30 GPa"}
  # Coarse meshes: eight crystals by two codes in minutes.
  - relax: {name: relax_dft, calculator: {name: qe, protocol: fast, kpoint_spacing: 0.5 1/angstrom}, magmoms: true}
  - eos: {name: eos_dft, calculator: {name: qe, protocol: fast, kpoint_spacing: 0.5 1/angstrom}, points: 5}
  - eos:
      name: eos_second
      calculator: {name: abinit, protocol: fast, kpoint_spacing: 0.5 1/angstrom}
      points: 5
      batch_size: 2
"""


def _published(name: str) -> tuple[float, float]:
    """Volume in Å^3 an atom and bulk modulus in GPa."""
    if name in COMPOUNDS:
        a, modulus = COMPOUNDS[name]
        return a**3 / 8, modulus
    data = dcdft.data[name]
    return data["wien2k_volume"], data["wien2k_B"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("crystals"))
    write(site.folder / "crystals.extxyz", [START[name] for name in NAMES])
    (site.folder / "crystals.yaml").write_text(FILE)
    site.matcompute("init", str(site.root))
    site.matcompute("pseudo", "install", "debian-qe", "--default")
    yield site
    site.stop()


@pytest.fixture(scope="module")
def finished(site: Site) -> Site:
    """After the campaign."""
    site.matcompute("campaign", "run", "crystals.yaml", timeout=_CAMPAIGN_S)
    return site


def test_volumes_and_moduli_are_those_of_pbe(finished: Site) -> None:
    """Lattice constants within 2 %, bulk moduli within 15 % of what is published."""
    with Dataset(finished.dataset("crystals")) as data:
        assert len(data) == len(NAMES)
        names = data.entry_column("formula").tolist()
        for column in ("eos_dft__bulk_modulus", "bulk_modulus"):
            assert (data.status(column) == Status.OK).all(), column
        for row, name in enumerate(names):
            volume, modulus = _published(str(name))
            found = float(data.column("eos_dft__equilibrium_volume")[row])
            assert (found / volume) ** (1 / 3) == pytest.approx(1.0, abs=0.02), name
            assert float(data.column("eos_dft__bulk_modulus")[row]) == pytest.approx(modulus, rel=0.15), name
            # The relaxation by stresses and the minimum of the energies are one volume.
            relaxed = float(data.column("volume_per_atom")[row])
            assert relaxed == pytest.approx(found, rel=0.02), name


def test_the_second_code_agrees(finished: Site) -> None:
    """Equilibrium volumes within 1.5 %, but for pseudopotentials that all-electron results show to be off."""
    with Dataset(finished.dataset("crystals")) as data:
        names = [str(name) for name in data.entry_column("formula")]
        qe, abinit = (np.asarray(data.column(f"{s}equilibrium_volume")) for s in ("eos_dft__", ""))
        for name, one, other in zip(names, qe, abinit, strict=True):
            volume, _ = _published(name)
            if name in OLD:
                assert abs(other / volume - 1) < abs(one / volume - 1), name
            else:
                assert one == pytest.approx(other, rel=0.015), name


def test_magnetism_is_carried_along(finished: Site) -> None:
    """CHGNet's moments start the calculation of nickel, which ends at 0.6 μ_B; the others are not spin-polarised."""
    with Dataset(finished.dataset("crystals")) as data:
        names = [str(name) for name in data.entry_column("formula")]
        total = data.column("total_magnetization")
        if "Ni" in names:
            assert total[names.index("Ni")] == pytest.approx(0.63, abs=0.15)
        assert not np.isfinite(total[names.index("Si")]) or abs(total[names.index("Si")]) < 0.01


def test_everything_can_be_walked_back(finished: Site) -> None:
    walked = finished.walk(finished.dataset("crystals"))
    assert walked["values"] > 12 * len(NAMES)
    assert walked["makers"]["eos_dft__bulk_modulus"] == ["fit_equation_of_state"]
    assert {"CalcJobNode", "CalcFunctionNode", "SinglefileData"} <= set(walked["kinds"])
    assert [names for names, _ in walked["sources"]] == [["0000-crystals.extxyz"]]


def test_methods_say_how(finished: Site) -> None:
    with Dataset(finished.dataset("crystals")) as data:
        methods = {(m.name, str(m.parameters.get("task"))): m for m in data.methods}
        qe = methods["qe", "eos"]
        assert qe.code_version.startswith("6.")
        assert qe.model == "PBE"
        assert len(qe.parameters["pseudopotentials"]["Si"]["sha256"]) == 64
        assert qe.parameters["protocol"]["kpoint_spacing"] == 0.5
        assert qe.centre == "local"
        assert methods["abinit", "eos"].code_version.startswith("9.")
    traced = finished.matcompute(
        "dataset", "trace", str(finished.dataset("crystals")), _entry(finished, "Si"), "eos_dft__bulk_modulus"
    ).stdout
    for said in ("fit_equation_of_state", "PwCalculation", "quantumespresso.pw", "crystals.extxyz"):
        assert said in traced


def _entry(site: Site, formula: str) -> str:
    with Dataset(site.dataset("crystals")) as data:
        names = [str(name) for name in data.entry_column("formula")]
        return str(data.ids[names.index(formula)])


def test_the_report_compares_the_methods(finished: Site) -> None:
    report = json.loads(finished.matcompute("campaign", "report", "crystals", "--json").stdout)
    compared = {(row["quantity"], row["method"], row["against"]): row for row in report["methods"]}
    volumes = compared["volume", "chgnet", "qe"]
    assert volumes["n"] == len(NAMES)
    assert abs(volumes["mean"]) < 5
    assert compared["volume", "qe", "abinit"]["spread"] < 2
    moduli = compared["bulk modulus", "chgnet", "qe"]
    assert moduli["order"] > 0.8


def test_a_second_campaign_computes_nothing_again(finished: Site) -> None:
    """The same relaxations under another name come from AiiDA's cache."""
    text = (finished.folder / "crystals.yaml").read_text()
    stages = text.index("stages:")
    again = (
        text[:stages].replace("name: crystals", "name: again").replace("crystals.extxyz", "again.extxyz")
        + "stages:\n  - static: {calculator: qe, protocol: fast}\n"
    )
    write(finished.folder / "again.extxyz", [bulk("Si", a=5.43), bulk("Ge", a=5.66)])
    (finished.folder / "again.yaml").write_text(again)
    (finished.folder / "once.yaml").write_text(again.replace("name: again", "name: once"))
    finished.matcompute("campaign", "run", "once.yaml")
    finished.matcompute("campaign", "run", "again.yaml")
    states = dict(
        finished.query(
            "SELECT c.name, group_concat(DISTINCT u.state) FROM usage u JOIN campaign c ON c.id = u.campaign_id "
            "WHERE c.name IN ('once', 'again') GROUP BY c.name"
        )
    )
    assert states == {"once": "COMPLETED", "again": "CACHED"}
    with Dataset(finished.dataset("once")) as one, Dataset(finished.dataset("again")) as other:
        np.testing.assert_array_equal(one.column("energy"), other.column("energy"))


def test_folders_are_removed(finished: Site) -> None:
    """What ended well leaves no scratch behind; what the plan said of the size of what stays is not far off."""
    left = [path for path in (finished.root / "scratch").rglob("aiida.save") if path.is_dir()]
    assert left == []
