"""Mapping tables and what they make of a release."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from matcompute.dataset import Dataset, Status
from matcompute.publish.facts import Contributor, Identifiers, NodeFact, ReleaseFacts
from matcompute.publish.mappings import MappingError, load_table, render, table_names
from matcompute.publish.optimade import anonymous_formula, write_optimade

from .mapping_release import make_release

pytest.importorskip("jsone", reason="json-e fills the mapping tables")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "release"


@pytest.fixture
def facts(folder: Path, write_dataset: Callable[..., Any]) -> ReleaseFacts:
    return make_release(folder, write_dataset)


def own_table(tables: Path, name: str, document: Any, **more: Any) -> Path:
    tables.mkdir(exist_ok=True)
    head = {"schema": "matcompute.mapping/v1", "name": name, "version": "7", "standard": "ours"}
    path = tables / f"{name}.yaml"
    path.write_text(yaml.safe_dump(head | {"document": document} | more, sort_keys=False), encoding="utf-8")
    return path


def test_all_tables_render_strict_json_twice_the_same(facts: ReleaseFacts) -> None:
    assert table_names() == [
        "croissant",
        "cstm",
        "datacite",
        "optimade",
        "process-run",
        "ro-crate",
        "schema-org",
    ]
    for name in table_names():
        text = json.dumps(render(name, facts), allow_nan=False)
        assert text == json.dumps(render(name, facts))
        assert "null" not in text.replace('"null"', "")


def test_all_tables_render_the_barest_release(facts: ReleaseFacts) -> None:
    bare = ReleaseFacts(
        dataset_id=facts.dataset_id,
        version=1,
        title="Bare",
        created=facts.created,
        node=NodeFact(name="Node"),
        domain="frontier-materials",
        licence="LicenseRef-own",
        summary=facts.summary,
    )
    for name in table_names():
        text = json.dumps(render(name, bare))
        assert "doi" not in text.lower().replace("https://registry.identifiers.org/registry/doi", "")
        assert "cstr" not in text.lower()
        assert "spdx.org" not in text
    assert render("datacite", bare)["creators"] == [{"name": "Node", "nameType": "Organizational"}]
    assert render("schema-org", bare)["license"] == "LicenseRef-own"


def test_identifiers_and_licence_reach_every_document(facts: ReleaseFacts) -> None:
    for name in ("cstm", "datacite", "ro-crate", "schema-org"):
        text = json.dumps(render(name, facts))
        for wanted in ("10.1234/abc", "12345.11.abc", facts.dataset_id, "CC-BY-4.0", "0000-0002-1825-0097"):
            assert wanted in text, (name, wanted)


def test_ro_crate_links_lead_somewhere(facts: ReleaseFacts) -> None:
    graph = render("ro-crate", facts)["@graph"]
    here = {item["@id"] for item in graph}
    assert len(here) == len(graph)
    root = next(item for item in graph if item["@id"] == "./")
    assert {p["@id"] for p in root["hasPart"]} == {f.path for f in facts.files}

    def links(value: Any) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(links, value)) if value else set()
        if isinstance(value, dict):
            if set(value) == {"@id"}:
                return {value["@id"]}
            return links(list(value.values()))
        return set()

    assert links(graph) - {"https://w3id.org/ro/crate/1.2"} <= here
    by_name = {item.get("name"): item for item in graph}
    assert by_name["ase"]["@type"] == "SoftwareApplication"
    assert by_name["own"]["@type"] == "CreativeWork"


def test_names_of_files_become_addresses(facts: ReleaseFacts) -> None:
    odd = facts.files[0].model_copy(update={"path": "data/Ni Al 合金.h5"})
    crate = render("ro-crate", facts.model_copy(update={"files": (odd,)}))
    address = "data/Ni%20Al%20%E5%90%88%E9%87%91.h5"
    (item,) = [item for item in crate["@graph"] if item["@type"] == "File"]
    assert (item["@id"], item["name"]) == (address, "data/Ni Al 合金.h5")
    root = next(item for item in crate["@graph"] if item["@id"] == "./")
    assert root["hasPart"] == [{"@id": address}]
    (item,) = render("croissant", facts.model_copy(update={"files": (odd,)}))["distribution"]
    assert (item["@id"], item["contentUrl"]) == ("file-0", address)


def test_croissant_fields_are_the_columns_of_the_table(facts: ReleaseFacts, folder: Path) -> None:
    import pyarrow.parquet as pq

    document = render("croissant", facts)
    (records,) = document["recordSet"]
    names = [f["source"]["extract"]["column"] for f in records["field"]]
    assert names == pq.read_schema(folder / "summary.parquet").names
    without = facts.model_copy(update={"files": facts.files[:1]})
    assert "recordSet" not in render("croissant", without)


def test_cstm_parts_hold_each_action_once(facts: ReleaseFacts) -> None:
    document = render("cstm", facts)
    raw = [item["identifier"] for item in document["raw_data"]]
    derived = [item["identifier"] for item in document["derived_data"]["actions"]]
    wanted = {f"urn:uuid:{p['uuid']}" for p in facts.summary["processes"]}
    assert set(raw) | set(derived) == wanted
    assert len(raw) + len(derived) == len(wanted)
    assert document["raw_data"][0]["computer"] == "local"
    (sample,) = document["sample_information"]
    # The sample is the input of the first action.
    assert sample["identifier"] in document["derived_data"]["actions"][0]["inputs"]
    assert document["core_metadata"]["volume"]["entries"] == 50


def test_optimade_lines_hold_the_dataset(facts: ReleaseFacts, folder: Path, tmp_path: Path) -> None:
    shard, out = folder / "data" / "a.h5", tmp_path / "optimade.jsonl.gz"
    assert write_optimade([shard], out, facts, block=7) == 50
    again = tmp_path / "again.jsonl.gz"
    write_optimade([shard], again, facts)
    assert out.read_bytes() == again.read_bytes()
    with gzip.open(out, "rt", encoding="utf-8") as stream:
        header, info, *entries = [json.loads(line) for line in stream]
    assert header["x-optimade"]["meta"]["api_version"] == "1.2.0"
    assert (info["type"], info["id"]) == ("info", "structures")
    assert set(info["properties"]) <= set(info["output_fields_by_format"]["json"])
    with Dataset(shard) as dataset:
        assert [e["id"] for e in entries] == dataset.ids.tolist()
        assert len({e["attributes"]["immutable_id"] for e in entries}) == 50
        energy, status = dataset.column("energy"), dataset.status("energy")
        batch = dataset.batch()
        for k, entry in enumerate(entries):
            a = entry["attributes"]
            sites = slice(int(batch.ptr[k]), int(batch.ptr[k + 1]))
            np.testing.assert_array_equal(a["cartesian_site_positions"], batch.positions[sites])
            np.testing.assert_array_equal(a["lattice_vectors"], batch.cell[k])
            assert a["chemical_formula_reduced"] == dataset.entry_column("formula", slice(k, k + 1))[0]
            assert a["_matcompute_energy_status"] == Status(int(status[k])).label
            kept = Status(int(status[k])).keeps_value
            assert a["_matcompute_energy"] == (energy[k] if kept else None)
            assert a["immutable_id"] == f"{facts.dataset_id}/2/{entry['id']}"
            assert set(a) | {"id", "type"} == set(info["output_fields_by_format"]["json"])


@pytest.mark.parametrize(
    ("counts", "formula"),
    [([1], "A"), ([1, 3], "A3B"), ([2, 1, 1], "A2BC"), ([1] * 27, "ABCDEFGHIJKLMNOPQRSTUVWXYZAa")],
)
def test_anonymous_formula(counts: list[int], formula: str) -> None:
    assert anonymous_formula(counts) == formula


def test_a_node_replaces_one_table_and_adds_another(facts: ReleaseFacts, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    own_table(tables, "cstm", {"名称": "${title}", "表": "${table.version}", "empty": [None, ""]})
    own_table(tables, "platform", {"id": "${settings.prefix}-${dataset_id}"}, settings={"prefix": "P"})
    assert render("cstm", facts, tables_dir=tables) == {"名称": "Ni–Al 合金", "表": "7"}
    assert render("platform", facts, tables_dir=tables)["id"].startswith("P-1111")
    assert render("datacite", facts, tables_dir=tables) == render("datacite", facts)
    assert "core_metadata" in render("cstm", facts)


def test_a_table_sees_no_clock(facts: ReleaseFacts, tmp_path: Path) -> None:
    own_table(tmp_path / "t", "clock", {"at": {"$eval": "now"}})
    assert render("clock", facts, tables_dir=tmp_path / "t") == {"at": facts.created}


def test_errors_name_the_table_and_the_place(facts: ReleaseFacts, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    with pytest.raises(MappingError, match="did you mean 'datacite'"):
        render("datcite", facts)
    own_table(tables, "wrong", {"a": {"b": "${no_such_fact}"}})
    with pytest.raises(MappingError, match=r"wrong\.yaml: .*template\.a\.b.*no_such_fact"):
        render("wrong", facts, tables_dir=tables)
    own_table(tables, "listed", ["a"])
    with pytest.raises(MappingError, match="document is no mapping"):
        render("listed", facts, tables_dir=tables)
    path = own_table(tables, "extra", {}, documnt={})
    with pytest.raises(MappingError, match=r"extra\.yaml:6: unknown key 'documnt'; did you mean 'document'"):
        load_table("extra", tables)
    path.write_text(path.read_text().replace("mapping/v1", "mapping/v9"), encoding="utf-8")
    path.write_text(path.read_text().replace("documnt: {}\n", ""), encoding="utf-8")
    with pytest.raises(MappingError, match=r"extra\.yaml:1: schema 'matcompute\.mapping/v9'"):
        load_table("extra", tables)
    path.write_text("name: extra\n", encoding="utf-8")
    with pytest.raises(MappingError, match="key 'schema' is missing"):
        load_table("extra", tables)


@pytest.mark.parametrize(
    "change",
    [
        {"licence": "my own"},
        {"domain": "steel"},
        {"version": 0},
        {"created": "yesterday"},
        {"unknown": 1},
    ],
)
def test_facts_are_checked(facts: ReleaseFacts, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReleaseFacts.model_validate(facts.model_dump() | change)


def test_identifiers_are_checked() -> None:
    with pytest.raises(ValidationError):
        Identifiers(cstr="no")
    with pytest.raises(ValidationError):
        Identifiers(doi="https://doi.org/10.1234/x")
    with pytest.raises(ValidationError):
        Contributor(name="A", orcid="1234")


def test_memory_of_the_lines_does_not_grow(
    facts: ReleaseFacts, tmp_path: Path, write_dataset: Callable[..., Any]
) -> None:
    peaks = []
    for n in (500, 4000):
        path = tmp_path / f"{n}.h5"
        write_dataset(path, n)
        write_optimade([path], tmp_path / "warm.gz", facts, block=100)
        tracemalloc.start()
        write_optimade([path], tmp_path / "out.gz", facts, block=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], peaks
