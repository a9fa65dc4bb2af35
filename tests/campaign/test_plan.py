"""`campaign plan`: counts are upper bounds, costs add up, a hundred thousand prototypes take seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from click.testing import CliRunner

from matcompute.campaign.costs import structure_costs
from matcompute.campaign.model import Campaign
from matcompute.campaign.plan import plan
from matcompute.cli.campaign_file import plan as plan_command

TEXT = """\
schema: matcompute.campaign/v1
name: x
title: X
domain: frontier-materials
licence: CC0-1.0
contributors: [{name: A}]
structures:
  - {prototypes: [L1_2, B2], elements: [Al, Ni, Cu]}
  - files: some.extxyz
stages:
  - relax: {calculator: emt}
  - hull: {max: 0.1}
  - eos: {calculator: emt, batch_size: 4}
  - top: {n: 3, by: bulk_modulus}
  - static: {calculator: emt}
budget: {core_hours: 1.0e-06}
"""


@dataclass
class Centre:
    clearance: str = "general"
    cores: int = 4


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    bad = Atoms("Al2", positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4, 4, 4], pbc=True)
    write(tmp_path / "some.extxyz", [bulk("Al"), bulk("Al"), bad, bulk("Pt", cubic=True)])
    (tmp_path / "c.yaml").write_text(TEXT)
    return Campaign.load(tmp_path / "c.yaml")


def test_counts(campaign: Campaign) -> None:
    made = plan(campaign, centres={"local": Centre()})
    report = made.structures
    assert (report.n_read, report.n_kept, report.n_duplicates, report.n_rejected) == (13, 11, 1, 1)
    assert [r.symbol for r in report.references] == ["Cu", "Ni"]
    rows = [(s.name, s.structures, s.tasks, s.batches) for s in made.stages]
    assert rows == [
        ("relax", 11, 13, 1),  # with the two references
        ("hull", 11, 0, 0),
        ("eos", 11, 11, 3),  # references end at the hull; four a batch
        ("top", 3, 0, 0),
        ("static", 3, 3, 1),
    ]
    assert made.tasks == 27
    assert made.cores == 4


def test_references_go_to_the_last_hull(campaign: Campaign) -> None:
    text = TEXT.replace("  - top:", "  - hull: {name: again, energy: relax}\n  - top:")
    (campaign.base_dir / "two.yaml").write_text(text)
    made = plan(Campaign.load(campaign.base_dir / "two.yaml"), centres={"local": Centre()})
    assert [s.tasks for s in made.stages] == [13, 0, 13, 0, 0, 3]


def test_core_hours_are_the_costs_of_the_structures(campaign: Campaign) -> None:
    made = plan(campaign, centres={"local": Centre()})
    # 6 L1_2 of 4 sites, 3 B2 of 2, Al of 1, Pt of 4; references of 1 each.
    sites = np.array([4] * 6 + [2] * 3 + [1, 4] + [1, 1])
    expected = structure_costs(campaign.stages[0], sites).sum() / 3600
    assert made.stages[0].core_hours == pytest.approx(expected)
    # After `top`, the bound takes the costliest three.
    last = structure_costs(campaign.stages[4], np.array([4, 4, 4])).sum() / 3600
    assert made.stages[4].core_hours == pytest.approx(last)
    assert made.core_hours == pytest.approx(sum(s.core_hours for s in made.stages))
    assert all(s.wall_hours > 0 for s in made.stages)
    assert made.within_budget is False
    assert any("above the budget" in w.message for w in made.warnings)


def test_more_cores_take_less_wall_time(tmp_path: Path) -> None:
    write(tmp_path / "some.extxyz", bulk("Pt", cubic=True) * (3, 3, 3))
    text = TEXT.replace("[Al, Ni, Cu]", "[Al, Ni, Cu, Ag, Au, Pd, Pt]").replace("batch_size: 4, ", "")
    (tmp_path / "c.yaml").write_text(text)
    campaign = Campaign.load(tmp_path / "c.yaml")
    one, many = (plan(campaign, centres={"local": Centre(cores=n)}) for n in (1, 8))
    assert many.core_hours == one.core_hours
    assert many.stages[0].wall_hours < one.stages[0].wall_hours


def test_costs_rise_with_sites_and_steps(campaign: Campaign) -> None:
    relax, eos = campaign.stages[0], campaign.stages[2]
    small, large = structure_costs(relax, np.array([2, 20]))
    assert 0 < small < large
    seven = structure_costs(eos, np.array([2]))[0]
    nine = eos.model_copy(update={"parameters": {**eos.parameters, "points": 9}})
    assert structure_costs(nine, np.array([2]))[0] > seven


def test_command_line(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(campaign.base_dir)
    monkeypatch.setenv("COLUMNS", "120")
    before = sorted(path.name for path in campaign.base_dir.iterdir())
    done = CliRunner().invoke(plan_command, ["c.yaml"])
    assert done.exit_code == 0
    assert "13 read, 11 kept, 2 kept out" in done.output
    assert "some.extxyz:4: Al: the same as some.extxyz:1" in done.output
    assert "some.extxyz:7: Al2" in done.output or "some.extxyz:7: Al: Al (site 1)" in done.output
    assert "eos" in done.output
    found = json.loads(CliRunner().invoke(plan_command, ["c.yaml", "--json"]).output)
    assert found["schema"] == "matcompute.plan/v1"
    assert [stage["name"] for stage in found["stages"]] == ["relax", "hull", "eos", "top", "static"]
    assert {(r["cause"], r["line"]) for r in found["structures"]["rejects"]} == {
        ("duplicate", 4),
        ("overlap", 7),
    }
    assert found["totals"]["core_hours"] == pytest.approx(sum(s["core_hours"] for s in found["stages"]))
    assert found["budget"] == {"core_hours": 1e-6, "within": False}
    assert sorted(path.name for path in campaign.base_dir.iterdir()) == before


@pytest.mark.slow
def test_a_hundred_thousand_prototypes(tmp_path: Path) -> None:
    """In a process of its own, so that its memory is measured alone."""
    (tmp_path / "c.yaml").write_text(
        TEXT.replace(
            "  - {prototypes: [L1_2, B2], elements: [Al, Ni, Cu]}\n  - files: some.extxyz\n",
            "  - {prototypes: [perovskite, half-Heusler, full-Heusler], limit: 100000,\n"
            "     elements: [transition-metals, alkali-metals, alkaline-earth-metals, chalcogens]}\n",
        ).replace("emt", "chgnet")
    )
    code = textwrap.dedent("""
        import json, re, sys, time
        from pathlib import Path
        start = time.process_time()
        from matcompute.campaign.model import Campaign
        from matcompute.campaign.plan import plan
        made = plan(Campaign.load(sys.argv[1]))
        # Not ru_maxrss: a new program inherits the peak of the one that started it, and pytest may have had more.
        peak = int(re.search("VmHWM:[^0-9]+([0-9]+) kB", Path("/proc/self/status").read_text())[1]) / 1e6
        print(json.dumps([made.structures.n_read, made.stages[0].tasks, time.process_time() - start, peak]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "c.yaml")], capture_output=True, text=True, check=True
    )
    read, tasks, seconds, gigabytes = json.loads(done.stdout)
    assert read == 100_000
    assert tasks > 100_000
    assert seconds < 60
    assert gigabytes < 1
