"""What identifies a campaign, and what its state looks like to people; the rest is tested in tests/engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from matcompute.campaign.control import digest
from matcompute.campaign.dispatcher.definition import definition, metadata_of
from matcompute.campaign.model import Campaign
from matcompute.campaign.progress import format_duration, outcome, render
from matcompute.campaign.state import State
from matcompute.campaign.state.campaigns import register
from matcompute.campaign.state.counts import CampaignStatus, StageStatus
from matcompute.dataset import Metadata

FILE = Path(__file__).parents[2] / "workflows" / "campaigns" / "fcc-alloys-emt.yaml"


def written(folder: Path, text: str) -> Campaign:
    path = folder / "campaign.yaml"
    path.write_text(text)
    return Campaign.load(path)


def test_the_digest_is_of_what_is_computed(tmp_path: Path) -> None:
    text = FILE.read_text()
    same = digest(Campaign.load(FILE))
    assert digest(written(tmp_path, "# a comment\n\n" + text)) == same
    assert digest(written(tmp_path, text.replace("core_hours: 0.5", "core_hours: 7"))) == same
    assert digest(written(tmp_path, text.replace("name: fcc-alloys-emt", "name: other"))) == same
    assert digest(written(tmp_path, text.replace("0.005 eV/angstrom", "5 meV/angstrom"))) == same
    assert digest(written(tmp_path, text.replace("points: 9", "points: 8"))) != same
    assert digest(written(tmp_path, text.replace("[Al, Cu, Ni]\n  -", "[Al, Cu]\n  -"))) != same


def test_the_definition_is_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(FILE.read_text())
    with State(tmp_path / "state.sqlite") as state, state.write() as connection:
        row = register(
            connection,
            name="renamed",
            title="",
            file=str(path),
            text=path.read_text(),
            digest="",
            budget_core_s=None,
            stages=[("relax", "relax", False)],
        )
    path.unlink()
    campaign = definition(row)
    assert (campaign.name, campaign.base_dir) == ("renamed", tmp_path)
    assert digest(campaign) == digest(Campaign.load(FILE))
    fields = metadata_of(row)
    metadata = Metadata(**{**fields, "contributors": tuple(fields["contributors"])})
    assert (metadata.campaign, metadata.campaign_uuid, metadata.license) == ("renamed", row.uuid, "CC-BY-4.0")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (3600, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


RUNNING = CampaignStatus(
    name="al",
    uuid="u",
    title="aluminium",
    state="running",
    reason="",
    hint="",
    wanted="run",
    n_materials=100,
    core_s=7200.0,
    budget_core_s=36000.0,
    created=0.0,
    started=0.0,
    finished=60.0,
    dataset=None,
    dispatcher_pid=1,
    stages=[
        StageStatus(
            "relax", "relax", False, "running", n_total=100, n_done=40, n_ok=38, n_failed=2, rate=2.0
        ),
        StageStatus("hull", "hull", True, "waiting"),
    ],
)


def shown(found: CampaignStatus) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(render(found))
    return console.export_text()


def test_the_display() -> None:
    text = shown(RUNNING)
    for part in ("relax", "40/100", "38", "2/s", "about 30 s left", "2 of 10 core-hours", "2 failed"):
        assert part in text
    assert RUNNING.eta_s == 30.0
    assert "no dispatcher is alive" in shown(dataclasses.replace(RUNNING, dispatcher_pid=None))


def test_the_outcome_says_what_to_do() -> None:
    done = dataclasses.replace(RUNNING, state="finished", dataset="datasets/al.h5")
    text = "\n".join(outcome(done))
    assert "dataset: datasets/al.h5" in text
    assert "matcompute campaign failures al" in text
    stopped = dataclasses.replace(RUNNING, state="stopped", reason="the disk is full", hint="free space")
    assert outcome(stopped) == ["stopped: the disk is full", "  hint: free space"]
    assert "campaign resume al" in outcome(dataclasses.replace(RUNNING, state="paused"))[-1]
