"""``matcompute node …`` on a node that was asked and was left."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from starlette.testclient import TestClient

from matcompute.cli import cli
from matcompute.publish.canonical import sha256_file
from matcompute.server.app import create_app
from matcompute.server.guard.audit import AuditLog
from matcompute.server.node import Node

from .conftest import IDS


def run(folder: Path, *arguments: str | Path, status: int = 0) -> str:
    result: Result = CliRunner().invoke(cli, ["node", "-d", str(folder), *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


def test_a_node_from_report_to_exit(release: Any, node: Node, tmp_path: Path):
    release(IDS[0], 5)
    with TestClient(create_app(node, follow_seconds=0)) as client:
        client.get("/changes")
    folder = node.publication.folder
    assert "| datasets | 1 |" in run(folder, "kpi")
    assert json.loads(run(folder, "kpi", "--json"))["use"]["requests"] == 1
    run(folder, "kpi", "-o", tmp_path / "kpi.json")
    assert (tmp_path / "kpi.json.sig").is_file()
    head = run(folder, "audit", "head").strip()
    assert re.fullmatch(r"3:[0-9a-f]{64}", head)
    assert "3 record(s), all is well" in run(folder, "audit", "verify", "--known", head)
    assert json.loads(run(folder, "audit", "verify", "--json"))["valid"] is True
    assert "is gone" in run(folder, "audit", "verify", "--known", f"99:{'0' * 64}", status=1)
    lines = [json.loads(line) for line in run(folder, "audit", "list").splitlines()]
    assert [(line["seq"], line["kind"]) for line in lines] == [(1, "start"), (2, "request"), (3, "stop")]
    assert len(run(folder, "audit", "list", "--kind", "request", "--limit", "0").splitlines()) == 1
    assert len(run(folder, "audit", "list", "--limit", "2").splitlines()) == 2
    assert "0 alert(s)" in run(folder, "alerts")
    AuditLog(folder / "audit.sqlite").append(
        [{"at": lines[0]["at"], "kind": "alert", "rule": "bulk-pull", "message": "bulk-pull: \x1b[2J"}]
    )
    told = run(folder, "alerts", status=1)
    assert "1 alert(s)" in told
    assert "\x1b" not in told
    assert "(public)" in run(folder, "usage")
    assert json.loads(run(folder, "usage", "--json"))[0]["requests"] == 1
    assert "1 open" not in run(folder, "dcmm", tmp_path / "dcmm")
    assert (tmp_path / "dcmm" / "index.md").is_file()
    out = tmp_path / "incident.zip"
    assert "shown" in run(folder, "incident", "export", out, "--description", "a test")
    assert "all is well" in run(folder, "incident", "check", out)
    told = run(folder, "export", tmp_path / "exit")
    assert re.search(r"1 dataset\(s\), 1 version\(s\)", told)
    new = tmp_path / "new"
    assert run(new, "import", tmp_path / "exit").splitlines()[-1] == told.splitlines()[-1]
    data = next(Path(node.publication.store.root).rglob("entries.h5"))
    assert [sha256_file(p) for p in new.rglob("entries.h5")] == [sha256_file(data)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kpi", "--period", "soon"], "no period"),
        (["audit", "verify", "--known", "x"], "not a head"),
    ],
)
def test_errors_say_what_to_do(node: Node, arguments: list[str], message: str):
    result = CliRunner().invoke(cli, ["node", "-d", str(node.publication.folder), *arguments])
    assert message in str(result.exception)


def test_a_missing_publication_is_named(tmp_path: Path):
    result = CliRunner().invoke(cli, ["node", "-d", str(tmp_path / "no"), "kpi"])
    assert "does not exist" in str(result.exception)
    assert not (tmp_path / "no").exists()
