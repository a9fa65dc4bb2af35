"""The OAI-PMH door, asked by two independent harvesters and by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sickle
from lxml import etree
from oaipmh_scythe import Scythe
from sickle.oaiexceptions import BadResumptionToken, IdDoesNotExist, NoRecordsMatch
from starlette.testclient import TestClient

from matcompute.server import oai, tokens
from matcompute.server.app import create_app
from matcompute.server.node import Node

from .conftest import IDS, Releaser, Served

NS = {"o": "http://www.openarchives.org/OAI/2.0/", "d": "http://datacite.org/schema/kernel-4"}


def identifier(k: int) -> str:
    return f"oai:test-node:{IDS[k]}"


@pytest.fixture
def five(
    release: Releaser, node: Node, serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> Served:
    """A server with five public datasets, two records a page."""
    monkeypatch.setattr(oai, "BATCH", 2)
    for k in range(5):
        release(IDS[k], 3, domain="frontier-materials" if k == 4 else "advanced-nonferrous-metals")
    return serve(node)


def harvest_sickle(url: str, **arguments: str) -> list[tuple[str, bool]]:
    try:
        found = sickle.Sickle(url).ListRecords(metadataPrefix="oai_dc", **arguments)
        return [(r.header.identifier, r.header.deleted) for r in found]
    except NoRecordsMatch:
        return []


def harvest_scythe(url: str, **arguments: Any) -> list[tuple[str, bool]]:
    from oaipmh_scythe.exceptions import NoRecordsMatch as Nothing

    arguments = {"from_" if k == "from" else "set_" if k == "set" else k: v for k, v in arguments.items()}
    try:
        with Scythe(url) as scythe:
            found = list(scythe.list_records(metadata_prefix="oai_dc", **arguments))
    except Nothing:
        return []
    return [(r.header.identifier, r.header.deleted) for r in found]


HARVESTERS = pytest.mark.parametrize("harvest", [harvest_sickle, harvest_scythe])


@HARVESTERS
def test_full_resumed_incremental_and_deleted(
    five: Served, release: Releaser, harvest: Callable[..., list[tuple[str, bool]]]
) -> None:
    url = f"{five.url}/oai"
    assert harvest(url) == [(identifier(k), False) for k in range(5)]  # three pages
    assert harvest(url, set="domain:frontier-materials") == [(identifier(4), False)]
    assert harvest(url, set="domain:nothing") == []
    stamps = _stamps(url)
    assert harvest(url, until="2001-01-01T00:00:00Z") == []
    assert harvest(url, **{"from": "2100-01-01"}) == []
    # Datestamps are of whole seconds: a harvester asks from the last one on.
    release.publication.events.withdraw(IDS[1], None, "wrong")
    release(IDS[0], 4)
    release.publication.events.regrade(IDS[2], "secret", grade="core", tier=None)
    later = _stamps(url)
    changed = [k for k in range(5) if later[identifier(k)] != stamps[identifier(k)] or k < 3]
    since = min(later[identifier(k)] for k in (0, 1, 2))
    found = dict(harvest(url, **{"from": since}))
    assert {identifier(k) for k in changed} <= found.keys()
    assert found[identifier(1)]
    assert not found[identifier(0)]
    assert found[identifier(2)]
    assert sorted(harvest(url)) == [(identifier(k), k in (1, 2)) for k in range(5)]


def _stamps(url: str) -> dict[str, str]:
    headers = sickle.Sickle(url).ListIdentifiers(metadataPrefix="oai_dc")
    return {h.identifier: h.datestamp for h in headers}


def test_a_list_is_fixed_to_its_first_page(five: Served, release: Releaser) -> None:
    url = f"{five.url}/oai"
    records = sickle.Sickle(url).ListRecords(metadataPrefix="oai_dc")
    found = [next(records).header.identifier]
    # Number 3 moves to the end of the feed, and another dataset appears, while the harvest goes on.
    release(IDS[3], 4)
    release(IDS[5], 3)
    found += [r.header.identifier for r in records]
    assert found == [identifier(k) for k in (0, 1, 2, 4)]
    # The next harvest brings both.
    assert [i for i, _ in harvest_sickle(url)] == [identifier(k) for k in (0, 1, 2, 4, 3, 5)]


def test_records(five: Served) -> None:
    harvester = sickle.Sickle(f"{five.url}/oai")
    about = harvester.Identify()
    assert about.deletedRecord == "persistent"
    assert about.granularity == "YYYY-MM-DDThh:mm:ssZ"
    assert {f.metadataPrefix for f in harvester.ListMetadataFormats()} == {"oai_dc", "datacite"}
    assert {s.setSpec for s in harvester.ListSets()} == {
        "domain:advanced-nonferrous-metals",
        "domain:frontier-materials",
    }
    record = harvester.GetRecord(metadataPrefix="oai_dc", identifier=identifier(0))
    assert record.metadata["title"] == ["Dataset 1"]
    assert record.metadata["type"] == ["Dataset"]
    assert IDS[0] in record.metadata["identifier"]
    assert any("CC-BY-4.0" in text for text in record.metadata["rights"])
    record = harvester.GetRecord(metadataPrefix="datacite", identifier=identifier(0))
    (resource,) = record.xml.iterfind(".//d:resource", NS)
    assert resource.findtext("d:titles/d:title", namespaces=NS) == "Dataset 1"
    assert resource.find("d:resourceType", NS).get("resourceTypeGeneral") == "Dataset"
    assert resource.findtext("d:alternateIdentifiers/d:alternateIdentifier", namespaces=NS) == IDS[0]
    with pytest.raises(IdDoesNotExist):
        harvester.GetRecord(metadataPrefix="oai_dc", identifier=identifier(7))
    with pytest.raises(BadResumptionToken):
        next(harvester.ListRecords(resumptionToken="x"))


# -- who sees what --------------------------------------------------------------------------------------------


def seen_by(client: TestClient, token: str | None = None) -> dict[str, bool]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = client.get("/oai?verb=ListIdentifiers&metadataPrefix=oai_dc", headers=headers)
    assert answer.status_code == 200
    root = etree.fromstring(answer.content)
    return {
        h.findtext("o:identifier", namespaces=NS): h.get("status") == "deleted"
        for h in root.iterfind(".//o:header", NS)
    }


def test_each_sees_what_it_may_and_the_end_of_what_it_saw(release: Releaser, node: Node) -> None:
    events = release.publication.events
    release(IDS[0], 3)
    release(IDS[1], 3, tier="member-1")
    release(IDS[2], 3, grade="important", tier="member-3")
    client = TestClient(create_app(node, follow_seconds=0))
    member = tokens.create(node.engine, "member", tier="member-1", grade="general")
    every = tokens.create(node.engine, "every", tier="member-3", grade="core")
    assert seen_by(client) == {identifier(0): False}
    assert seen_by(client, member) == {identifier(0): False, identifier(1): False}
    assert seen_by(client, every) == {identifier(k): False for k in range(3)}
    assert client.get("/oai?verb=Identify", headers={"Authorization": "Bearer x"}).status_code == 401

    events.regrade(IDS[0], "reconsidered: contains a secret", grade="important", tier="member-2")
    out_of_sight = client.get(f"/oai?verb=GetRecord&metadataPrefix=oai_dc&identifier={identifier(0)}")
    assert b'status="deleted"' in out_of_sight.content
    assert b"secret" not in out_of_sight.content
    stamp = etree.fromstring(out_of_sight.content).findtext(".//o:datestamp", namespaces=NS)
    # What happens behind the curtain does not show.
    release(IDS[0], 5, grade="important", tier="member-2")
    events.withdraw(IDS[0], None, "gone")
    again = client.get(f"/oai?verb=GetRecord&metadataPrefix=oai_dc&identifier={identifier(0)}")
    assert etree.fromstring(again.content).findtext(".//o:datestamp", namespaces=NS) == stamp
    assert seen_by(client) == {identifier(0): True}
    assert seen_by(client, member) == {identifier(0): True, identifier(1): False}
    # A dataset that comes into sight is a record from then on.
    events.regrade(IDS[1], "free", grade=None, tier="public")
    assert seen_by(client) == {identifier(0): True, identifier(1): False}
    # What was never in sight does not exist.
    hidden = client.get(f"/oai?verb=GetRecord&metadataPrefix=oai_dc&identifier={identifier(2)}")
    unknown = client.get(f"/oai?verb=GetRecord&metadataPrefix=oai_dc&identifier={identifier(8)}")
    assert b"idDoesNotExist" in hidden.content
    assert hidden.text.count("idDoesNotExist") == unknown.text.count("idDoesNotExist")
    assert IDS[2] not in client.get("/oai?verb=ListRecords&metadataPrefix=datacite").text


TOKEN = "verb=ListRecords&resumptionToken=cursor%3D1%26metadataPrefix%3Doai_dc%26snapshot%3D"
WRONG = [
    ("", "badVerb"),
    ("verb=Nothing", "badVerb"),
    ("verb=GetMetadata&metadataPrefix=oai_dc&identifier=x", "badVerb"),
    ("verb=Identify&verb=Identify", "badArgument"),
    ("verb=Identify&x=1", "badArgument"),
    ("verb=ListRecords", "badArgument"),
    ("verb=ListRecords&metadataPrefix=marc", "cannotDisseminateFormat"),
    ("verb=ListRecords&metadataPrefix=oai_dc&from=yesterday", "badArgument"),
    ("verb=ListRecords&metadataPrefix=oai_dc&from=2026-13-01", "badArgument"),
    ("verb=ListRecords&metadataPrefix=oai_dc&from=2026-01-02&until=2026-01-01", "badArgument"),
    ("verb=ListRecords&metadataPrefix=oai_dc&from=2026-01-02&until=2026-01-03T00:00:00Z", "badArgument"),
    ("verb=ListRecords&metadataPrefix=oai_dc&set=domain:x%27%20OR%201=1", "noRecordsMatch"),
    ("verb=ListRecords&resumptionToken=cursor%3D1", "badResumptionToken"),
    (TOKEN + "99999", "badResumptionToken"),
    (TOKEN + "1%26from_%3Dx", "badResumptionToken"),
    ("verb=ListRecords&resumptionToken=%00", "badArgument"),
    ("verb=ListRecords&metadataPrefix=oai_dc&resumptionToken=x", "badArgument"),
    ("verb=ListSets&resumptionToken=x", "badResumptionToken"),
    ("verb=GetRecord&metadataPrefix=oai_dc&identifier=%01", "badArgument"),
    ("verb=GetRecord&metadataPrefix=oai_dc&identifier=..%2F..%2Fx", "idDoesNotExist"),
    ("verb=ListMetadataFormats&identifier=x", "idDoesNotExist"),
]


def test_wrong_requests(release: Releaser, node: Node) -> None:
    release(IDS[0], 3)
    client = TestClient(create_app(node, follow_seconds=0))
    for query, code in WRONG:
        for answer in (client.get(f"/oai?{query}"), client.post("/oai", content=query)):
            assert answer.status_code == 200, query
            found = etree.fromstring(answer.content).find("o:error", NS)
            assert found is not None, query
            assert found.get("code") == code, query


def test_arguments_in_a_form(five: Served) -> None:
    url = f"{five.url}/oai"
    form = {"verb": "ListIdentifiers", "metadataPrefix": "oai_dc"}
    one, other = httpx.post(url, data=form), httpx.get(url, params=form)
    assert one.status_code == 200
    assert [e.text for e in etree.fromstring(one.content).iterfind(".//o:identifier", NS)] == [
        e.text for e in etree.fromstring(other.content).iterfind(".//o:identifier", NS)
    ]
