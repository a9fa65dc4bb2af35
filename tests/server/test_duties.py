"""KPI report, incident file, DCMM evidence: true numbers, whole chains, nothing that is nobody's business."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import insert
from starlette.testclient import TestClient

from matcompute.errors import InputError
from matcompute.publish.canonical import dump, sha256, sha256_file
from matcompute.publish.errors import SignatureError
from matcompute.publish.keys import Keyring, generate
from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.duties.dcmm import export_evidence
from matcompute.server.duties.dcmm_items import DOMAINS, ITEMS
from matcompute.server.duties.errors import DutyError
from matcompute.server.duties.incident import check_incident, export_incident
from matcompute.server.duties.kpi import audit_of, markdown, report
from matcompute.server.duties.period import Period
from matcompute.server.duties.statement import read_statement, write_statement
from matcompute.server.node import Node
from matcompute.server.tables import files, receipts

from .conftest import IDS, Releaser

ALWAYS = Period("2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("2024-Q4", "2024-10-01", "2025-01-01"),
        ("2026-Q1", "2026-01-01", "2026-04-01"),
        ("2024-02", "2024-02-01", "2024-03-01"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2026-03-01..2026-03-15", "2026-03-01", "2026-03-15"),
    ],
)
def test_periods(text: str, begin: str, end: str):
    assert Period.parse(text) == Period(f"{begin}T00:00:00Z", f"{end}T00:00:00Z")


@pytest.mark.parametrize("text", ["", "26", "2026-13", "2026-Q5", "2026-03-15..2026-03-01", "x..y", "2026-3"])
def test_bad_periods(text: str):
    with pytest.raises(InputError, match="no period"):
        Period.parse(text)


def test_every_quarter_and_month_follows_the_one_before():
    for year in (2023, 2024):
        months = [Period.parse(f"{year}-{m:02d}") for m in range(1, 13)]
        quarters = [Period.parse(f"{year}-Q{q}") for q in range(1, 5)]
        for row in (months, quarters):
            assert all(a.end == b.begin for a, b in pairwise(row))
            assert (row[0].begin, row[-1].end) == (f"{year}-01-01T00:00:00Z", f"{year + 1}-01-01T00:00:00Z")


def test_uptime_counts_no_second_twice():
    day = Period("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    at = "2026-01-01T{}:00:00.000Z".format
    runs = [
        (at("01"), at("03")),
        (at("02"), at("04")),
        (at("10"), at("11")),
        ("2025-12-31T23:00:00Z", at("01")),
    ]
    later = datetime(2026, 2, 1, tzinfo=UTC)
    assert day.seconds_of(runs, later) == (5 * 3600, 86400)
    assert day.seconds_of([], later) == (0, 86400)
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert day.seconds_of([(at("06"), at("23"))], noon) == (6 * 3600, 12 * 3600)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node with a public and a member dataset that some people used."""
    folder = tmp_path_factory.mktemp("once")
    release = Releaser(folder / "publication", folder / "scratch")
    release(IDS[0], 8)
    release(IDS[1], 6, domain="advanced-steel", tier="member-1", grade="important")
    release(IDS[0], 10)
    node = Node(release.publication)
    with TestClient(create_app(node, follow_seconds=0)) as client:
        held = tokens.create(node.engine, "alice", tier="member-2", grade="core")
        member = {"Authorization": f"Bearer {held}"}
        digest = {name: data[0] for name, data in data_of(node).items()}
        assert client.get(f"/blobs/sha256/{digest[IDS[0]]}").status_code == 200
        assert client.get(f"/blobs/sha256/{digest[IDS[1]]}", headers=member).status_code == 200
        assert client.get(f"/blobs/sha256/{digest[IDS[1]]}").status_code == 404
        assert client.get("/changes", headers={"Authorization": "Bearer no"}).status_code == 401
        assert client.get("/changes").status_code == 200
    with node.write() as connection:
        blank = dict.fromkeys((c.name for c in receipts.columns if c.name != "number"), "x")
        for number, verdict in enumerate(("accept", "reject"), start=1):
            row = {
                "dataset_id": IDS[0],
                "version": number,
                "verdict": verdict,
                "received": "2026-01-01T00:00:00Z",
            }
            connection.execute(insert(receipts).values({**blank, **row, "sha256": f"{number}"}))
    node.engine.dispose()
    return release.publication.folder


def data_of(node: Node) -> dict[str, tuple[str, int]]:
    """Return digest and size of the newest data file of each dataset."""
    with node.engine.connect() as connection:
        rows = connection.execute(files.select().where(files.c.role == "data").order_by(files.c.version))
        return {row.dataset_id: (row.sha256, row.size) for row in rows}


@pytest.fixture
def used(once: Path, tmp_path: Path) -> Node:
    """That node, one for each test."""
    shutil.copytree(once, tmp_path / "publication")
    return Node(tmp_path / "publication")


