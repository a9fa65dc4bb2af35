from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from matcompute.dataset import (
    Dataset,
    DatasetError,
    DatasetFileError,
    DatasetLockedError,
    DatasetWriteError,
    DatasetWriter,
    Metadata,
    Method,
    PropertyInfo,
    Source,
    Status,
    validate_dataset,
)
from matcompute_kernels import Batch

MakeBatch = Callable[..., Batch]


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_default_status_is_ok_where_the_value_is_finite(tmp_path: Path, make_batch: MakeBatch) -> None:
    batch = make_batch(4, sites=(2, 2))
    forces = np.ones((8, 3))
    forces[3, 1] = np.nan
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(
            batch,
            results={"energy": [1, np.nan, 3, 4], "n_steps": [1, 2, -1, 4]},
            site_results={"forces": forces},
        )
    with Dataset(tmp_path / "a.h5") as ds:
        assert ds.status("energy").tolist() == [1, 0, 1, 1]
        assert ds.status("n_steps").tolist() == [1, 1, 0, 1]
        assert ds.status("forces").tolist() == [1, 0, 1, 1]
        assert np.isnan(ds.column("forces", slice(1, 2))).all()


def test_values_of_failures_are_emptied_and_not_converged_keeps_them(
    tmp_path: Path, make_batch: MakeBatch
) -> None:
    status = [Status.OK, Status.NOT_CONVERGED, Status.CRASHED]
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(
            make_batch(3),
            results={"energy": [1.0, 2.0, 3.0], "n_steps": [1, 2, 3]},
            status={"energy": status, "n_steps": status},
        )
    with Dataset(tmp_path / "a.h5") as ds:
        assert ds.column("energy")[:2].tolist() == [1, 2]
        assert np.isnan(ds.column("energy")[2])
        assert ds.column("n_steps").tolist() == [1, 2, -1]


def test_a_property_that_appears_late_is_filled_before(tmp_path: Path, make_batch: MakeBatch) -> None:
    batch = make_batch(3000)
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(batch[:1000], status={"eos_volume": np.full(1000, Status.FIT_FAILED)})
        writer.append(batch[1000:2000])
        writer.append(batch[2000:], results={"eos_volume": np.ones((1000, 7))})
    with Dataset(tmp_path / "a.h5") as ds:
        assert np.unique(ds.status("eos_volume", slice(0, 1000))).tolist() == [Status.FIT_FAILED]
        assert np.unique(ds.status("eos_volume", slice(1000, 2000))).tolist() == [Status.NOT_ATTEMPTED]
        assert np.isnan(ds.column("eos_volume", slice(0, 2000))).all()
        assert (ds.column("eos_volume", slice(2000, 3000)) == 1).all()
        assert ds.properties["eos_volume"].shape == (7,)
    assert validate_dataset(tmp_path / "a.h5") == []


def test_same_points_of_two_stages_may_differ_in_number(tmp_path: Path, make_batch: MakeBatch) -> None:
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(
            make_batch(2), results={"eos_volume": np.ones((2, 7)), "eos-2__eos_volume": np.ones((2, 9))}
        )
    assert validate_dataset(tmp_path / "a.h5") == []
    with (
        pytest.raises(DatasetError, match="'eos_point' is 7 in this file, not 9"),
        DatasetWriter(tmp_path / "b.h5") as writer,
    ):
        writer.append(make_batch(2), results={"eos_volume": np.ones((2, 7)), "eos_energy": np.ones((2, 9))})


