from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from matcompute.dataset import (
    Dataset,
    DatasetError,
    DatasetFileError,
    DatasetWriter,
    Metadata,
    PropertyInfo,
    Status,
    diff_datasets,
    merge_datasets,
    validate_dataset,
)
from matcompute_kernels import Batch

MakeDataset = Callable[..., Batch]


def test_merge_joins_entries_tables_and_selections(tmp_path: Path, make_dataset: MakeDataset) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    first, second = make_dataset(paths[0], 50, 0), make_dataset(paths[1], 30, 5, grade="important")
    steps: list[tuple[int, int]] = []
    assert merge_datasets(paths, tmp_path / "m.h5", on_progress=lambda *at: steps.append(at)) == 80
    assert steps[-1] == (80, 80)
    with Dataset(tmp_path / "m.h5") as ds, Dataset(paths[1]) as b:
        assert np.array_equal(ds.batch().positions, np.concatenate([first.positions, second.positions]))
        assert np.array_equal(ds.column("forces", slice(50, 80)), b.column("forces"), equal_nan=True)
        assert ds.metadata.grade == "important"
        assert (len(ds.methods), len(ds.sources), len(ds.provenance)) == (1, 1, 2)
        assert ds.selections["hull"].mask.tolist() == [k % 2 == 0 for k in range(50)] + [
            k % 2 == 0 for k in range(30)
        ]
        assert set(ds.process("energy").tolist()) == {1}
    assert validate_dataset(tmp_path / "m.h5", release=True) == []


def test_merge_of_one_file_equals_it(dataset_path: Path, tmp_path: Path) -> None:
    merge_datasets([dataset_path], tmp_path / "m.h5")
    with Dataset(dataset_path) as a, Dataset(tmp_path / "m.h5") as b:
        assert diff_datasets(a, b, atol=0).equal
        assert a.entry_column("last_modified").tolist() == b.entry_column("last_modified").tolist()


def test_rows_of_tables_follow(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    from matcompute.dataset import Method, ProcessRecord, Provenance, Source

    for name, part in (("a", 0), ("b", 1)):
        with DatasetWriter(tmp_path / f"{name}.h5") as writer:
            writer.add_source(Source("common"))
            source = writer.add_source(Source(name))
            method = writer.add_method(Method(name))
            uuid = f"00000000-0000-4000-8000-00000000000{part}"
            writer.set_provenance(Provenance((ProcessRecord(uuid, name, method_index=method),)))
            writer.append(
                make_batch(3, seed=part),
                results={"energy": [1.0, 2.0, 3.0]},
                process={"energy": [0, 0, 0]},
                entry={"source_index": [0, source, -1], "method_index": [method, -1, method]},
            )
    merge_datasets([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "m.h5")
    with Dataset(tmp_path / "m.h5") as ds:
        assert [s.path for s in ds.sources] == ["common", "a", "b"]
        assert ds.entry_column("source_index").tolist() == [0, 1, -1, 0, 2, -1]
        assert ds.entry_column("method_index").tolist() == [0, -1, 0, 1, -1, 1]
        assert ds.process("energy").tolist() == [0, 0, 0, 1, 1, 1]
        assert [p.method_index for p in ds.provenance.processes] == [0, 1]


def test_duplicates(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    for name, values in (("a", [1.0, 2.0]), ("b", [3.0, 4.0])):
        with DatasetWriter(tmp_path / f"{name}.h5") as writer:
            writer.append(make_batch(2), ids=["same", name], results={"energy": values})
    inputs = [tmp_path / "a.h5", tmp_path / "b.h5"]
    with pytest.raises(DatasetError, match="occur twice: same"):
        merge_datasets(inputs, tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()
    for policy, ids, energy in (
        ("first", ["same", "a", "b"], [1, 2, 4]),
        ("last", ["a", "same", "b"], [2, 3, 4]),
    ):
        merge_datasets(inputs, tmp_path / "m.h5", duplicates=policy, overwrite=True)  # type: ignore[arg-type]
        with Dataset(tmp_path / "m.h5") as ds:
            assert ds.ids.tolist() == ids
            assert ds.column("energy").tolist() == energy


def test_columns_of_one_part_only(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    for part, name in enumerate(("energy", "density")):
        with DatasetWriter(tmp_path / f"{name}.h5") as writer:
            writer.append(make_batch(2, seed=part), results={name: [1.0, 2.0]})
    merge_datasets([tmp_path / "energy.h5", tmp_path / "density.h5"], tmp_path / "m.h5")
    with Dataset(tmp_path / "m.h5") as ds:
        assert ds.status("energy").tolist() == [Status.OK] * 2 + [Status.NOT_ATTEMPTED] * 2
        assert ds.status("density").tolist() == [Status.NOT_ATTEMPTED] * 2 + [Status.OK] * 2


def test_units_must_agree(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    for part, units in enumerate(("eV", "Ry")):
        with DatasetWriter(tmp_path / f"{part}.h5") as writer:
            writer.declare(PropertyInfo("gap", units))
            writer.append(make_batch(1, seed=part), results={"gap": [1.0]})
    with pytest.raises(DatasetError, match="is in eV in .* and in Ry in"):
        merge_datasets([tmp_path / "0.h5", tmp_path / "1.h5"], tmp_path / "m.h5")


def test_a_missing_part_is_an_error(dataset_path: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError, match="gone.h5: no such file"):
        merge_datasets([dataset_path, tmp_path / "gone.h5"], tmp_path / "m.h5", Metadata())
    with pytest.raises(DatasetError, match="nothing to merge"):
        merge_datasets([], tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()