def test_kpi(used: Node):
    numbers = report(used, ALWAYS)
    volume, quality, use = numbers["volume"], numbers["quality"], numbers["use"]
    assert (volume["datasets"], volume["versions"], volume["entries"]) == (2, 3, 16)
    assert volume["by_tier"] == {"member-1": 1, "public": 1}
    assert volume["by_grade"] == {"general": 1, "important": 1}
    assert volume["events"] == {"publish": 2, "revise": 1, "regrade": 0, "withdraw": 0}
    assert quality["entries"] == 16
    assert quality["converged_fraction"] == pytest.approx(1 - quality["failed"] / 16)
    sizes = data_of(used)
    assert use["requests"] == 5
    assert use["refused"] == 1
    assert use["files_served"] == 2
    assert use["bytes_by_tier"]["member-1"] == sizes[IDS[1]][1]
    assert use["requests_by_tier"] == {"member-1": 1, "public": 4}
    assert use["requests_by_door"] == {"blobs": 3, "changes": 2}
    assert (use["members"], use["anonymous_addresses"]) == (1, 1)
    top = {row["dataset_id"]: row["bytes"] for row in use["top_datasets"]}
    assert top == {IDS[0]: sizes[IDS[0]][1], IDS[1]: sizes[IDS[1]][1]}
    assert numbers["uptime"]["starts"] == 1
    assert numbers["uptime"]["seconds"] >= 0
    assert numbers["receipts"] == {"accepted": 1, "rejected": 1, "available_versions_never_accepted": 2}
    assert numbers["audit"] == audit_of(used).head().to_json()
    assert dump(numbers)  # it can be signed
    page = markdown(numbers)
    assert "| requests by door: blobs | 3 |" in page
    assert "数据质量" in page


def test_kpi_of_another_time_and_of_an_empty_node(used: Node, tmp_path: Path):
    past = report(used, Period.parse("2020-01"))
    assert past["use"]["requests"] == past["uptime"]["seconds"] == past["volume"]["events"]["publish"] == 0
    (tmp_path / "empty").mkdir()
    empty = report(Node(tmp_path / "empty"), ALWAYS)
    assert empty["volume"]["entries"] == empty["use"]["requests"] == 0
    assert empty["quality"]["converged_fraction"] is None
    assert markdown(empty)


def test_incident(used: Node, tmp_path: Path):
    out = tmp_path / "incident.zip"
    made = export_incident(
        used, out, ALWAYS, "A token was shown in a chat", severity="high", principal="alice"
    )
    ring = Keyring.read(used.publication.keys)
    said = check_incident(out, [ring.current.key_id])
    assert said == made
    assert said["audit"]["shown"] == 1
    assert said["audit"]["whole"] is True
    assert said["about"] == {"principal": "alice"}
    with zipfile.ZipFile(out) as archive:
        lines = [json.loads(line) for line in archive.read("audit.jsonl").splitlines()]
        assert len(archive.read("events.jsonl").splitlines()) == 3
    assert sum("record" in line for line in lines) == 1
    assert len(lines) == said["audit"]["last"] - said["audit"]["first"] + 1 == 7  # start, five requests, stop
    assert all("testclient" not in json.dumps(line) for line in lines if "alice" not in json.dumps(line))
    noted = next(audit_of(used).entries(kinds=["incident"])).data
    assert noted["severity"] == "high"
    assert audit_of(used).verify() == []
    with pytest.raises(InputError, match="exists"):
        export_incident(used, out, ALWAYS, "again")
    everything = export_incident(used, tmp_path / "all.zip", ALWAYS, "all", dataset_id=None)
    assert everything["audit"]["shown"] == 8  # the note of the first incident too


def test_incident_of_a_quiet_time(used: Node, tmp_path: Path):
    said = export_incident(used, tmp_path / "i.zip", Period.parse("2020"), "nothing was seen")
    assert said["audit"]["first"] == said["audit"]["last"]
    assert check_incident(tmp_path / "i.zip") == said


@pytest.mark.parametrize("name", ["incident.json", "audit.jsonl", "events.jsonl"])
def test_a_changed_incident_is_refused(used: Node, tmp_path: Path, name: str):
    out, changed = tmp_path / "a.zip", tmp_path / "b.zip"
    export_incident(used, out, ALWAYS, "x")
    with zipfile.ZipFile(out) as archive, zipfile.ZipFile(changed, "w") as copy:
        for part in archive.namelist():
            raw = archive.read(part)
            copy.writestr(part, raw.replace(b"1", b"2", 1) if part == name else raw)
    with pytest.raises(DutyError):
        check_incident(changed)


def test_an_incident_with_a_record_left_out_is_refused(used: Node, tmp_path: Path):
    """Even by who holds the key: the chain shows it."""
    from matcompute.publish.keys import load
    from matcompute.server.duties.statement import sign_statement

    out, changed = tmp_path / "a.zip", tmp_path / "b.zip"
    export_incident(used, out, ALWAYS, "x")
    with zipfile.ZipFile(out) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    lines = parts["audit.jsonl"].splitlines(keepends=True)
    parts["audit.jsonl"] = b"".join(lines[:2] + lines[3:])
    content = json.loads(parts["incident.json"])
    content["sha256"]["audit.jsonl"] = sha256(parts["audit.jsonl"])
    parts["incident.json"] = dump(content)
    parts["incident.json.sig"] = sign_statement(
        "incident", parts["incident.json"], load(used.publication.keys)
    )
    with zipfile.ZipFile(changed, "w") as copy:
        for name, raw in parts.items():
            copy.writestr(name, raw)
    with pytest.raises(DutyError, match="breaks at record 3"):
        check_incident(changed)


