"""Records, the checkpoint and its cost."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from matcompute.node.checkpoint import CheckpointWriter, Journal, count_journal, read_checkpoint
from matcompute.node.records import Record, pack_arrays, unpack_arrays


def record(i: int, digest: str = "d") -> Record:
    return Record(
        f"e{i}", digest, 1, "", 1, 0.5, 0.6, {"energy": np.asarray(-1.5 * i), "n_steps": np.asarray(7)},
        {"forces": np.full((4, 3), 0.1)}, np.zeros((4, 3)), np.eye(3),
    )  # fmt: skip


ARRAYS = hnp.arrays(
    st.sampled_from(["f8", "i4", "u1", "?"]), hnp.array_shapes(min_dims=0, min_side=0, max_dims=3)
)


@given(st.dictionaries(st.text(max_size=9), ARRAYS, max_size=4))
def test_arrays_survive_packing(arrays: dict[str, np.ndarray]) -> None:
    found = unpack_arrays(pack_arrays(arrays))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_damage_is_seen_and_objects_are_refused() -> None:
    block = pack_arrays({"a": np.arange(5.0)})
    for bad in (block[:-1], block + b"x", b"", b"\xff" * 30):
        with pytest.raises(ValueError):
            unpack_arrays(bad)
    with pytest.raises(TypeError, match="expected numbers"):
        pack_arrays({"a": np.array([object()])})


def test_written_records_come_back(tmp_path: Path) -> None:
    first, second = CheckpointWriter(tmp_path, 0), CheckpointWriter(tmp_path, 1)
    first.add(record(1))
    second.add(record(2))
    second.add(record(2, "other"))
    first.close()
    second.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rank-0.sqlite", "rank-1.sqlite"]
    assert read_checkpoint(tmp_path).keys() == {("e1", "d"), ("e2", "d"), ("e2", "other")}
    found = read_checkpoint(tmp_path, [("e2", "d")])
    assert list(found) == [("e2", "d")]
    one = found["e2", "d"]
    assert (one.status, one.cpu_s, one.values["energy"]) == (1, 0.5, -3.0)
    np.testing.assert_array_equal(one.site_values["forces"], np.full((4, 3), 0.1))
    assert one.cell is not None


def test_commit_is_cheap(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, 0)
    times = []
    for i in range(300):
        begun = time.perf_counter()
        writer.add(record(i))
        times.append(time.perf_counter() - begun)
    writer.close()
    assert np.median(times) < 1e-3
    assert len(read_checkpoint(tmp_path)) == 300


def test_journal_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for i in (1, 2, 2):
        journal.write("done", f"e{i}")
    journal.write("start", "e3")
    journal.close()
    with (tmp_path / "journal-0.jsonl").open("a") as file:
        file.write('{"event": "done", "id": "e')  # a line that a kill cut short
    assert count_journal(tmp_path) == {"e1": 1, "e2": 2}
