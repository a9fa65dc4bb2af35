from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from matcompute.dataset import DatasetWriter, Metadata
from matcompute.publish.events import Events
from matcompute.publish.gates import Finding, GateReport, Limits, check, structures_digest
from matcompute.publish.manifest import Manifest
from matcompute.publish.terms import terms_of

from .conftest import DATASET

Write = Callable[..., Any]
Make = Callable[..., Manifest]
LIMITS = Limits(0.3, 0.9)


@pytest.fixture
def shard(tmp_path: Path, write_dataset: Write) -> Path:
    path = tmp_path / "entries.h5"
    write_dataset(path, 20, dataset_id=DATASET, description="Random alloys", campaign="test")
    return path


def run(path: Path, events: Path, **changes: str) -> GateReport:
    return check([path], replace(terms_of([path], "node-1"), **changes), Events(events), limits=LIMITS)  # type: ignore[arg-type]


def of(report: GateReport, gate: str) -> list[Finding]:
    return [f for f in report.findings if f.gate == gate]


def test_a_good_dataset_passes(shard: Path, tmp_path: Path) -> None:
    report = run(shard, tmp_path / "e")
    assert not report.blocked
    assert {f.gate for f in report.findings if f.result == "passed"} >= {
        "schema",
        "units",
        "values",
        "licence",
    }
    assert of(report, "converged")[0].result == "warning"
    assert report.structures_sha256 == structures_digest([shard])
    report.require()


@pytest.mark.parametrize(
    ("gate", "path", "damage"),
    [
        ("values", "results/energy", lambda d: d.__setitem__(0, np.nan)),
        ("units", "results/energy", lambda d: d.attrs.__delitem__("units")),
        ("provenance", "results/energy_process", lambda d: d.__setitem__(0, -1)),
        ("schema", "entries/structure_hash", lambda d: d.__setitem__(0, b"0" * 32)),
    ],
)
def test_damage_blocks(
    shard: Path, tmp_path: Path, gate: str, path: str, damage: Callable[[Any], None]
) -> None:
    with h5py.File(shard, "r+") as file:
        damage(file[path])
    report = run(shard, tmp_path / "e")
    assert [f.result for f in of(report, gate)] == ["blocked"]
    assert path in of(report, gate)[0].message
    assert report.blocked


@pytest.mark.parametrize(
    ("changes", "gate", "result"),
    [
        ({"licence": ""}, "licence", "blocked"),
        ({"licence": "LicenseRef-ours"}, "licence", "warning"),
        ({"title": ""}, "terms", "blocked"),
        ({"domain": ""}, "terms", "blocked"),
        ({"description": ""}, "terms", "warning"),
        ({"grade": "important"}, "grade", "blocked"),
        ({"grade": "important", "tier": "member-1"}, "grade", "passed"),
        ({"lowest_grade": "core", "tier": "member-1"}, "grade", "blocked"),
    ],
)
def test_terms(shard: Path, tmp_path: Path, changes: dict[str, str], gate: str, result: str) -> None:
    assert [f.result for f in of(run(shard, tmp_path / "e", **changes), gate)] == [result]


def test_duplicates(shard: Path, tmp_path: Path, make_manifest: Make) -> None:
    events = Events(tmp_path / "e")
    other = "22222222-2222-4222-8222-222222222222"
    events.published(make_manifest(dataset_id=other, structures_sha256=structures_digest([shard])))
    found = of(run(shard, tmp_path / "e"), "duplicate")
    assert [f.result for f in found] == ["warning"]
    assert other in found[0].message
    from matcompute.publish.canonical import sha256_file

    third = "33333333-3333-4333-8333-333333333333"
    record = {"path": "data/x.h5", "size": 1, "sha256": sha256_file(shard), "media_type": "x", "role": "data"}
    events.published(make_manifest(dataset_id=third, files=[record]))
    found = of(run(shard, tmp_path / "e"), "duplicate")
    assert [f.result for f in found] == ["blocked", "warning"]
    assert third in found[0].message


def test_no_entry_and_no_provenance(tmp_path: Path) -> None:
    path = tmp_path / "empty.h5"
    with DatasetWriter(path, Metadata(title="x")):
        pass
    report = run(path, tmp_path / "e")
    assert [f.result for f in of(report, "converged")] == ["blocked"]
    assert {"blocked"} == {f.result for f in of(report, "provenance")}
