"""The summary of a release and its table, from shards written here."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matcompute.dataset import Dataset, DatasetWriter, Metadata, PropertyInfo, Quality, Status
from matcompute.dataset.errors import DatasetError
from matcompute.publish.parquet import write_summary_table
from matcompute.publish.summary import summarize_release
from matcompute_kernels import Batch


def two(tmp_path: Path) -> list[Path]:
    """Two shards, the second with a property of its own: NaCl twice and Al, one value without convergence."""
    salt = Batch(
        np.array([11, 17, 17, 11], "u1"),
        np.arange(12.0).reshape(4, 3),
        np.repeat(np.eye(3)[None] * 5.6, 2, axis=0),
        np.ones((2, 3), bool),
        np.array([0, 2, 4]),
    )
    metal = Batch(
        np.array([13], "u1"), np.zeros((1, 3)), np.eye(3)[None] * 2.9, np.ones((1, 3), bool), np.array([0, 1])
    )
    first, second = tmp_path / "a.h5", tmp_path / "b.h5"
    with DatasetWriter(first, Metadata(title="a")) as writer:
        writer.append(
            salt,
            ids=["salt-1", "salt-2"],
            results={"energy": np.array([-3.0, -5.0])},
            status={"energy": np.array([Status.OK, Status.NOT_CONVERGED], "u1")},
        )
        writer.set_selection("hull", np.array([True, False]))
    with DatasetWriter(second, Metadata(title="b")) as writer:
        writer.append(
            metal,
            ids=["al"],
            results={"energy": np.array([np.nan]), "density": np.array([2.7])},
            status={"energy": np.array([Status.CRASHED], "u1"), "density": np.array([Status.OK], "u1")},
            entry={"quality": np.array([Quality.FAILED])},
        )
    return [first, second]


@pytest.mark.parametrize("block", [1, 2, 1000])
def test_summary_counts_what_is_there(tmp_path: Path, block: int) -> None:
    seen: list[tuple[int, int]] = []
    summary = summarize_release(two(tmp_path), block=block, on_progress=lambda a, b: seen.append((a, b)))
    assert (summary["entries"], summary["sites"], summary["shards"], summary["failed"]) == (3, 5, 2, 1)
    assert summary["elements"] == [
        {"symbol": "Al", "entries": 1},
        {"symbol": "Cl", "entries": 2},
        {"symbol": "Na", "entries": 2},
    ]
    assert summary["chemical_systems"] == 2
    density, energy = summary["properties"]
    assert (energy["name"], energy["units"], energy["count"]) == ("energy", "eV", 2)
    assert energy["statuses"] == {"crashed": 1, "not_converged": 1, "ok": 1}
    assert (energy["min"], energy["mean"], energy["max"]) == (-5.0, -4.0, -3.0)
    assert (density["name"], density["count"], density["max"]) == ("density", 1, 2.7)
    assert summary["n_sites"] == {"min": 1.0, "mean": 5 / 3, "max": 2.0}
    assert summary["selections"] == [{"name": "hull", "expression": "", "passed": 1}]
    assert seen[-1] == (3, 3)
    # JSON, strictly: NaN would not be.
    json.dumps(summary, allow_nan=False)


def test_summary_agrees_with_the_dataset_module(tmp_path: Path, write_dataset: Callable[..., Batch]) -> None:
    from matcompute.dataset import summarize

    path = tmp_path / "entries.h5"
    write_dataset(path)
    with Dataset(path) as dataset:
        other = summarize(dataset)
    summary = summarize_release([path], block=7)
    assert {e["symbol"]: e["entries"] for e in summary["elements"]} == other["elements"]
    ours = {p["name"]: p for p in summary["properties"]}
    assert ours.keys() == other["properties"].keys()
    for name, item in other["properties"].items():
        assert ours[name]["statuses"] == item["statuses"]
        if "mean" in item:
            assert [ours[name][k] for k in ("min", "max")] == [item["min"], item["max"]]
            assert ours[name]["mean"] == pytest.approx(item["mean"])
    assert {p["part"] for p in summary["processes"]} == {"raw", "derived"}


def test_table_has_null_where_there_is_no_value(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    out = tmp_path / "summary.parquet"
    assert write_summary_table(two(tmp_path), out, dataset_id="d", block=2) == 3
    table = pq.read_table(out)
    rows: list[dict[str, Any]] = table.to_pylist()
    assert [r["id"] for r in rows] == ["salt-1", "salt-2", "al"]
    assert [r["elements"] for r in rows] == ["Cl-Na", "Cl-Na", "Al"]
    assert [r["energy"] for r in rows] == [-3.0, -5.0, None]
    assert [r["energy_status"] for r in rows] == ["ok", "not_converged", "crashed"]
    assert [r["density"] for r in rows] == [None, None, 2.7]
    assert [r["density_status"] for r in rows] == ["not_attempted", "not_attempted", "ok"]
    assert [r["hull"] for r in rows] == [True, False, None]
    assert table.schema.field("energy").metadata[b"units"] == b"eV"
    assert table.schema.metadata[b"dataset_id"] == b"d"
    assert pq.ParquetFile(out).metadata.num_row_groups == 2
    summary = summarize_release([tmp_path / "a.h5", tmp_path / "b.h5"])
    assert [c["name"] for c in summary["columns"]] == table.column_names


def test_table_is_the_same_bytes_twice_and_leaves_nothing(tmp_path: Path) -> None:
    shards = two(tmp_path)
    for name in ("1.parquet", "2.parquet"):
        write_summary_table(shards, tmp_path / name)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.parquet", "2.parquet", "a.h5", "b.h5"]


def test_long_vectors_and_site_values_stay_out_of_the_table(
    tmp_path: Path, write_dataset: Callable[..., Batch]
) -> None:
    write_dataset(tmp_path / "entries.h5")
    summary = summarize_release([tmp_path / "entries.h5"])
    names = [c["name"] for c in summary["columns"]]
    assert "stress_xx" in names
    assert "eos_volume_6" in names
    assert not [n for n in names if n.startswith("forces")]


def test_shards_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    shards = two(tmp_path)
    metal = Batch(
        np.array([13], "u1"), np.zeros((1, 3)), np.eye(3)[None], np.ones((1, 3), bool), np.array([0, 1])
    )
    other = tmp_path / "c.h5"
    with DatasetWriter(other, Metadata(title="c")) as writer:
        writer.declare(PropertyInfo("energy", "J"))
        writer.append(metal, results={"energy": np.array([1.0])})
    with pytest.raises(DatasetError, match=r"c\.h5: property 'energy' is J"):
        summarize_release([*shards, other])


def test_memory_does_not_grow_with_the_release(tmp_path: Path, write_dataset: Callable[..., Batch]) -> None:
    peaks = []
    for n in (1000, 8000):
        path = tmp_path / f"{n}.h5"
        write_dataset(path, n)
        summarize_release([path], block=250)
        tracemalloc.start()
        summarize_release([path], block=250)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Eight times the entries: the set of chemical systems and the gates' masks are what grows.
    assert peaks[1] < 2 * peaks[0], peaks
