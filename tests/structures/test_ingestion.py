"""Ingest: screened, each structure once, references added, everything else counted and named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from matcompute.dataset import Dataset, Quality
from matcompute.errors import InputError
from matcompute.structures import SourceFile, StructuresSpec, ingest, source_files
from matcompute_kernels import Batch, structure_hash


def specs(*items: dict) -> list[StructuresSpec]:
    return [StructuresSpec.model_validate({**item, "line": 10 + k}) for k, item in enumerate(items)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten frames: five good ones, two duplicates, three bad ones."""
    moved = bulk("NaCl", "rocksalt", a=5.64)
    moved.rotate(33, "y", rotate_cell=True)
    moved.positions += 0.7
    frames = [
        bulk("Cu"),  # 1
        bulk("NaCl", "rocksalt", a=5.64),  # 4
        bulk("Cu"),  # 8: the same
        moved,  # 11: the same
        Atoms("Fe2", positions=[[0, 0, 0], [0.2, 0, 0]], cell=[3, 3, 3], pbc=True),  # 15: overlap
        bulk("Fe"),  # 19
        Atoms("Fe", positions=[[0, 0, 0]], cell=[0, 0, 0], pbc=True),  # 22: no cell
        bulk("TiC", "rocksalt", a=4.33),  # 25
    ]
    write(tmp_path / "some.extxyz", frames)
    with (tmp_path / "some.extxyz").open("a") as stream:
        stream.write('1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nQq 0 0 0\n')  # 29
        stream.write('1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nPo 0 0 0\n')  # 32
    return tmp_path


def test_report(folder: Path) -> None:
    report = ingest(specs({"files": "some.extxyz"}), folder, references="auto")
    assert (report.n_read, report.n_kept, report.n_duplicates, report.n_rejected) == (10, 5, 2, 3)
    assert report.n_read == report.n_kept + len(report.rejects)
    assert {(r.cause, r.line) for r in report.rejects} == {
        ("duplicate", 8),
        ("duplicate", 11),
        ("overlap", 15),
        ("bad_cell", 22),
        ("unknown_species", 29),
    }
    assert all(r.source == "some.extxyz" for r in report.rejects)
    same = next(r for r in report.rejects if r.line == 11)
    assert same.reason == "the same as some.extxyz:4"
    assert [r.symbol for r in report.references] == ["C", "Cl", "Na", "Ti"]
    assert all(r.origin for r in report.references)
    assert report.elements == {"Cu": 1, "Na": 1, "Cl": 1, "Fe": 1, "Ti": 1, "C": 1, "Po": 1}
    assert report.unary == {"Cu", "Fe", "Po"}
    text = json.loads(json.dumps(report.as_dict()))
    assert text["n_total"] == 9
    assert len(text["rejects"]) == 5
    assert text["causes"] == {"duplicate": 2, "bad_cell": 1, "overlap": 1, "unknown_species": 1}


def test_dataset(folder: Path) -> None:
    out = folder / "structures.h5"
    report = ingest(specs({"files": "some.extxyz"}), folder, out, references=["Cu", "Na"])
    with Dataset(out) as ds:
        assert len(ds) == report.n_total == 6
        assert ds.entry_column("source_line").tolist() == [1, 4, 19, 25, 32, 0]
        flags = ds.entry_column("quality") & int(Quality.ELEMENTAL_REFERENCE)
        assert flags.astype(bool).tolist() == [False] * 5 + [True]
        assert ds.sources[0].path == "some.extxyz"
        assert len(ds.sources[0].sha256) == 64
        assert ds.sources[int(ds.entry_column("source_index")[5])].path.startswith(
            "elemental reference: Na: bcc"
        )
        assert ds.ids[1].startswith("ClNa-")
        batch = ds.batch()
        hashes = structure_hash(batch)
        assert ds.entry_column("structure_hash").astype("S32").tolist() == hashes.tolist()
        assert len(set(hashes.tolist())) == 6


def test_the_same_each_time(folder: Path) -> None:
    items = specs({"files": "some.extxyz"}, {"prototypes": ["B2", "L1_2"], "elements": ["Al", "Ni", "Fe"]})
    found = []
    for name in ("a.h5", "b.h5"):
        ingest(items, folder, folder / name, references="auto")
        with Dataset(folder / name) as ds:
            found.append(
                (ds.ids.tolist(), ds.entry_column("source_line").tolist(), ds.batch().positions.copy())
            )
    assert found[0][:2] == found[1][:2]
    np.testing.assert_array_equal(found[0][2], found[1][2])


def test_duplicates_across_sources(folder: Path) -> None:
    items = specs(
        {"prototypes": "fcc", "elements": ["Al", "Ni"]},
        {"prototypes": ["fcc"], "elements": ["Ni", "Cu"]},
    )
    report = ingest(items, folder, campaign_file=folder / "c.yaml")
    assert (report.n_read, report.n_kept, report.n_duplicates) == (4, 3, 1)
    (reject,) = report.rejects
    assert (reject.source, reject.line, reject.label) == ("c.yaml", 11, "fcc Ni")
    assert reject.reason == "the same as c.yaml:10"


def test_a_dataset_as_source(folder: Path) -> None:
    ingest(specs({"files": "some.extxyz"}), folder, folder / "first.h5")
    report = ingest(specs({"dataset": "first.h5"}), folder, folder / "second.h5", references=["Cu"])
    assert (report.n_read, report.n_kept) == (5, 5)
    with Dataset(folder / "first.h5") as a, Dataset(folder / "second.h5") as b:
        assert a.ids.tolist() == b.ids.tolist()
        assert b.entry_column("source_line").tolist() == [1, 2, 3, 4, 5]
        assert b.sources[0].path == "first.h5"