def test_incident_input_is_checked(used: Node, tmp_path: Path):
    with pytest.raises(InputError, match="severity"):
        export_incident(used, tmp_path / "i.zip", ALWAYS, "x", severity="huge")
    with pytest.raises(InputError, match="what happened"):
        export_incident(used, tmp_path / "i.zip", ALWAYS, "  ")
    (tmp_path / "no.zip").write_bytes(b"no")
    with pytest.raises(DutyError, match="not a signed incident"):
        check_incident(tmp_path / "no.zip")


def test_dcmm_items_are_those_of_the_standard():
    assert len(DOMAINS) == 8
    assert len(ITEMS) == 28
    counts = {n: sum(i.number.startswith(f"{n}.") for i in ITEMS) for n in DOMAINS}
    assert counts == {6: 3, 7: 3, 8: 4, 9: 3, 10: 3, 11: 4, 12: 4, 13: 4}
    assert len({i.number for i in ITEMS}) == 28


def test_dcmm(used: Node, tmp_path: Path):
    documents = tmp_path / "documents"
    (documents / "6.1").mkdir(parents=True)
    (documents / "6.1" / "plan.pdf").write_bytes(b"%PDF-1.7")
    index = export_evidence(used, tmp_path / "dcmm", ALWAYS, documents)
    assert index["open"] == ["13.1"]
    ring = Keyring.read(used.publication.keys)
    assert read_statement("dcmm", tmp_path / "dcmm" / "index.json", ring) == index
    for name, digest in index["sha256"].items():
        assert sha256_file(tmp_path / "dcmm" / name) == digest
    named = {e["file"] for item in index["items"] for e in item["evidence"]}
    assert named == set(index["sha256"])  # no evidence is missing, and none is for nothing
    folder = tmp_path / "dcmm" / "evidence"
    with (folder / "catalogue.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert {(r["id"], r["grade"]) for r in rows} == {(IDS[0], "general"), (IDS[1], "important")}
    with (folder / "quality.csv").open(encoding="utf-8-sig") as file:
        assert [int(r["entries"]) for r in csv.DictReader(file)] == [8, 10, 6]
    assert json.loads((folder / "audit.json").read_text())["whole"] is True
    assert {row["name"] for row in json.loads((folder / "data-model.json").read_text())} >= {"energy"}
    assert len(json.loads((folder / "mappings.json").read_text())) >= 6
    with (folder / "tokens.csv").open(encoding="utf-8-sig") as file:
        assert [r["name"] for r in csv.DictReader(file)] == ["alice"]
    with used.engine.connect() as connection:
        digest = connection.exec_driver_sql("SELECT sha256 FROM tokens").scalar()
    assert all(digest.encode() not in p.read_bytes() for p in (tmp_path / "dcmm").rglob("*") if p.is_file())
    page = (tmp_path / "dcmm" / "index.md").read_text()
    assert "数据生存周期" in page
    assert "open 待补充" in page
    with pytest.raises(DutyError, match="exists"):
        export_evidence(used, tmp_path / "dcmm", ALWAYS)
    (documents / "14.1").mkdir()
    with pytest.raises(InputError, match=r"14\.1 is no item"):
        export_evidence(used, tmp_path / "more", ALWAYS, documents)


def test_cells_are_no_formulas(used: Node, tmp_path: Path):
    tokens.create(used.engine, "=HYPERLINK(1)")
    export_evidence(used, tmp_path / "dcmm", ALWAYS)
    assert "'=HYPERLINK" in (tmp_path / "dcmm" / "evidence" / "tokens.csv").read_text()


def test_statements_of_one_kind_do_not_pass_for_another(tmp_path: Path):
    key = generate(tmp_path / "keys")
    ring = Keyring.read(tmp_path / "keys")
    path = tmp_path / "a.json"
    write_statement("exit", {"a": 1}, path, key)
    assert read_statement("exit", path, ring) == {"a": 1}
    with pytest.raises(SignatureError, match="another document"):
        read_statement("dcmm", path, ring)
    signature = tmp_path / "a.json.sig"
    signature.write_bytes(signature.read_bytes().replace(b'"exit"', b'"dcmm"'))
    with pytest.raises(SignatureError, match="not one of key"):
        read_statement("dcmm", path, ring)
    write_statement("exit", {"a": 1}, path, generate(tmp_path / "other"))
    with pytest.raises(SignatureError, match="not in the keyring"):
        read_statement("exit", path, ring)
    signature.write_text("[]")
    with pytest.raises(SignatureError, match="not a signature"):
        read_statement("exit", path, ring)
