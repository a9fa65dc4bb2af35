"""The server against its own OpenAPI schema, by schemathesis, as anybody would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from matcompute.server import tokens
from matcompute.server.node import Node

from .conftest import IDS, Releaser, Served

ROUTES = {"pull": "^/(node|changes|datasets|blobs|receipts)", "doors": "^/(optimade|oai)"}


@pytest.mark.slow
@pytest.mark.parametrize("with_token", [False, True])
@pytest.mark.parametrize("routes", ROUTES)
def test_schemathesis(
    release: Releaser,
    node: Node,
    serve: Callable[..., Served],
    tmp_path: Path,
    routes: str,
    with_token: bool,
) -> None:
    release(IDS[0], 5)
    release(IDS[1], 5, tier="member-1")
    # Nobody waits for news here, or the run would take minutes.
    served = serve(Node(node.publication, node.settings.model_copy(update={"max_wait_seconds": 0.1})))
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{served.url}/openapi.json",
        f"--include-path-regex={ROUTES[routes]}",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=5",
        "--seed=1",
        "--generation-deterministic",
        "--request-timeout=60",
        "--workers=1",
        "--no-color",
    ]
    if with_token:
        scopes = ["read", "receipts", "admin"]
        made = tokens.create(node.engine, "t", tier="member-3", grade="core", scopes=scopes)
        command += ["-H", f"Authorization: Bearer {made}"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=400, cwd=tmp_path, env=environment, check=False
    )
    assert result.returncode == 0, result.stdout[-20000:] + result.stderr[-2000:]
    assert "No issues found" in result.stdout or "passed" in result.stdout, result.stdout[-3000:]
