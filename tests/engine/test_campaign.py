"""A ready campaign, from its file to its dataset, as a user runs it; then every number is checked from outside."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from matcompute.dataset import Dataset, Status

from .conftest import PROGRAM, ROOT, Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FILE = ROOT / "workflows" / "campaigns" / "fcc-alloys-emt.yaml"


@pytest.fixture(scope="module")
def fcc(site: Site) -> Path:
    """The dataset of the ready campaign ``fcc-alloys-emt``."""
    result = site.matcompute("campaign", "run", str(FILE))
    assert "finished: 24 structures" in result.stdout
    return site.dataset("fcc-alloys-emt")


def test_the_dataset_is_valid(site: Site, fcc: Path) -> None:
    assert "valid" in site.look("dataset", "validate", str(fcc))
    with Dataset(fcc) as data:
        assert len(data) == 24
        assert data.metadata.campaign == "fcc-alloys-emt"
        assert data.metadata.license == "CC-BY-4.0"
        assert list(data.selections) == ["hull", "filter", "top"]


def test_every_value_walks_back_to_its_source_by_links_alone(site: Site, fcc: Path) -> None:
    found = site.walk(fcc)
    assert found["values"] > 24 * 10
    assert found["selections"] == 22 + found_in(fcc, "filter") + 5
    assert found["walks"] > 24
    assert {"CalcJobNode", "CalcFunctionNode", "ShardData", "SinglefileData"} <= set(found["kinds"])
    assert found["sources"] == [[FILE.name, FILE.read_text()]]


def test_its_release_is_served_pulled_and_verified(site: Site, fcc: Path) -> None:
    """What ``make demo`` ends with; the second time there is nothing new."""
    command = [ROOT / "workflows" / "publish-demo.sh", PROGRAM, site.root, "fcc-alloys-emt"]
    first, second = (
        subprocess.run([*map(str, command)], capture_output=True, text=True, check=False) for _ in range(2)
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert "1 versions stored" in " ".join(first.stdout.split())
    assert second.returncode == 0, second.stdout + second.stderr
    assert "0 versions stored" in " ".join(second.stdout.split())
    pulled = list((site.root / "pulled" / "store").rglob("fcc-alloys-emt.h5"))
    assert [path.read_bytes() for path in pulled] == [fcc.read_bytes()]


def found_in(path: Path, selection: str) -> int:
    with Dataset(path) as data:
        return int(data.selections[selection].mask.sum())


def test_energies_above_hull_are_pymatgens(fcc: Path) -> None:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    with Dataset(fcc) as data:
        entries = [
            PDEntry(Composition(str(formula)) * (int(n) / Composition(str(formula)).num_atoms), float(energy))
            for formula, n, energy in zip(
                data.entry_column("formula"),
                data.entry_column("row_size"),
                data.column("energy"),
                strict=True,
            )
        ]
        diagram = PhaseDiagram(entries)
        expected = [diagram.get_e_above_hull(entry) for entry in entries]
        formation = [diagram.get_form_energy_per_atom(entry) for entry in entries]
        assert (np.asarray(data.status("e_above_hull")) == Status.OK).all()
        np.testing.assert_allclose(data.column("e_above_hull"), expected, rtol=0, atol=1e-8)
        np.testing.assert_allclose(data.column("formation_energy"), formation, rtol=0, atol=1e-8)


@pytest.mark.parametrize("metal", ["Al", "Cu", "Ni"])
def test_bulk_moduli_are_ases(fcc: Path, metal: str) -> None:
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.eos import EquationOfState
    from ase.units import GPa

    with Dataset(fcc) as data:
        row = list(data.entry_column("formula")).index(metal)
        ours, volume = float(data.column("bulk_modulus")[row]), float(data.column("equilibrium_volume")[row])
    volumes, energies = [], []
    for scale in np.linspace(0.98, 1.02, 9):
        atoms = bulk(metal)
        atoms.set_cell(
            atoms.cell * (volume / atoms.get_volume()) ** (1 / 3) * scale ** (1 / 3), scale_atoms=True
        )
        atoms.calc = EMT()
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    v0, _, b0 = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    assert ours == pytest.approx(b0 / GPa, rel=0.02)
    assert volume == pytest.approx(v0, rel=0.002)


def test_gates_keep_what_they_promise(fcc: Path) -> None:
    with Dataset(fcc) as data:
        mask = {name: np.asarray(found.mask, dtype=bool) for name, found in data.selections.items()}
        hull, modulus = np.asarray(data.column("e_above_hull")), np.asarray(data.column("bulk_modulus"))
        assert (mask["filter"] == (mask["hull"] & (hull <= 0.2) & (modulus >= 50))).all()
        best = np.argsort(np.where(mask["filter"], -modulus, np.inf))[:5]
        assert set(np.flatnonzero(mask["top"])) == set(best)
        # The elements that the campaign added are computed for the hull, and stay out of everything else.
        added = (np.asarray(data.entry_column("quality")) & 4) != 0
        assert added.sum() == 2
        assert not any((mask[name] & added).any() for name in mask)
        assert (np.asarray(data.status("bulk_modulus"))[added] == Status.NOT_SELECTED).all()


def test_run_again_computes_nothing(site: Site, fcc: Path) -> None:
    jobs, stamp = site.jobs(), fcc.stat().st_mtime_ns
    result = site.matcompute("campaign", "run", str(FILE))
    assert "finished already" in result.stdout
    assert str(fcc) in result.stdout
    assert (site.jobs(), fcc.stat().st_mtime_ns) == (jobs, stamp)


def test_a_changed_file_is_refused(site: Site, fcc: Path) -> None:
    changed = site.folder / "changed.yaml"
    changed.write_text(FILE.read_text().replace("points: 9", "points: 7"))
    result = site.matcompute("campaign", "run", str(changed), check=False)
    assert result.returncode == 2
    assert "- eos: {calculator: emt, points: 9" in result.stdout
    assert "+  - eos: {calculator: emt, points: 7" in result.stdout
    assert "--name fcc-alloys-emt-2" in result.stdout
    # Comments and the budget do not change what is computed.
    changed.write_text("# a comment\n" + FILE.read_text().replace("core_hours: 0.5", "core_hours: 2"))
    assert "finished already" in site.matcompute("campaign", "run", str(changed)).stdout


def test_status_list_and_failures(site: Site, fcc: Path) -> None:
    status = site.status("fcc-alloys-emt")
    assert status["state"] == "finished"
    assert status["dataset"] == str(fcc)
    stages = {stage["name"]: stage for stage in status["stages"]}
    assert (stages["relax"]["n_ok"], stages["eos"]["n_total"], stages["top"]["n_ok"]) == (24, 22, 5)
    assert 0 < status["core_hours"] < 0.1
    assert "fcc-alloys-emt" in site.look("campaign", "list")
    assert "nothing failed" in site.look("campaign", "failures", "fcc-alloys-emt")
    result = site.matcompute("campaign", "status", "fcc-alloys-emd", check=False)
    assert result.returncode == 2
    assert "did you mean 'fcc-alloys-emt'?" in result.stdout


def test_nothing_is_written_at_home(site: Site, fcc: Path) -> None:
    assert list((site.folder / "home").iterdir()) == []
