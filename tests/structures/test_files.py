"""Structure files: every frame with its line, bad ones named, none lost."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from pydantic import ValidationError

from matcompute.errors import InputError
from matcompute.structures import SourceTable, StructuresSpec, iter_structures, source_files
from matcompute.structures.files import FilesParameters, frame_slice
from matcompute.structures.readers import Frame, count_frames, read_frames


def read(folder: Path, **item: object) -> tuple[list, SourceTable]:
    table = SourceTable()
    return list(iter_structures([StructuresSpec.model_validate(item)], folder, table=table)), table


@pytest.fixture
def frames() -> list[Atoms]:
    return [bulk("Cu"), bulk("NaCl", "rocksalt", a=5.64, cubic=True), bulk("Ti"), bulk("Fe", cubic=True)]


def test_extxyz_lines(tmp_path: Path, frames: list[Atoms]) -> None:
    write(tmp_path / "many.extxyz", frames)
    text = (tmp_path / "many.extxyz").read_text().splitlines()
    (block,), table = read(tmp_path, files="many.extxyz")
    assert [file.name for file in table.files] == ["many.extxyz"]
    assert block.source_line.tolist() == [1, 4, 14, 18]
    for line, atoms in zip(block.source_line, frames, strict=True):
        assert text[line - 1] == str(len(atoms))
    for k, atoms in enumerate(frames):
        np.testing.assert_allclose(block.batch.to_atoms(k).positions, atoms.positions, atol=1e-8)
        np.testing.assert_allclose(block.batch.cell[k], atoms.cell.array, atol=1e-8)


def test_one_bad_frame_hides_no_other(tmp_path: Path, frames: list[Atoms]) -> None:
    write(tmp_path / "many.extxyz", frames)
    lines = (tmp_path / "many.extxyz").read_text().splitlines()
    lines[5] = lines[5].replace("Na", "Qq").replace("Cl", "Qq")  # the first atom of frame 2
    lines[15] = "Ti 0.0 zero 0.0"  # the first atom of frame 3
    (tmp_path / "many.extxyz").write_text("\n".join(lines) + "\n")
    (block,), _ = read(tmp_path, files="many.extxyz")
    assert block.source_line.tolist() == [1, 18]
    assert [(r.cause, r.line) for r in block.rejects] == [("unknown_species", 4), ("unreadable", 14)]
    assert "Qq" in block.rejects[0].reason


def test_broken_ends(tmp_path: Path, frames: list[Atoms]) -> None:
    write(tmp_path / "cut.extxyz", frames)
    lines = (tmp_path / "cut.extxyz").read_text().splitlines()
    (tmp_path / "cut.extxyz").write_text("\n".join(lines[:-1]) + "\n")
    (block,), _ = read(tmp_path, files="cut.extxyz")
    assert len(block) == 3
    assert block.rejects[0].line == 18
    assert "1 of 2 atoms" in block.rejects[0].reason
    lines[3] = "eight"
    (tmp_path / "cut.extxyz").write_text("\n".join(lines) + "\n")
    (block,), _ = read(tmp_path, files="cut.extxyz")
    assert len(block) == 1
    assert block.rejects[0].line == 4
    assert "'eight'" in block.rejects[0].reason


def test_cif_blocks(tmp_path: Path, frames: list[Atoms]) -> None:
    write(tmp_path / "two.cif", frames[:2])
    text = (
        "data_global\n_publ_section_title\n;\nA title\ndata_not_a_block\n;\n"
        + (tmp_path / "two.cif").read_text()
    )
    (tmp_path / "two.cif").write_text(text)
    (block,), _ = read(tmp_path, files="two.cif")
    lines = text.splitlines()
    assert len(block) == 2
    assert all(lines[line - 1].startswith("data_") for line in block.source_line)
    assert block.source_line[0] == 7
    assert sorted(block.batch.formulas()) == ["ClNa", "Cu"]
    assert not block.rejects


def test_disordered_cif_is_named(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    write(tmp_path / "mix.cif", atoms)
    text = (tmp_path / "mix.cif").read_text()
    row = next(line for line in text.splitlines() if line.split()[:1] == ["Cu"])
    half = row.replace("1.0000", "0.5000", 1)
    other = half.replace("Cu", "Au", 1)
    other = " ".join([*other.split()[:1], "Au9", *other.split()[2:]]).replace("Cu", "Au")
    (tmp_path / "mix.cif").write_text(text.replace(row, f"{half}\n{other}", 1))
    (block,), _ = read(tmp_path, files="mix.cif")
    assert len(block) == 0
    assert [r.cause for r in block.rejects] == ["disordered"]


@pytest.mark.parametrize(
    "name", ["POSCAR", "x.vasp", "x.traj", "x.xsf", "x.json", "x.db", "x.cfg", "x.gen", "x.res"]
)
def test_formats_that_ase_reads(tmp_path: Path, name: str) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    write(tmp_path / name, atoms)
    (block,), _ = read(tmp_path, files=name)
    assert block.source_line.tolist() == [1]
    assert block.batch.formulas() == ["ClNa"]
    assert block.batch.volumes[0] == pytest.approx(atoms.get_volume(), rel=1e-4)


def test_format_that_only_pymatgen_reads(tmp_path: Path) -> None:
    from pymatgen.io.ase import AseAtomsAdaptor

    structure = AseAtomsAdaptor.get_structure(bulk("NaCl", "rocksalt", a=5.64))
    structure.to(str(tmp_path / "x.yaml"))
    (block,), _ = read(tmp_path, files="x.yaml")
    assert block.batch.formulas() == ["ClNa"]


def test_compressed(tmp_path: Path, frames: list[Atoms]) -> None:
    write(tmp_path / "many.extxyz", frames)
    with gzip.open(tmp_path / "many.extxyz.gz", "wb") as stream:
        stream.write((tmp_path / "many.extxyz").read_bytes())
    (block,), _ = read(tmp_path, files="many.extxyz.gz")
    assert block.source_line.tolist() == [1, 4, 14, 18]
    whole = (tmp_path / "many.extxyz.gz").read_bytes()
    (tmp_path / "many.extxyz.gz").write_bytes(whole[: len(whole) // 2])
    (block,), _ = read(tmp_path, files="many.extxyz.gz")
    assert block.rejects[-1].cause == "unreadable"


def test_what_nobody_reads_is_reported(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing of interest\n")
    (tmp_path / "empty.cif").write_text("")
    (block,), _ = read(tmp_path, files=["notes.txt", "empty.cif"])
    assert len(block) == 0
    assert [(r.source, r.cause) for r in block.rejects] == [
        ("notes.txt", "unreadable"),
        ("empty.cif", "unreadable"),
    ]


def test_globs_are_sorted_and_each_file_is_read_once(tmp_path: Path, frames: list[Atoms]) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write(tmp_path / "deep" / "b.vasp", frames[0])
    write(tmp_path / "deep" / "a.vasp", frames[2])
    write(tmp_path / "deep" / "er" / "c.vasp", frames[3])
    (block,), table = read(tmp_path, files=["deep/**/*.vasp", "deep/a.vasp"])
    assert [file.name for file in table.files] == ["deep/a.vasp", "deep/b.vasp", "deep/er/c.vasp"]
    assert block.source_index.tolist() == [0, 1, 2]
    spec = StructuresSpec.model_validate({"files": "deep/*.vasp"})
    assert [path.name for path in source_files([spec], tmp_path)[0]] == ["a.vasp", "b.vasp"]


def test_missing_files(tmp_path: Path, frames: list[Atoms]) -> None:
    write(tmp_path / "copper.vasp", frames[0])
    with pytest.raises(InputError, match="did you mean 'copper.vasp'"):
        read(tmp_path, files="coper.vasp")
    with pytest.raises(InputError, match="no folder"):
        read(tmp_path, files="none/x.vasp")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder/\\*|is a folder"):
        read(tmp_path, files="folder")


@pytest.mark.parametrize(
    ("index", "chosen"), [("0", [0]), (-1, [3]), ("::2", [0, 2]), ("1:3", [1, 2]), ("-2:", [2, 3]), ("9", [])]
)
def test_index(tmp_path: Path, frames: list[Atoms], index: object, chosen: list[int]) -> None:
    write(tmp_path / "many.extxyz", frames)
    found, _ = read(tmp_path, files="many.extxyz", index=index)
    lines = [int(line) for block in found for line in block.source_line]
    assert lines == [[1, 4, 14, 18][k] for k in chosen]


def test_limit_and_block_size(tmp_path: Path, frames: list[Atoms]) -> None:
    write(tmp_path / "many.extxyz", frames * 5)
    spec = StructuresSpec.model_validate({"files": "many.extxyz", "limit": 7})
    sizes = [len(block) for block in iter_structures([spec], tmp_path, block_size=3)]
    assert sizes == [3, 3, 1]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    import tracemalloc

    with (tmp_path / "long.extxyz").open("w") as stream:
        for k in range(3000):
            stream.write(
                f'1\nLattice="{3 + k * 1e-4} 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nCu 0 0 0\n'
            )
    peaks = []
    for limit in (500, 3000):
        spec = StructuresSpec.model_validate({"files": "long.extxyz", "limit": limit})
        tracemalloc.start()
        assert sum(len(block) for block in iter_structures([spec], tmp_path, block_size=100)) == limit
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 200_000


def test_count_frames(tmp_path: Path, frames: list[Atoms]) -> None:
    write(tmp_path / "many.extxyz", frames)
    write(tmp_path / "many.traj", frames)
    assert count_frames(tmp_path / "many.extxyz") == count_frames(tmp_path / "many.traj") == 4
    labels = [item.label for item in read_frames(tmp_path / "many.traj") if isinstance(item, Frame)]
    assert labels == ["", "frame 2", "frame 3", "frame 4"]


@pytest.mark.parametrize("text", ["a", "", "1:2:3:4", "::0", "::-1"])
def test_wrong_index(text: str) -> None:
    with pytest.raises(ValueError):
        frame_slice(text)
    with pytest.raises(ValidationError, match="not an index"):
        FilesParameters.model_validate({"files": "x", "index": text})