def test_a_selection_of_a_dataset(folder: Path) -> None:
    from matcompute.dataset import DatasetWriter, Metadata

    batch = Batch.from_atoms([bulk("Cu"), bulk("Al"), bulk("Ni")])
    with DatasetWriter(folder / "d.h5", Metadata()) as writer:
        writer.append(batch)
        writer.set_selection(
            "hull", np.array([1, 0, 1], dtype=np.uint8), expression="e_above_hull <= 0", inputs=[]
        )
    report = ingest(specs({"dataset": "d.h5", "selection": "hull"}), folder)
    assert report.elements == {"Cu": 1, "Ni": 1}
    with pytest.raises(InputError, match="no selection 'hul'; did you mean 'hull'"):
        ingest(specs({"dataset": "d.h5", "selection": "hul"}), folder)


def test_a_file_that_is_no_dataset_is_a_reject(folder: Path) -> None:
    (folder / "no.h5").write_text("no")
    report = ingest(specs({"dataset": "no.h5"}, {"prototypes": "fcc", "elements": "Al"}), folder)
    assert [(r.cause, r.source) for r in report.rejects] == [("unreadable", "no.h5")]


def test_nothing_left(folder: Path) -> None:
    write(folder / "bad.extxyz", Atoms("Fe", cell=[0, 0, 0], pbc=True))
    with pytest.raises(InputError, match=r"no structure is left of 1 read \(1 bad_cell\)"):
        ingest(specs({"files": "bad.extxyz"}), folder, folder / "out.h5")
    assert not (folder / "out.h5").exists()


def test_collected_files_keep_their_names(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As inside AiiDA: the bytes are elsewhere, what is recorded is the name in the campaign's folder."""
    items = specs({"prototypes": "fcc", "elements": "Al"}, {"files": "some.*"})
    elsewhere = tmp_path_factory.mktemp("node")
    found = source_files(items, folder)
    assert [[path.name for path in paths] for paths in found] == [[], ["some.extxyz"]]
    copy = elsewhere / "0-0"
    copy.write_bytes(found[1][0].read_bytes())
    files = [[], [SourceFile("some.extxyz", copy)]]
    report = ingest(
        items, elsewhere, elsewhere / "out.h5", files=files, campaign_file=elsewhere / "campaign.yaml"
    )
    assert report.n_kept == 6
    assert {r.source for r in report.rejects} == {"some.extxyz"}
    with Dataset(elsewhere / "out.h5") as ds:
        assert [source.path for source in ds.sources] == ["campaign.yaml", "some.extxyz"]


@pytest.mark.parametrize("name", ["POSCAR", "x.xsf", "x.yaml", "x.cif", "CONTCAR"])
def test_copies_under_other_names_read_alike(tmp_path: Path, name: str) -> None:
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = bulk("NaCl", "rocksalt", a=5.64)
    if name == "x.yaml":
        AseAtomsAdaptor.get_structure(atoms).to(str(tmp_path / name))
    else:
        write(tmp_path / name, atoms)
    copy = tmp_path / f"0000-{name}.part"
    copy.write_bytes((tmp_path / name).read_bytes())
    report = ingest(specs({"files": name}), tmp_path, files=[[SourceFile(name, copy)]])
    assert (report.n_kept, report.sources[0]["name"]) == (1, name)


def test_unsupported_species(folder: Path) -> None:
    report = ingest(specs({"files": "some.extxyz"}), folder)
    count, missing, example = report.unsupported([29, 11, 17])
    assert (count, missing) == (3, {6, 22, 26, 84})
    assert example == ("Fe", "some.extxyz", 19)
    assert report.unsupported(range(1, 119)) == (0, set(), None)


def test_unknown_references_are_told(folder: Path) -> None:
    write(folder / "fr.vasp", bulk("FrCl", "rocksalt", a=7.0))
    report = ingest(specs({"files": "fr.vasp"}), folder, references="auto")
    assert [r.symbol for r in report.references] == ["Cl"]
    assert [r.symbol for r in report.unknown_references] == ["Fr"]


def test_third_party_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter that another package registers is one key more in `structures:`."""
    import sys
    import types
    from importlib.metadata import EntryPoint

    from matcompute import plugins
    from matcompute.structures.base import SourceBlock, SourceParameters

    class Parameters(SourceParameters):
        random: int

    class RandomSource:
        name = "random"

        def files(self, parameters, base_dir):
            return []

        def count(self, parameters, base_dir):
            return parameters.random

        def blocks(self, parameters, context):
            row = context.table.add(context.campaign_file)
            n = parameters.random
            atoms = [Atoms("Al", cell=[4 + k, 4, 4], pbc=True) for k in range(n)]
            yield SourceBlock(
                Batch.from_atoms(atoms), np.full(n, row, "i4"), np.full(n, context.line), [""] * n
            )

    RandomSource.Parameters = Parameters
    module = types.ModuleType("third_party")
    module.RandomSource = RandomSource
    monkeypatch.setitem(sys.modules, "third_party", module)
    point = EntryPoint("random", "third_party:RandomSource", "matcompute.structure_sources")
    plugins.load.cache_clear()
    known = dict(plugins._group("matcompute.structure_sources"))
    monkeypatch.setattr(plugins, "_group", lambda group: {**known, "random": point})
    try:
        report = ingest(specs({"random": 3}), folder, campaign_file=folder / "c.yaml")
    finally:
        plugins.load.cache_clear()
    assert report.n_kept == 3
