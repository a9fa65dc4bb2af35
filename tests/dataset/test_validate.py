from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from matcompute.dataset import DatasetFileError, DatasetWriter, Violation, validate_dataset
from matcompute_kernels import Batch


def test_valid(dataset_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    assert validate_dataset(dataset_path, release=True, on_progress=lambda *at: steps.append(at)) == []
    assert steps[-1][0] == steps[-1][1]


def put(path: str, row: int, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[path][row] = value

    return change


def replaced(path: str, **how: Any) -> Callable[[h5py.File], None]:
    """Write a dataset anew with other properties."""

    def change(file: h5py.File) -> None:
        data = file[path][:]
        attrs = {k: v for k, v in file[path].attrs.items() if k != "DIMENSION_LIST"}
        del file[path]
        new = file.create_dataset(path, data=how.pop("data", data), **how)
        new.attrs.update(attrs)

    return change


def drop(path: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[path]

    return change


def drop_attribute(path: str, name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[path].attrs[name]

    return change


def swap_sites(file: h5py.File) -> None:
    file["entries/site_start"][4] += 1


FILTERS = {"chunks": (1024,), "maxshape": (None,), "shuffle": True, "compression": "gzip", "fletcher32": True}
CASES: list[tuple[str, Callable[[h5py.File], None], tuple[str, int | None, str]]] = [
    ("NaN where ok", put("results/energy", 0, np.nan), ("/results/energy", 0, "nan")),
    ("value where crashed", put("results/energy", 5, 1.0), ("/results/energy", 5, "status")),
    ("integer where crashed", put("results/n_steps", 5, 3), ("/results/n_steps", 5, "status")),
    ("infinite component", put("results/stress", 8, [0, 0, np.inf, 0, 0, 0]), ("/results/stress", 8, "nan")),
    ("unknown status", put("results/energy_status", 9, 77), ("/results/energy_status", 9, "flags")),
    ("site value", put("sites/forces", 0, np.nan), ("/sites/forces", 0, "nan")),
    ("cell", put("entries/cell", 12, np.nan), ("/entries/cell", 12, "finite-cell")),
    ("flat cell", put("entries/cell", 12, 1.0), ("/entries/cell", 12, "finite-cell")),
    ("pbc", put("entries/pbc", 3, [1, 2, 1]), ("/entries/pbc", 3, "pbc")),
    ("position", put("sites/position", 2, np.nan), ("/sites/position", 2, "finite-position")),
    ("species", put("sites/atomic_number", 2, 0), ("/sites/atomic_number", 2, "species")),
    ("no element", put("sites/atomic_number", 2, 130), ("/sites/atomic_number", 2, "species")),
    ("site_start", swap_sites, ("/entries/site_start", 4, "ragged")),
    ("row_size", put("entries/row_size", 49, 100), ("/entries/row_size", None, "ragged")),
    ("hash", put("entries/structure_hash", 6, b"0" * 32), ("/entries/structure_hash", 6, "hash")),
    ("formula", put("entries/formula", 6, b"Xx"), ("/entries/formula", 6, "formula")),
    ("method", put("entries/method_index", 1, 5), ("/entries/method_index", 1, "index")),
    ("source", put("entries/source_index", 1, -2), ("/entries/source_index", 1, "index")),
    ("process", put("results/energy_process", 1, 2), ("/results/energy_process", 1, "index")),
    ("no process", put("results/energy_process", 1, -1), ("/results/energy_process", 1, "provenance")),
    ("quality", put("entries/quality", 2, 1 << 20), ("/entries/quality", 2, "flags")),
    ("selection", put("selections/hull", 2, 9), ("/selections/hull", 2, "flags")),
    ("edges", put("provenance/input_row_size", 0, 5), ("/provenance/input_row_size", None, "ragged")),
    ("edge", put("provenance/input_uuid", 1, 0), ("/provenance/input_uuid", 1, "provenance")),
    ("process twice", lambda f: f["provenance/process_uuid"].__setitem__(1, f["provenance/process_uuid"][0]),
     ("/provenance/process_uuid", 1, "provenance")),
    ("id twice", lambda f: f["entries/id"].__setitem__(7, f["entries/id"][3]), ("/entries/id", 7, "ids")),
    ("empty id", put("entries/id", 7, b""), ("/entries/id", 7, "ids")),
    ("missing column", drop("entries/quality"), ("/entries/quality", None, "schema")),
    ("missing group", drop("provenance"), ("/provenance", None, "schema")),
    ("missing status", drop("results/energy_status"), ("/results/energy", None, "status")),
    ("missing site status", drop("results/forces_status"), ("/sites/forces", None, "status")),
    ("missing property", drop("results/energy"), ("/results/energy_status", None, "status")),
    ("units", drop_attribute("results/energy", "units"), ("/results/energy", None, "units")),
    ("site units", drop_attribute("sites/position", "units"), ("/sites/position", None, "units")),
    ("lzf", replaced("results/energy", chunks=(50,), compression="lzf"), ("/results/energy", None, "filters")),
    ("no checksum", replaced("results/energy", chunks=(50,), shuffle=True, compression="gzip"),
     ("/results/energy", None, "filters")),
    ("contiguous", replaced("results/energy"), ("/results/energy", None, "filters")),
    ("no scale", replaced("results/energy", **FILTERS), ("/results/energy", None, "dimension-scales")),
    ("dtype", replaced("results/energy_status", data=np.zeros(50, "f8"), **FILTERS),
     ("/results/energy_status", None, "dtype")),
    ("length", replaced("results/energy_status", data=np.zeros(49, "u1"), **FILTERS),
     ("/results/energy_status", None, "shape")),
    ("vlen text", replaced("entries/message", data=["a"] * 50, dtype=h5py.string_dtype(), chunks=(50,)),
     ("/entries/message", None, "no-vlen")),
    ("ASCII text", replaced("entries/message", data=np.array([b"a"] * 50), **FILTERS),
     ("/entries/message", None, "utf-8")),
    ("vlen attribute", lambda f: f["results/energy"].attrs.__setitem__("note", "text"),
     ("/results/energy@note", None, "no-vlen")),
    ("vocabulary", lambda f: f.attrs.__setitem__("grade", np.bytes_("secret")), ("/", None, "metadata")),
    ("external link", lambda f: f.__setitem__("more", h5py.ExternalLink("b.h5", "/")), ("/more", None, "links")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_violation_is_named(
    dataset_path: Path, change: Callable[[h5py.File], None], expected: tuple[str, int | None, str]
) -> None:
    with h5py.File(dataset_path, "r+") as file:
        change(file)
    found = validate_dataset(dataset_path)
    assert expected in [(v.path, v.row, v.rule) for v in found], [str(v) for v in found]


def test_virtual_dataset_is_not_the_truth(dataset_path: Path) -> None:
    with h5py.File(dataset_path, "r+") as file:
        del file["results/energy"]
        layout = h5py.VirtualLayout((50,), "f8")
        layout[:] = h5py.VirtualSource("elsewhere.h5", "energy", (50,))
        file.create_virtual_dataset("results/energy", layout)
    assert ("/results/energy", "filters") in [(v.path, v.rule) for v in validate_dataset(dataset_path)]


def test_damaged_chunk_is_named_with_its_rows(tmp_path: Path, make_dataset: Callable[..., Batch]) -> None:
    path = tmp_path / "a.h5"
    make_dataset(path, n=3000)
    with h5py.File(path) as file:
        offset = file["results/stress"].id.get_chunk_info(1).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 1000] ^= 0x10
    path.write_bytes(data)
    found = validate_dataset(path)
    assert [(v.path, v.row, v.rule) for v in found] == [("/results/stress", 1024, "checksum")]
    assert "rows 1024 to 2047 are damaged" in str(found[0])


def test_too_new_superblock(dataset_path: Path) -> None:
    data = dataset_path.read_bytes()
    assert data[8] == 3
    dataset_path.write_bytes(data[:8] + b"\x09" + data[9:])
    with pytest.raises(DatasetFileError, match="damaged"):
        validate_dataset(dataset_path)


def test_rows_past_the_limit_are_counted(dataset_path: Path) -> None:
    with h5py.File(dataset_path, "r+") as file:
        file["entries/formula"][:] = b"Xx"
    found = validate_dataset(dataset_path, limit=3)
    assert [str(v) for v in found][-1] == "/entries/formula: and 47 more (formula)"
    assert len(found) == 4
    assert found[0] == Violation(
        "/entries/formula", 0, "formula", "does not belong to the structure in this row"
    )


def test_release_rules(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(make_batch(2), results={"energy": [1.0, 2.0]})
    assert validate_dataset(tmp_path / "a.h5") == []
    found = {(v.path, v.rule) for v in validate_dataset(tmp_path / "a.h5", release=True)}
    assert {
        ("/@license", "release"),
        ("/@domain", "release"),
        ("/results/energy_process", "provenance"),
    } <= found


def test_release_needs_a_chain_to_a_source(dataset_path: Path) -> None:
    with h5py.File(dataset_path, "r+") as file:
        file["sources/node_uuid"][0] = 9
    assert validate_dataset(dataset_path) == []
    found = validate_dataset(dataset_path, release=True)
    assert [(v.path, v.row, v.rule) for v in found] == [("/provenance/process_uuid", 1, "provenance")]


def test_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError):
        validate_dataset(tmp_path / "a.h5")
