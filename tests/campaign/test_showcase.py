"""What others see of campaigns."""

from __future__ import annotations

from pathlib import Path

import pytest

from matcompute.campaign.showcase import Showcase
from matcompute.campaign.state import State
from matcompute.campaign.state.campaigns import register


def add(path: Path, name: str, text: str) -> None:
    with State(path) as state, state.write() as connection:
        register(
            connection,
            name=name,
            title=name.upper(),
            file="/secret/place/c.yaml",
            text=text,
            digest="0",
            budget_core_s=None,
            stages=[("relax", "relax", False), ("hull", "gate", True)],
        )


def test_progress_with_grade_and_tier(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    assert Showcase(path)() == []
    assert not path.exists()
    add(path, "a", "classification: {grade: important, tier: member-1}")
    add(path, "b", "name: b")
    add(path, "c", "- no mapping")
    found = {c["name"]: c for c in Showcase(path)()}
    assert (found["a"]["grade"], found["a"]["tier"]) == ("important", "member-1")
    assert (found["b"]["grade"], found["b"]["tier"]) == ("general", "public")
    assert (
        "tier" not in found["c"]
    )  # who may see it is unknown: the portal shows it to nobody but the highest
    assert [s["name"] for s in found["a"]["stages"]] == ["relax", "hull"]
    assert "/secret/place" not in repr(found)


def test_counts_are_not_made_anew_for_each_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.sqlite"
    add(path, "a", "")
    show = Showcase(path, seconds=1e9)
    first = show()
    add(path, "b", "")
    assert show() is first
    assert len(Showcase(path, seconds=0)()) == 2
