"""The commands, in the order in which a node uses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from matcompute.cli.publish import publish

from .conftest import DATASET


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def run(*words: str | Path) -> tuple[int, str]:
        command = ["-d", str(tmp_path / "node"), *map(str, words)]
        result = CliRunner().invoke(publish, command, catch_exceptions=False)
        return result.exit_code, result.output

    return run


def test_from_key_to_withdrawal(
    call: Callable[..., tuple[int, str]], write_dataset: Callable[..., Any], tmp_path: Path
) -> None:
    shard, out = tmp_path / "entries.h5", tmp_path / "out"
    write_dataset(shard, 20, dataset_id=DATASET, campaign="test", license="")
    assert call("list") == (0, "nothing was released yet\n")
    assert call("keygen")[0] == 0
    node = ("--node", "node-1")
    code, said = call("check", shard, *node)
    assert code == 1
    assert "there is no licence" in said
    code, said = call("check", shard, *node, "--licence", "CC-BY-4.0", "--json")
    assert code == 0, said
    assert json.loads(said)["blocked"] is False
    code, said = call("build", shard, *node, "--licence", "CC-BY-4.0", "-o", out)
    assert code == 0
    assert "20 entries" in said
    code, said = call("release", out, "--json")
    assert json.loads(said)["op"] == "publish"
    assert call("keygen", "--rotate")[0] == 0
    assert call("verify") == (0, "all is well\n")
    # The licence that the first version got is not in the file: it is given again.
    code, said = call("build", shard, *node, "--licence", "CC-BY-4.0", "-o", tmp_path / "two")
    assert "version 2" in said
    assert "revise" in call("release", tmp_path / "two", "--reason", "again")[1]
    assert (
        "core, member-2"
        in call("regrade", DATASET, "--grade", "core", "--tier", "member-2", "--reason", "x")[1]
    )
    assert (
        "event 4: withdraw" in call("withdraw", DATASET, "--version", "1", "--reason", "wrong potential")[1]
    )
    code, said = call("list", "--json")
    assert json.loads(said)[0] == {
        "dataset_id": DATASET,
        "title": "Test entries",
        "versions": [1, 2],
        "withdrawn": [1],
        "grade": "core",
        "tier": "member-2",
        "seq": 4,
    }
    assert "1 (withdrawn), 2" in call("list")[1]
    stored = next((tmp_path / "node" / "store").rglob("summary.parquet"))
    stored.write_bytes(b"x" + stored.read_bytes()[1:])
    code, said = call("verify", DATASET)
    assert code == 1
    assert "summary.parquet" in said
