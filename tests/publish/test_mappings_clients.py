"""Independent validators on what the tables make, see ``validators.py``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matcompute.publish.build import build
from matcompute.publish.mappings import render
from matcompute.publish.optimade import write_optimade
from matcompute.publish.rights import Rights
from matcompute.publish.terms import terms_of

from .conftest import DATASET
from .mapping_release import make_release
from .validators import need_module, need_program, rocrate, run

pytest.importorskip("jsone", reason="json-e fills the mapping tables")


def test_croissant_validates_and_its_records_load(tmp_path: Path, write_dataset: Callable[..., Any]) -> None:
    need_program("mlcroissant")
    folder = tmp_path / "release"
    facts = make_release(folder, write_dataset)
    (folder / "croissant.json").write_text(json.dumps(render("croissant", facts)), encoding="utf-8")
    done = run("mlcroissant", "validate", "--jsonld", "croissant.json", cwd=folder)
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    assert "warning" not in report.lower(), report
    if run("python", "-c", "import pyarrow", cwd=folder).returncode == 0:
        load = ("load", "--jsonld", "croissant.json", "--record_set", "entries", "--num_records", "1")
        done = run("mlcroissant", *load, cwd=folder)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "entries/energy_status" in done.stdout


def test_ro_crate_meets_every_requirement(tmp_path: Path, write_dataset: Callable[..., Any]) -> None:
    folder = tmp_path / "release"
    facts = make_release(folder, write_dataset)
    (folder / "ro-crate-metadata.json").write_text(json.dumps(render("ro-crate", facts)), encoding="utf-8")
    valid, report = rocrate(folder, "ro-crate-1.2")
    assert valid, report[-4000:]


def test_both_crates_of_a_release_meet_every_requirement(
    tmp_path: Path, write_dataset: Callable[..., Any]
) -> None:
    """The release with all that a node may add, and the crate of its processes inside it."""
    import zipfile

    shard, archive, out = tmp_path / "a b.h5", tmp_path / "run.aiida", tmp_path / "out"
    write_dataset(shard, 20, dataset_id=DATASET)
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("metadata.json", "db.sqlite3"):
            file.writestr(name, "")
    paid = {"project": "2022YFB", "funder": "Ministry", "funder_id": "https://ror.org/0123abc45"}
    rights = {"holder": "Institute", **paid, "embargo": "2999-01-31", "patents": ("CN1",)}
    terms = terms_of([shard], "node-1", cstr="31253.11.x", doi="10.1234/x", keywords=("alloy",), **rights)
    build([shard], replace(terms, tier="member-1"), out, archive=archive)
    valid, report = rocrate(out, "ro-crate-1.2")
    assert valid, report[-4000:]
    valid, report = rocrate(out / "provenance", "process-run-crate-0.5")
    assert valid, report[-4000:]
    # The validator is one: an action without what ran in it is refused.
    crate = out / "provenance" / "ro-crate-metadata.json"
    document = json.loads(crate.read_text(encoding="utf-8"))
    for item in document["@graph"]:
        item.pop("instrument", None)
    crate.write_text(json.dumps(document), encoding="utf-8")
    valid, report = rocrate(out / "provenance", "process-run-crate-0.5")
    assert not valid
    assert "instrument" in report


def test_datacite_schema(tmp_path: Path, write_dataset: Callable[..., Any]) -> None:
    need_module("datacite", tmp_path)
    # The package stops at 4.5; of 4.6 the table uses nothing that 4.5 lacks.
    facts = make_release(tmp_path / "release", write_dataset)
    for name, item in (
        ("full", facts),
        ("bare", facts.model_copy(update={"contributors": (), "keywords": (), "rights": Rights()})),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(render("datacite", item)), encoding="utf-8")
        code = (
            f"import json; from datacite import schema45; schema45.validate(json.load(open({str(path)!r})))"
        )
        done = run("python", "-c", code, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]


def test_datacite_xsd(tmp_path: Path, write_dataset: Callable[..., Any]) -> None:
    """As XML, which `datacite` makes of it, against DataCite's own XSD of 4.6, which an ETH validator brings."""
    for name in ("datacite", "validator"):
        need_module(name, tmp_path)
    code = """
import json, sys
from importlib.resources import files
from datacite import schema45
from lxml import etree
schema = etree.XMLSchema(etree.parse(str(files("validator").joinpath("schema/metadata.xsd"))))
found = json.load(open(sys.argv[1]))
document = etree.fromstring(schema45.tostring(found).encode())
schema.assertValid(document)
print(etree.tostring(document).decode())
document.remove(document.find("{*}titles"))
assert not schema.validate(document)
"""
    facts = make_release(tmp_path / "release", write_dataset)
    funded = facts.rights.model_copy(
        update={
            "funder": "National Natural Science Foundation of China",
            "funder_id": "https://ror.org/01h0zpd94",
        }
    )
    registry = funded.model_copy(
        update={"funder_id": "https://doi.org/10.13039/501100001809", "project": None}
    )
    for rights, words in (
        (facts.rights, ("<funderName>:unav</funderName>", "<awardNumber>2022YFB0000000</awardNumber>")),
        (
            funded,
            ('funderIdentifierType="ROR">https://ror.org/01h0zpd94<', "Foundation of China</funderName>"),
        ),
        (registry, ('funderIdentifierType="Crossref Funder ID">https://doi.org/10.13039/501100001809<',)),
    ):
        path = tmp_path / "datacite.json"
        document = render("datacite", facts.model_copy(update={"rights": rights}))
        path.write_text(json.dumps(document), encoding="utf-8")
        done = run("python", "-W", "ignore", "-c", code, path, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        for word in words:
            assert word in done.stdout


def test_optimade_models(tmp_path: Path, write_dataset: Callable[..., Any]) -> None:
    need_module("optimade", tmp_path)
    folder, out = tmp_path / "release", tmp_path / "optimade.jsonl.gz"
    facts = make_release(folder, write_dataset)
    write_optimade([folder / "data" / "a.h5"], out, facts)
    code = f"""
import gzip, json
from optimade.models import StructureResource
from optimade.models.optimade_json import DataType
lines = [json.loads(line) for line in gzip.open({str(out)!r})]
for definition in lines[1]["properties"].values():
    DataType(definition["x-optimade-type"])
for entry in lines[2:]:
    StructureResource(**entry)
print(len(lines) - 2)
"""
    done = run("python", "-W", "ignore", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "50"
