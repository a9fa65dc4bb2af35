"""Identifiers, rights and embargo, from the command line to every document; and who stands in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from matcompute.cli.publish import publish
from matcompute.errors import InputError
from matcompute.publish import keys
from matcompute.publish.build import DOCUMENTS, build
from matcompute.publish.errors import GateError, ManifestError, PublishError
from matcompute.publish.gates import Limits, check
from matcompute.publish.manifest import Manifest
from matcompute.publish.release import Publication
from matcompute.publish.rights import Identifiers, Rights, identifiers_of, rights_of
from matcompute.publish.terms import terms_of

from .conftest import DATASET

Write = Callable[..., Any]
LIMITS = Limits(0.3, 0.9)
FUTURE, PAST = "2999-01-31", "2020-01-31"


@pytest.fixture
def shard(tmp_path: Path, write_dataset: Write) -> Path:
    path = tmp_path / "entries.h5"
    write_dataset(path, 20, dataset_id=DATASET, description="Random alloys", campaign="test")
    return path


@pytest.fixture
def node(tmp_path: Path) -> Publication:
    publication = Publication(tmp_path / "node")
    keys.generate(publication.keys)
    return publication


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cstr": "31253"}, "CSTR '31253' is none"),
        ({"cstr": "3125.11.name"}, "CSTR"),
        ({"doi": "11.1234/x"}, "DOI '11.1234/x' is none"),
        ({"doi": "10.1234/with space"}, "DOI"),
    ],
)
def test_identifiers_have_their_patterns(given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        identifiers_of(**given)


def test_identifiers_as_people_copy_them() -> None:
    for cstr in ("31253.11.a.01", "CSTR:31253.11.a.01", "https://cstr.cn/31253.11.a.01"):
        for doi in ("10.57760/a.01", "doi: 10.57760/a.01", "https://doi.org/10.57760/a.01"):
            assert identifiers_of(cstr=cstr, doi=doi) == Identifiers(
                cstr="31253.11.a.01", doi="10.57760/a.01"
            )
    assert identifiers_of(cstr=None, doi="") == Identifiers()


def test_rights_that_are_none() -> None:
    for day in ("2027", "2027-02-30", "31.1.2027", "20270131", ""):
        with pytest.raises(InputError, match=f"embargo '{day}' is no day"):
            rights_of(embargo=day)
    with pytest.raises(InputError, match="holder"):
        rights_of(holder="")
    for wrong in ("01h0zpd94", "https://ror.org/1234", "https://doi.org/10.1234/1", ""):
        with pytest.raises(InputError, match=f"funder id '{wrong}' is none"):
            rights_of(funder="Ministry", funder_id=wrong)
    with pytest.raises(InputError, match="funder: .*name is missing"):
        rights_of(funder_id="https://ror.org/01h0zpd94")
    rights = Rights(embargo="2027-01-31")
    assert rights.embargoed("2027-01-30T23:59:59Z")
    assert not rights.embargoed("2027-01-31T00:00:00Z")


def test_the_command_line_reaches_manifest_and_documents(shard: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = {
        "cstr": "31253.11.a.01",
        "doi": "10.57760/a.01",
        "holder": "Institute of Metals",
        "project": "2022YFB0000000",
        "funder": "Ministry of Science",
        "funder-id": "https://ror.org/01h0zpd94",
        "embargo": FUTURE,
        "patent": "CN123456A",
        "keyword": "alloys",
        "tier": "member-2",
    }
    words = [word for key, value in given.items() for word in (f"--{key}", value)]
    command = ["-d", str(tmp_path / "node"), "build", str(shard), "--node", "n", "-o", str(out), *words]
    result = CliRunner().invoke(publish, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    manifest = Manifest.from_bytes((out / "manifest.json").read_bytes())
    assert manifest.identifiers == Identifiers(cstr=given["cstr"], doi=given["doi"])
    assert manifest.rights.patents == ("CN123456A",)
    assert manifest.keywords == ("alloys",)
    for name in ("cstm", "datacite", "ro-crate", "schema-org"):
        text = (out / DOCUMENTS[name]).read_text(encoding="utf-8")
        for key in given.keys() - {"tier"}:
            assert given[key] in text, (name, key)
    # What there is none of does not stand in the manifest, so older manifests keep their bytes.
    build([shard], terms_of([shard], "n"), tmp_path / "plain")
    plain = json.loads((tmp_path / "plain" / "manifest.json").read_bytes())
    assert not {"keywords", "identifiers", "rights"} & plain.keys()


def test_a_manifest_with_rights_that_are_none_is_refused(make_manifest: Callable[..., Manifest]) -> None:
    raw = make_manifest(rights={"embargo": FUTURE}).to_bytes()
    assert Manifest.from_bytes(raw).rights.embargo == FUTURE
    with pytest.raises(ManifestError, match=r"rights\.embargo"):
        Manifest.from_bytes(raw.replace(FUTURE.encode(), b"2999-13-31"))
    with pytest.raises(ManifestError, match="own form"):
        Manifest.from_bytes(raw.replace(b'-01-31"}', b'-01-31","holder":null}'))


def test_embargo_is_a_gate_at_every_way_to_the_public(node: Publication, shard: Path, tmp_path: Path) -> None:
    terms = replace(terms_of([shard], "n", embargo=FUTURE, holder="Institute"), tier="public")
    report = check([shard], terms, node.events, limits=LIMITS)
    assert [(f.result, FUTURE in f.message) for f in report.findings if f.gate == "rights"] == [
        ("blocked", True)
    ]
    build([shard], terms, tmp_path / "public")
    with pytest.raises(GateError, match=f"embargo until {FUTURE}, so it cannot be public"):
        node.release(tmp_path / "public", limits=LIMITS)
    # A member level may have it; it cannot become public by regrading.
    build([shard], replace(terms, tier="member-1"), tmp_path / "member")
    assert node.release(tmp_path / "member", limits=LIMITS).tier == "member-1"
    with pytest.raises(InputError, match=f"under embargo until {FUTURE}"):
        node.regrade(DATASET, "open", tier="public")
    # Nor by a version that says nothing of it: the rights of the version before hold.
    bare = terms_of([shard], "n", title="Second", tier="public")
    two = build([shard], bare, tmp_path / "two", previous=node.latest(DATASET))
    assert two.rights == Rights(embargo=FUTURE, holder="Institute")
    # Another funder does not get the address of the one before.
    paid = replace(bare, rights=Rights(funder="A", funder_id="https://ror.org/01h0zpd94"))
    three = build([shard], paid, tmp_path / "paid", previous=two)
    other = replace(bare, rights=Rights(funder="B")).following(three)
    assert (other.rights.funder, other.rights.funder_id, other.rights.holder) == ("B", None, "Institute")
    with pytest.raises(GateError, match="cannot be public"):
        node.release(tmp_path / "two", limits=LIMITS)
    # The holder lifts it in words: that is allowed and told.
    lifted = replace(bare, tier="member-1", rights=Rights(embargo=PAST))
    report = check([shard], lifted, node.events, version=2, previous=node.latest(DATASET), limits=LIMITS)
    assert [f.result for f in report.findings if f.gate == "rights"] == ["warning"]
    build([shard], lifted, tmp_path / "three", previous=node.latest(DATASET))
    assert node.release(tmp_path / "three", limits=LIMITS).tier == "member-1"
    assert node.regrade(DATASET, "the embargo is lifted", grade=None, tier="public").tier == "public"
    assert node.verify() == []


def test_a_malformed_orcid_is_told_before_anything_is_made(
    tmp_path: Path, write_dataset: Write, node: Publication
) -> None:
    path = tmp_path / "bad.h5"
    people = ({"name": "Jane Doe", "orcid": "1234"},)
    write_dataset(path, 20, dataset_id=DATASET, campaign="test", contributors=people)
    terms = terms_of([path], "n")
    with pytest.raises(
        PublishError, match=r"bad\.h5: contributor Jane Doe: orcid: '1234' is not an ORCID iD"
    ):
        build([path], terms, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.partial").exists()
    found = check([path], terms, node.events, limits=LIMITS).findings
    assert [f.result for f in found if f.gate == "terms" and "Jane Doe" in f.message] == ["blocked"]
