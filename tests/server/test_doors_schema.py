"""The side doors against the server's OpenAPI schema, by schemathesis."""

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

#: Routes of the side doors.
OURS = "^/(optimade|oai)"


@pytest.mark.slow
@pytest.mark.parametrize("with_token", [False, True])
def test_schemathesis(
    release: Releaser, node: Node, serve: Callable[..., Served], tmp_path: Path, with_token: bool
) -> None:
    release(IDS[0], 5)
    release(IDS[1], 5, tier="member-1")
    served = serve(node)
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{served.url}/openapi.json",
        f"--include-path-regex={OURS}",
        # No schema can say which texts are filters; OAI-PMH answers wrong arguments with 200 and an error inside.
        "--exclude-checks=positive_data_acceptance,negative_data_rejection",
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
