"""`campaign check`: what can be wrong beyond the file itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from click.testing import CliRunner

from matcompute.campaign.check import check_campaign, default_centres
from matcompute.campaign.model import Campaign, CampaignFileError
from matcompute.cli.campaign_file import check, new, schema

HEAD = """\
schema: matcompute.campaign/v1
name: x
title: X
domain: advanced-steel
classification: {grade: GRADE}
licence: CC0-1.0
contributors: [{name: A}]
centres: [local]
"""


@dataclass
class Centre:
    clearance: str = "general"
    cores: int = 2


def campaign(
    folder: Path, structures: str, stages: str, grade: str = "general", head: str = HEAD
) -> Campaign:
    path = folder / "c.yaml"
    path.write_text(f"{head.replace('GRADE', grade)}structures:\n{structures}\nstages:\n{stages}\n")
    return Campaign.load(path)


def problems(*args: object, centres: dict | None = None, **kwargs: object) -> list[tuple[int, str, str]]:
    with pytest.raises(CampaignFileError) as caught:
        check_campaign(campaign(*args, **kwargs), centres=centres or {"local": Centre()})
    return [(p.line, p.key, p.message) for p in caught.value.problems]


STRUCTURES = "  - {prototypes: [L1_2], elements: [Al, Ni]}"
STAGES = "  - relax: {calculator: emt}\n  - hull: {}"


def test_good(tmp_path: Path) -> None:
    result = check_campaign(campaign(tmp_path, STRUCTURES, STAGES), centres={"local": Centre()})
    assert result.structures is not None
    assert result.structures.n_kept == 2
    assert [r.symbol for r in result.structures.references] == ["Al", "Ni"]
    assert result.warnings == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]
    assert check_campaign(campaign(tmp_path, STRUCTURES, STAGES), structures=False).structures is None


@pytest.mark.parametrize(
    ("grade", "clearance", "good"),
    [
        ("general", "general", True),
        ("important", "general", False),
        ("core", "important", False),
        ("important", "core", True),
        ("core", "core", True),
    ],
)
def test_clearance_covers_the_grade(tmp_path: Path, grade: str, clearance: str, good: bool) -> None:
    one = campaign(tmp_path, STRUCTURES, STAGES, grade=grade)
    centres = {"local": Centre(clearance=clearance)}
    if good:
        check_campaign(one, centres=centres)
        return
    with pytest.raises(CampaignFileError, match=f"cleared for '{clearance}'") as caught:
        check_campaign(one, centres=centres)
    assert caught.value.problems[0].line == 8


def test_unknown_centre(tmp_path: Path) -> None:
    head = HEAD.replace("[local]", "[local, locl]")
    found = problems(tmp_path, STRUCTURES, STAGES, head=head)
    assert found == [(8, "centres[1]", "unknown centre 'locl'; did you mean 'local'?")]


def test_missing_files(tmp_path: Path) -> None:
    write(tmp_path / "copper.vasp", bulk("Cu"))
    stages = "  - relax: {calculator: emt}\n  - hull: {references: refs.extxyz}"
    found = problems(tmp_path, "  - files: coper.vasp\n  - {dataset: no.h5}", stages)
    assert [(line, key) for line, key, _ in found] == [
        (10, "structures[0].files"),
        (11, "structures[1].dataset"),
        (14, "stages[1].hull.references"),
    ]
    assert "did you mean 'copper.vasp'" in found[0][2]


def test_too_many_cores(tmp_path: Path) -> None:
    stages = "  - relax: {calculator: emt, resources: {ranks: 4, threads: 2}}"
    ((line, key, message),) = problems(tmp_path, STRUCTURES, stages)
    assert (line, key) == (12, "stages[0].relax.resources")
    assert "8 cores" in message


def test_species_that_the_file_asks_for(tmp_path: Path) -> None:
    ((line, key, message),) = problems(tmp_path, "  - {prototypes: [L1_2], elements: [Al, Fe, Ni]}", STAGES)
    assert (line, key) == (12, "stages[0].relax.calculator")
    assert "'emt' does not know Fe" in message
    assert "4 of 6 structures" in message
    assert "c.yaml:10" in message
    assert "exclude: [Fe]" in message


def test_elements_without_a_pseudopotential(tmp_path: Path) -> None:
    stages = "  - eos: {calculator: {name: abinit, protocol: fast, ecut: 40 Ha, kpoint_spacing: 0.2 1/bohr}}"
    read = campaign(tmp_path, STRUCTURES, stages)
    assert read.stages[0].calculator is not None
    parameters = read.stages[0].calculator.parameters
    assert parameters["ecut"] == pytest.approx(40 * 27.211386, rel=1e-6)
    assert parameters["kpoint_spacing"] == pytest.approx(0.2 / 0.5291772, rel=1e-6)
    assert check_campaign(read, centres={"local": Centre()}).warnings == []
    ((_, key, message),) = problems(tmp_path, "  - {prototypes: [L1_2], elements: [Al, U]}", stages)
    assert key == "stages[0].eos.calculator"
    assert "'abinit' does not know U" in message
    assert "exclude: [U]" in message
    ((_, key, message),) = problems(tmp_path, STRUCTURES, stages.replace("fast", "quick"))
    assert key == "stages[0].eos.calculator.protocol"
    assert "known: balanced, fast, stringent" in message


def test_species_in_some_structures_of_a_file(tmp_path: Path) -> None:
    write(tmp_path / "s.extxyz", [bulk("Cu"), bulk("Fe")])
    one = campaign(tmp_path, "  - files: s.extxyz", STAGES)
    (warning,) = check_campaign(one, centres={"local": Centre()}).warnings
    assert "does not know Fe: 1 of 2 structures, the first is Fe (s.extxyz:4)" in warning.message
    assert "unsupported_species" in warning.message
    write(tmp_path / "s.extxyz", [bulk("Fe")])
    ((_, _, message),) = problems(tmp_path, "  - files: s.extxyz", STAGES)
    assert "nothing would be computed" in message


def test_unknown_ground_state_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "s.vasp", bulk("FrCl", "rocksalt", a=7.0))
    write(tmp_path / "t.vasp", bulk("Cu"))
    one = campaign(tmp_path, "  - files: '*.vasp'", STAGES)
    messages = [w.message for w in check_campaign(one, centres={"local": Centre()}).warnings]
    assert any("no ground-state crystal of Fr" in message for message in messages)


def test_ignored_processes(tmp_path: Path) -> None:
    stages = "  - relax: {calculator: emt, resources: {ranks: 2, processes: 2}}"
    (warning,) = check_campaign(campaign(tmp_path, STRUCTURES, stages), centres={"local": Centre()}).warnings
    assert warning.key == "stages[0].relax.resources.processes"


def test_this_machine_is_a_centre(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MATCOMPUTE_WORKSPACE", raising=False)
    centres = default_centres()
    assert centres["local"].cores >= 1
    assert centres["local"].clearance == "general"


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    made = run(new, ["first"])
    assert "wrote first.yaml" in made.output
    done = run(check, ["first.yaml"])
    assert done.exit_code == 0
    assert "campaign 'first' is ready to run" in done.output
    as_json = json.loads(run(check, ["first.yaml", "--json"]).output)
    assert as_json["structures"]["n_kept"] == 9
    assert json.loads(run(schema).output)["title"].startswith("matcompute campaign file")
    quick = run(check, ["first.yaml", "--quick", "--json"])
    assert json.loads(quick.output)["structures"] is None
    failed = run(check, ["none.yaml"])
    assert "no such file" in str(failed.exception)
    # Nothing but the file that `new` wrote.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.yaml"]


@pytest.mark.slow
def test_a_run_is_refused_before_anything_is_registered(tmp_path: Path) -> None:
    """`campaign run` makes the same checks: a graded campaign starts on no centre below its grade."""
    import os
    import subprocess
    import sys

    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in {"AIIDA_PATH", "MATCOMPUTE_WORKSPACE"}}
    environment |= {"HOME": str(home)}

    def matcompute(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "matcompute"), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert matcompute("init").returncode == 0
    campaign(tmp_path, STRUCTURES, STAGES, grade="core")
    done = matcompute("campaign", "run", "c.yaml")
    assert done.returncode == 2
    assert "cleared for 'general'" in done.stderr
    assert "c.yaml:8" in done.stderr
    assert json.loads(matcompute("campaign", "list", "--json").stdout or "[]") == []
