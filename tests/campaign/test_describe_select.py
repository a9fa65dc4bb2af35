"""`describe` stages and `select` gates in campaign files: read, checked, resolved, planned, costed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.io import write

from matcompute.campaign.batches import MAX_BATCH_SIZE
from matcompute.campaign.check import check_campaign
from matcompute.campaign.columns import stage_columns
from matcompute.campaign.costs import batch_limit, structure_costs
from matcompute.campaign.model import Campaign, CampaignFileError
from matcompute.campaign.placement import workload
from matcompute.campaign.plan import plan
from matcompute.campaign.resolution import facts_of, resolve_campaign
from matcompute.campaign.schema import campaign_schema

GOOD = """\
schema: matcompute.campaign/v1
name: x
title: X
domain: frontier-materials
licence: CC0-1.0
contributors: [{name: A}]
structures:
  - {prototypes: [L1_2, B2], elements: [Al, Ni, Cu]}
stages:
  - relax: {calculator: emt}
  - describe:
      descriptor: soap
      r_cut: 0.5 nm
      n_max: 4
      l_max: 3
      sigma: 50 pm
      average: inner
      batch_size: 6
      resources: {processes: 2}
  - describe: {descriptor: rdf, r_cut: 8 angstrom, name: shells}
  - select: {method: fps, descriptor: soap, n: 4, start: center}
  - describe: {descriptor: soap, species: [Cu, Al, Ni], r_cut: 5, n_max: 2, l_max: 0}
  - describe: {descriptor: sine_matrix, permutation: eigenspectrum}
  - select: {method: cur, name: few, descriptor: soap_2, n: 3, k: 2}
  - select: {method: pareto, objectives: [{volume_per_atom: min}, {density: max}]}
  - select: {method: duplicates, angle_tol: 0.1 rad}
  - select: {method: novelty, descriptor: shells, references: known.extxyz, n: 1}
