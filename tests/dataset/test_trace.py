from __future__ import annotations

from pathlib import Path

import pytest

from matcompute.dataset import Dataset, UnknownNameError, trace_value


def test_chain_from_the_number_to_the_source_line(dataset_path: Path) -> None:
    with Dataset(dataset_path) as ds:
        steps = trace_value(ds, str(ds.ids[2]), "energy")
        value = ds.column("energy")[2]
    assert [s.kind for s in steps] == ["value", "process", "process", "method", "structure", "source"]
    number, relax, ingest, method, structure, source = steps
    assert number.details["value"] == value
    assert number.label.endswith(" eV")
    assert (relax.label, relax.details["code"], relax.details["computer"]) == (
        "relax",
        "matcompute-node",
        "local",
    )
    assert relax.details["code_version"] == "0.1.0"
    assert relax.details["model_sha256"] == "cd" * 32
    assert ingest.label == "ingest"
    assert method.label == "ase 3.29.0"
    assert structure.uuid == "00000000-0000-4000-8000-000000000003"
    assert source.label == "structures.extxyz:29"
    assert source.details["sha256"] == "ab" * 32
    assert source.uuid == ingest.details["inputs"]["source"]


def test_every_value_of_the_file_has_a_chain(dataset_path: Path) -> None:
    with Dataset(dataset_path) as ds:
        for row in range(len(ds)):
            for name in ds.properties:
                kinds = [s.kind for s in trace_value(ds, row, name)]
                assert kinds[0] == "value"
                assert kinds[-1] == "source"
                assert "process" in kinds


def test_a_failed_value_says_why(dataset_path: Path) -> None:
    with Dataset(dataset_path) as ds:
        details = trace_value(ds, 5, "energy")[0].details
    assert details["status"] == "crashed"
    assert details["message"] == "Rechnung abgestürzt: Å"


def test_unknown_names(dataset_path: Path) -> None:
    with Dataset(dataset_path) as ds:
        with pytest.raises(UnknownNameError, match="did you mean 'energy'"):
            trace_value(ds, 0, "energi")
        with pytest.raises(UnknownNameError, match="no entry"):
            trace_value(ds, "Al-0", "energy")