def test_unknown_names_and_wrong_shapes(tmp_path: Path, make_batch: MakeBatch) -> None:
    batch = make_batch(2)
    cases: list[tuple[dict[str, object], str]] = [
        ({"results": {"bulk_modulis": [1, 2]}}, "did you mean 'bulk_modulus'"),
        ({"results": {"forces": [1, 2]}}, "per site"),
        ({"results": {"energy": [1, 2, 3]}}, "shape"),
        ({"results": {"energy": [1, 2]}, "status": {"energy": [1]}}, "status"),
        ({"results": {"energy": [1, 2]}, "status": {"energy": [1, 99]}}, "unknown value 99"),
        ({"entry": {"sorce_line": [1, 2]}}, "did you mean 'source_line'"),
        ({"ids": ["a"]}, "1 ids for 2"),
        ({"ids": ["a", "ä"]}, "ASCII"),
        ({"ids": ["a", "a"]}, "occur twice: a"),
        ({"ids": ["a", ""]}, "empty"),
    ]
    for arguments, text in cases:
        with pytest.raises(DatasetError, match=text), DatasetWriter(tmp_path / "a.h5") as writer:
            writer.append(batch, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_declared_property(tmp_path: Path, make_batch: MakeBatch) -> None:
    info = PropertyInfo("band_gap", "eV", "band gap", definition="Smallest Kohn-Sham gap.")
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.declare(info)
        writer.append(make_batch(2), results={"band_gap": [0.5, 1.5]})
    with Dataset(tmp_path / "a.h5") as ds:
        assert ds.properties["band_gap"] == info


def test_ids_are_unique_over_blocks(tmp_path: Path, make_batch: MakeBatch) -> None:
    batch = make_batch(40)
    with DatasetWriter(tmp_path / "a.h5") as writer:
        for k in range(40):
            writer.append(batch[k])
        with pytest.raises(DatasetError, match="occur twice"):
            writer.append(batch[17])


def test_methods_and_sources_are_stored_once(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "a.h5") as writer:
        assert [writer.add_method(Method("emt")) for _ in range(2)] == [0, 0]
        assert writer.add_method(Method("emt", cutoff=500)) == 1
        assert [
            writer.add_source(Source("x")),
            writer.add_source(Source("y")),
            writer.add_source(Source("x")),
        ] == [0, 1, 0]


def test_existing_file_is_kept_unless_overwrite(dataset_path: Path, make_batch: MakeBatch) -> None:
    before = dataset_path.read_bytes()
    with pytest.raises(DatasetWriteError, match="exists"):
        DatasetWriter(dataset_path)
    assert dataset_path.read_bytes() == before
    with DatasetWriter(dataset_path, overwrite=True) as writer:
        writer.append(make_batch(1))
    with Dataset(dataset_path) as ds:
        assert len(ds) == 1


def test_an_error_leaves_the_old_file_and_nothing_else(dataset_path: Path, make_batch: MakeBatch) -> None:
    before = dataset_path.read_bytes()
    with (
        contextlib.suppress(ZeroDivisionError),
        DatasetWriter(dataset_path, overwrite=True) as writer,
    ):
        writer.append(make_batch(1))
        raise ZeroDivisionError
    assert dataset_path.read_bytes() == before
    assert leftovers(dataset_path.parent) == []


def test_selection_of_wrong_length(tmp_path: Path, make_batch: MakeBatch) -> None:
    writer = DatasetWriter(tmp_path / "a.h5")
    writer.append(make_batch(2))
    writer.set_selection("top", [True, False, True])
    with pytest.raises(DatasetError, match="3 rows, the dataset 2"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_second_writer_gets_a_clear_error(dataset_path: Path) -> None:
    with DatasetWriter(dataset_path, overwrite=True):
        with pytest.raises(DatasetLockedError, match="another writer"):
            DatasetWriter(dataset_path, overwrite=True)
        with pytest.raises(DatasetLockedError, match="another writer"):
            DatasetWriter.append_to(dataset_path)
        # … from another process too
        code = f"from matcompute.dataset import DatasetWriter; DatasetWriter({str(dataset_path)!r}, overwrite=True)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "DatasetLockedError" in other.stderr
    with DatasetWriter.append_to(dataset_path):
        pass


def test_append(dataset_path: Path, make_batch: MakeBatch) -> None:
    with Dataset(dataset_path) as ds:
        old_batch, energy, messages = ds.batch(), ds.column("energy"), ds.entry_column("message")
    more = make_batch(1500, seed=9)
    with DatasetWriter.append_to(dataset_path) as writer:
        assert len(writer) == 50
        ids = ["an-id-that-is-much-wider-than-those-that-were-there", *(f"x-{k}" for k in range(1499))]
        writer.append(more, ids=ids, results={"energy": np.arange(1500.0), "density": np.ones(1500)})
        writer.set_selection("hull", np.ones(1550, bool))
    with Dataset(dataset_path) as ds:
        assert len(ds) == 1550
        assert ds.ids[50] == "an-id-that-is-much-wider-than-those-that-were-there"
        joined = Batch.concatenate([old_batch, more])
        assert np.array_equal(ds.batch().positions, joined.positions)
        assert np.array_equal(
            ds.column("energy"), np.concatenate([energy, np.arange(1500.0)]), equal_nan=True
        )
        assert ds.entry_column("message")[:50].tolist() == messages.tolist()
        assert np.isnan(ds.column("density")[:50]).all()
        assert ds.status("stress")[50:].tolist() == [Status.NOT_ATTEMPTED] * 1500
        assert len(ds.provenance) == 2
    rules = {v.rule for v in validate_dataset(dataset_path)}
    assert rules == {"provenance"}  # the new values name no process, the old ones do


def test_append_refuses_an_id_that_is_there(dataset_path: Path) -> None:
    with Dataset(dataset_path) as ds:
        batch, ids = ds.batch(slice(0, 1)), ds.ids[:1]
    before = dataset_path.read_bytes()
    with pytest.raises(DatasetError, match=str(ids[0])), DatasetWriter.append_to(dataset_path) as writer:
        writer.append(batch, ids=ids)
    assert dataset_path.read_bytes() == before


def test_append_to_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError, match="no such file"):
        DatasetWriter.append_to(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_shard_limit(tmp_path: Path, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matcompute.dataset.writer.MAX_ENTRIES", 10)
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(make_batch(10))
        with pytest.raises(DatasetError, match="at most 10 entries"):
            writer.append(make_batch(1, seed=5))


def test_messages_are_cut_between_characters(tmp_path: Path, make_batch: MakeBatch) -> None:
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(make_batch(2), entry={"message": ["ä" * 1000, "short"]})
    with Dataset(tmp_path / "a.h5") as ds:
        long, short = ds.entry_column("message")
        assert short == "short"
        assert long.startswith("äää")
        assert long.endswith("ä…")
        assert len(long.encode()) <= 400


def test_empty_dataset(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "a.h5"):
        pass
    with Dataset(tmp_path / "a.h5") as ds:
        assert len(ds) == 0
        assert len(ds.batch()) == 0
        assert ds.to_pandas().empty
    assert validate_dataset(tmp_path / "a.h5") == []


def test_closed_writer(tmp_path: Path, make_batch: MakeBatch) -> None:
    writer = DatasetWriter(tmp_path / "a.h5")
    writer.close()
    with pytest.raises(DatasetError, match="closed"):
        writer.append(make_batch(1))


WRITE = """
    import resource, signal, sys
    import numpy as np
    from matcompute.dataset import DatasetWriter
    from matcompute_kernels import Batch
    def block(k, n=2000):
        rng = np.random.default_rng(k)
        ptr = np.arange(n + 1) * 8
        cell = np.eye(3) * rng.uniform(3, 9, (n, 1, 1))
        return Batch(np.full(8 * n, 13), rng.normal(size=(8 * n, 3)), cell, np.ones((n, 3), bool), ptr)
"""


@pytest.mark.parametrize("limit", [300_000, 1_500_000])
def test_full_disk(dataset_path: Path, limit: int) -> None:
    """The system refuses writes past a size, as it does when the disk is full; early in appends, or late."""
    before = dataset_path.read_bytes()
    code = textwrap.dedent(WRITE) + textwrap.dedent(f"""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            with DatasetWriter({str(dataset_path)!r}, overwrite=True) as writer:
                for k in range(40):
                    writer.append(block(k))
        except Exception as error:
            print(type(error).__name__, error, getattr(error, "exit_code", None))
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert "DatasetWriteError" in done.stdout, done.stdout + done.stderr
    assert "no space left" in done.stdout
    assert dataset_path.read_bytes() == before
    assert leftovers(dataset_path.parent) == []


@pytest.mark.kill
def test_kill_leaves_the_old_file_and_the_next_writer_takes_over(
    dataset_path: Path, make_batch: MakeBatch
) -> None:
    before = dataset_path.read_bytes()
    code = textwrap.dedent(WRITE) + textwrap.dedent(f"""
        writer = DatasetWriter.append_to({str(dataset_path)!r})
        for k in range(10**6):
            writer.append(block(k))
            print(k, flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 3:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert dataset_path.read_bytes() == before
    with DatasetWriter.append_to(dataset_path) as writer:
        writer.append(make_batch(5, seed=77))
    with Dataset(dataset_path) as ds:
        assert len(ds) == 55
    assert leftovers(dataset_path.parent) == []


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetWriteError, match="folder does not exist"):
        DatasetWriter(tmp_path / "no" / "a.h5")


def test_metadata_round_trip(tmp_path: Path) -> None:
    metadata = Metadata(
        title="Aluminium — intermetallics",
        description="…",
        domain="advanced-nonferrous-metals",
        grade="important",
        tier="member-1",
        license="cc-by-4.0",
        shard="2/7",
        campaign="al",
        contributors=({"name": "Ada Å", "orcid": "0000-0002-1825-0097"},),
    )
    assert metadata.license == "CC-BY-4.0"
    with DatasetWriter(tmp_path / "a.h5", metadata):
        pass
    with Dataset(tmp_path / "a.h5") as ds:
        assert ds.metadata == metadata
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["node_class"] == b"computation"