"""


@dataclass
class Centre:
    clearance: str = "general"
    cores: int = 4


def load(folder: Path, text: str = GOOD) -> Campaign:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    write(folder / "known.extxyz", [bulk("Al")])
    return Campaign.load(path)


def test_stages(tmp_path: Path) -> None:
    campaign = load(tmp_path)
    names = [s.name for s in campaign.stages]
    assert names == [
        "relax", "soap", "shells", "select", "soap_2", "sine_matrix", "few", "select_2", "select_3", "select_4"
    ]  # fmt: skip
    soap = campaign.stage("soap")
    assert (soap.kind, soap.is_gate, soap.calculator, soap.batch_size) == ("describe", False, None, 6)
    assert soap.resources.processes == 2
    assert soap.parameters["r_cut"] == pytest.approx(5.0)
    assert soap.parameters["sigma"] == pytest.approx(0.5)
    assert soap.parameters["species"] == "auto"
    assert campaign.stage("soap_2").parameters["species"] == ["Al", "Ni", "Cu"]
    assert campaign.stage("select").parameters["start"] == "centre"
    assert campaign.stage("select_2").parameters["objectives"] == {"volume_per_atom": "min", "density": "max"}
    assert campaign.stage("select_3").parameters["angle_tol"] == pytest.approx(5.7295779513)
    assert campaign.reference_files == {"select_4": tmp_path / "known.extxyz"}
    assert stage_columns(soap) == {"cpu_time": "s"}
    assert set(stage_columns(campaign.stage("select"))) == {"selection_rank", "selection_distance"}
    assert workload(soap) == "describe/soap"
    check_campaign(campaign, centres={"local": Centre()})


MISTAKES: list[tuple[str, str, int, str, str]] = [
    ("descriptor: soap\n", "descriptor: soup\n", 12, "stages[1].describe.descriptor", "did you mean 'soap'"),
    ("      descriptor: soap\n", "", 11, "stages[1].describe", "'descriptor' is missing; known: acsf"),
    ("n_max: 4", "nmax: 4", 14, "stages[1].describe.nmax", "did you mean 'n_max'"),
    ("n_max: 4", "n_max: 400", 14, "stages[1].describe.n_max", "less than or equal to 64"),
    ("0.5 nm", "0.5 eV", 13, "stages[1].describe.r_cut", "is not a quantity in angstrom"),
    ("average: inner", "average: iner", 17, "stages[1].describe.average", "did you mean 'inner'"),
    ("batch_size: 6", "calculator: emt", 18, "stages[1].describe.calculator", "needs no calculator"),
    ("[Cu, Al, Ni]", "[Cu, Al, Nu]", 22, "stages[4].describe.species", "'Nu' is not a chemical element"),
    ("name: shells", "name: shells_status", 20, "stages[2].describe.name", "its ending has a meaning"),
    ("method: fps", "method: fsp", 21, "stages[3].select.method", "did you mean 'fps'"),
    ("method: fps, ", "", 21, "stages[3].select", "'method' is missing; known: fps, cur"),
    ("descriptor: soap, n: 4", "descriptor: sope, n: 4", 21, "stages[3].select.descriptor", "mean 'soap'"),
    ("n: 4,", "m: 4,", 21, "stages[3].select.m", "unknown key 'm'"),
    ("{density: max}", "{density: most}", 25, "stages[7].select.objectives", "not a valid value"),
    (
        "{volume_per_atom: min}",
        "{volume_pr_atom: min}",
        25,
        "stages[7].select.objectives",
        "did you mean 'volume_",
    ),
    ("average: inner", "average: 'off'", 21, "stages[3].select.descriptor", "has a row per site"),
    ("- select: {method: cur,", "- cur: {", 24, "stages[6].cur", "write `- select: {method: cur, …}`"),
    ("- describe: {descriptor: rdf,", "- rdf: {", 20, "stages[2].rdf", "`- describe: {descriptor: rdf, …}`"),
    (", n: 1}", "}", 27, "stages[9].select", "give a threshold, or n"),
]


@pytest.mark.parametrize(("old", "new", "line", "key", "words"), MISTAKES)
def test_mistakes(tmp_path: Path, old: str, new: str, line: int, key: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(CampaignFileError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    told = [(p.line, p.key, p.message) for p in caught.value.problems]
    assert any((a, b) == (line, key) and words in c for a, b, c in told), told


def test_schema_accepts_and_refuses(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(campaign_schema())
    validator.validate(yaml.safe_load(GOOD))
    beyond = ("quantity", "element", "mean", "ending", "row per site", "threshold")
    for old, new, _, _, words in MISTAKES:
        if not any(word in words for word in beyond):
            assert not validator.is_valid(yaml.safe_load(GOOD.replace(old, new, 1))), (old, new)


def test_auto_is_one_feature_space(tmp_path: Path) -> None:
    campaign = load(tmp_path)
    report = check_campaign(campaign, centres={"local": Centre()}).structures
    assert report is not None
    species, n_atoms_max = facts_of(report.as_dict())
    assert (set(species), n_atoms_max) == ({"Al", "Ni", "Cu"}, 4)
    resolved = resolve_campaign(campaign, species, n_atoms_max)
    assert resolved.stage("soap").parameters["species"] == ["Al", "Ni", "Cu"]
    assert resolved.stage("sine_matrix").parameters["n_atoms_max"] == 4
    assert resolved.stage("relax") is campaign.stage("relax")
    # What is resolved stays so.
    assert resolve_campaign(resolved, ["Al"], 1) is resolved
    assert campaign.stage("soap").parameters["species"] == "auto"


def test_plan_knows_describe_and_select(tmp_path: Path) -> None:
    made = plan(load(tmp_path), centres={"local": Centre()})
    by_name = {stage.name: stage for stage in made.stages}
    n = made.structures.n_kept
    assert n > 6
    soap = by_name["soap"]
    assert (soap.calculator, soap.structures, soap.tasks, soap.batch_size) == ("soap", n, n, 5)
    assert soap.batches == -(-n // 6)
    assert 0 < soap.core_hours < 0.01
    assert [by_name[name].structures for name in ("select", "soap_2", "few", "select_4")] == [4, 4, 3, 1]
    assert by_name["soap_2"].tasks == 4


def test_cost_grows_with_the_work(tmp_path: Path) -> None:
    campaign = resolve_campaign(load(tmp_path), ["Al", "Ni", "Cu"], 4)
    sites = np.array([1, 10, 100])
    small = structure_costs(campaign.stage("soap_2"), sites)
    large = structure_costs(campaign.stage("soap"), sites)
    assert (np.diff(small) > 0).all()
    assert (large > small).all()


def test_batches_fit_into_memory(tmp_path: Path) -> None:
    text = GOOD.replace("n_max: 4", "n_max: 12").replace("l_max: 3", "l_max: 9")
    elements = ["Al", "Ni", "Cu", "Ti", "Fe", "Co", "Cr", "Mn", "V", "Sc", "Zn", "Ga"]
    campaign = resolve_campaign(load(tmp_path, text), elements, 4)
    stage = campaign.stage("soap")
    width = 12 * 12 * (12 * 12 + 1) // 2 * 10
    assert batch_limit(stage, np.array([4, 4])) == pytest.approx(256e6 / (8 * width + 200), abs=1)
    assert batch_limit(campaign.stage("relax"), np.array([4])) == MAX_BATCH_SIZE


def test_explicit_species_that_lack_one_are_told(tmp_path: Path) -> None:
    text = GOOD.replace("[Cu, Al, Ni]", "[Cu, Al]")
    found = check_campaign(load(tmp_path, text), centres={"local": Centre()}).warnings
    (warning,) = [w for w in found if w.key == "stages[4].describe.species"]
    assert "species lack Ni" in warning.message
    with pytest.raises(CampaignFileError, match="nothing would be described"):
        check_campaign(load(tmp_path, GOOD.replace("[Cu, Al, Ni]", "[Fe]")), centres={"local": Centre()})


def test_parameters_that_do_not_fit_the_elements_are_told(tmp_path: Path) -> None:
    new: dict[str, Any] = {"average: inner": "compression: {mode: groups, groups: [[Al], [Ni]]}"}
    text = GOOD
    for old, value in new.items():
        text = text.replace(old, value)
    with pytest.raises(CampaignFileError, match=r"stages\[1\].describe: .*Cu is in none of the groups"):
        check_campaign(load(tmp_path, text), centres={"local": Centre()})


def test_missing_reference_file_is_told(tmp_path: Path) -> None:
    text = GOOD.replace("known.extxyz", "unknown.extxyz")
    with pytest.raises(CampaignFileError, match=r"select.references: no such file: unknown.extxyz"):
        check_campaign(load(tmp_path, text), centres={"local": Centre()})


def test_a_select_needs_a_description(tmp_path: Path) -> None:
    head, _, _ = GOOD.partition("  - describe")
    with pytest.raises(CampaignFileError, match="put a `describe` stage before it"):
        load(tmp_path, head + "  - select: {method: fps, n: 3}\n")
