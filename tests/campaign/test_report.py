"""What `campaign report` shows of electronic structure: gaps in the table, densities of states as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcompute.campaign.report import build_report
from matcompute.dataset import (
    DatasetWriter,
    Metadata,
    Method,
    ProcessRecord,
    Provenance,
    Source,
    Status,
    uuid_array,
)
from matcompute_kernels import Batch

SOURCE, RUN = (f"00000000-0000-4000-8000-{k:012d}" for k in (1, 2))


@pytest.fixture
def bands(tmp_path: Path) -> Path:
    """Three entries: a semiconductor, a metal, and one whose bands failed."""
    from ase.build import bulk

    batch = Batch.from_atoms([bulk("Si"), bulk("Cu"), bulk("Ge")])
    path = tmp_path / "bands.h5"
    energy = np.linspace(-8, 6, 281)
    status = np.array([Status.OK, Status.OK, Status.NOT_CONVERGED], dtype="u1")
    names = ("band_gap", "dos_energy", "dos", "total_magnetization")
    facts = {"title": "bands", "domain": "frontier-materials", "license": "CC0-1.0"}
    with DatasetWriter(path, Metadata(**facts, campaign_uuid=RUN)) as writer:
        method = writer.add_method(Method("qe", code="pw.x", code_version="6.7", centre="local"))
        source = writer.add_source(Source("structures.extxyz", "ab" * 32, SOURCE))
        writer.set_provenance(Provenance((ProcessRecord(RUN, "bands", method_index=method),)))
        writer.append(
            batch,
            results={
                "band_gap": np.array([0.6, 0.0, np.nan]),
                "dos_energy": np.tile(energy, (3, 1)),
                "dos": np.abs(np.sin(energy))[None] * np.array([[2.0], [5.0], [np.nan]]),
                "total_magnetization": np.array([0.0, 0.0, np.nan]),
            },
            status=dict.fromkeys(names, status),
            process=dict.fromkeys(names, np.zeros(3, dtype=int)),
            entry={
                "source_index": np.full(3, source),
                "source_line": np.arange(3),
                "method_index": np.full(3, method),
                "node_uuid": np.repeat(uuid_array([SOURCE]), 3, axis=0),
            },
        )
    return path


def test_gaps_are_in_the_table(bands: Path) -> None:
    report = build_report(bands)
    assert ("band_gap", "eV") in report.columns
    gaps = {row["formula"]: row["band_gap"] for row in report.as_json()["entries"]}
    assert gaps == {"Si": 0.6, "Cu": 0.0, "Ge": None}
    assert report.failures == {Status.NOT_CONVERGED.label: 1}


def test_densities_of_states_are_drawn(bands: Path, tmp_path: Path) -> None:
    """A panel for each entry that has one, none for the one that failed."""
    report = build_report(bands, tmp_path / "report")
    picture = next(path for path in report.pictures if path.name == "dos.png")
    with Image.open(picture) as image:
        assert image.size == (960, 600)  # 150 dots an inch; 1 + 2 × 1.5 inches tall
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    blue = (pixels[:, :, 2] - pixels[:, :, 0]) > 60
    rows = blue.any(axis=1)
    panels = np.flatnonzero(np.diff(rows.astype(int)) == 1)
    assert len(panels) == 2


def test_no_picture_without_curves(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "none.h5") as writer:
        writer.append(_one(), results={"energy": np.zeros(1)})
    report = build_report(tmp_path / "none.h5", tmp_path / "out")
    assert not any(path.name == "dos.png" for path in report.pictures)


def _one() -> Batch:
    from ase.build import bulk

    return Batch.from_atoms([bulk("Si")])
