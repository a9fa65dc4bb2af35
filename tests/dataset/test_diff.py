from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from matcompute.dataset import Dataset, DatasetWriter, Difference, diff_datasets, merge_datasets


@pytest.fixture
def pair(dataset_path: Path) -> tuple[Path, Path]:
    other = dataset_path.with_name("other.h5")
    shutil.copy(dataset_path, other)
    return dataset_path, other


def compare(pair: tuple[Path, Path], **options: float) -> Difference:
    with Dataset(pair[0]) as a, Dataset(pair[1]) as b:
        return diff_datasets(a, b, **options)  # type: ignore[arg-type]


def test_equal_in_any_order(pair: tuple[Path, Path]) -> None:
    with Dataset(pair[0]) as ds:
        rows = np.random.default_rng(0).permutation(50)
        with DatasetWriter(pair[1], overwrite=True) as writer:
            names = [n for n, i in ds.properties.items() if i.per == "entry"]
            writer.append(
                ds.batch(rows),
                ids=ds.ids[rows],
                results={n: ds.column(n, rows) for n in names},
                site_results={"forces": ds.column("forces", rows)},
                status={n: ds.status(n, rows) for n in ds.properties},
                entry={
                    "message": ds.entry_column("message", rows).tolist(),
                    "quality": ds.entry_column("quality", rows),
                },
            )
            writer.set_selection("hull", ds.selections["hull"].mask[rows])
    difference = compare(pair, atol=0)
    assert difference.equal, difference.changed[:3]
    assert difference.compared == 50


def test_a_value_beyond_the_tolerance(pair: tuple[Path, Path]) -> None:
    with h5py.File(pair[1], "r+") as file:
        file["results/energy"][4] += 1e-3
        ids = file["entries/id"].asstr()[:]
        site = int(file["entries/site_start"][9])
        file["sites/forces"][site, 1] += 0.5
    changes = compare(pair).changed
    assert [(c.id, c.column) for c in changes] == [(ids[4], "energy"), (ids[9], "forces")]
    assert changes[0].difference == pytest.approx(1e-3)
    assert changes[1].difference == pytest.approx(0.5)
    assert [c.column for c in compare(pair, atol=0.01).changed] == ["forces"]
    assert compare(pair, atol=1).equal
    assert compare(pair, atol=1).worst["forces"] == pytest.approx(0.5)


def test_a_lost_value_is_beyond_every_tolerance(pair: tuple[Path, Path]) -> None:
    with h5py.File(pair[1], "r+") as file:
        file["results/energy"][0] = np.nan
        file["results/energy_status"][0] = 4
    assert [c.column for c in compare(pair, atol=1e9).changed] == ["energy_status", "energy"]


def test_structures_messages_and_selections(pair: tuple[Path, Path]) -> None:
    with h5py.File(pair[1], "r+") as file:
        file["sites/position"][0, 0] += 0.1
        file["entries/cell"][1, 0, 0] += 0.1
        file["entries/message"][2] = "x"
        file["selections/hull"][3] = 1
    assert {c.column for c in compare(pair).changed} == {"position", "cell", "message", "selections/hull"}


def test_added_and_removed(pair: tuple[Path, Path]) -> None:
    with Dataset(pair[0]) as ds:
        ids = ds.ids
        with DatasetWriter(pair[1], overwrite=True) as writer:
            writer.append(ds.batch(slice(1, 50)), ids=ids[1:], results={"density": np.ones(49)})
            writer.append(ds.batch(slice(0, 1)), ids=["new"])
    difference = compare(pair)
    assert difference.added == ("new",)
    assert difference.removed == (ids[0],)
    assert difference.columns_added == ("density",)
    assert "energy" in difference.columns_removed
    assert "selections/hull" in difference.columns_removed


def test_ignored_property(pair: tuple[Path, Path]) -> None:
    with h5py.File(pair[1], "r+") as file:
        file["results/energy"][4] += 1
    with Dataset(pair[0]) as a, Dataset(pair[1]) as b:
        assert diff_datasets(a, b, ignore=["energy"]).equal


def test_json(pair: tuple[Path, Path], tmp_path: Path) -> None:
    import json

    with h5py.File(pair[1], "r+") as file:
        file["results/stress"][4] += 1
    merge_datasets([pair[1]], tmp_path / "m.h5")
    assert json.loads(json.dumps(compare(pair).to_json()))["changed"][0]["column"] == "stress"
