"""Which login host AiiDA's ssh uses: the first, until another one is switched to."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matcompute.centres import Centre
from matcompute.centres.sshfiles import (
    authentication_script,
    forget_host,
    login_host,
    switch_host,
    write_host,
)


def centre(*hosts: str, **login: Any) -> Centre:
    data = {
        "schema": "matcompute.centre/v1",
        "centre": {"id": "far"},
        "login": {"transport": "ssh", "hosts": list(hosts), "user": "ada", **login},
        "scheduler": {"type": "slurm"},
        "partitions": [{"name": "cpu", "cores": 8, "mem_gb": 32}],
        "codes": [{"name": "matcompute-node", "executable": "/bin/mc"}],
    }
    return Centre.model_validate(data)


@pytest.fixture
def workspace(tmp_path: Path) -> Any:
    return SimpleNamespace(ssh_dir=tmp_path / "ssh")


def used(workspace: Any, name: str) -> str:
    """The host that ssh itself would connect to."""
    command = [workspace.ssh_dir / "bin" / "ssh", "-G", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())["hostname"]


def test_another_login_host(workspace: Any) -> None:
    far = centre("one", "two", proxy_jump="gate,inner")
    name = write_host(workspace, "far", far)
    assert (name, used(workspace, name)) == ("mc-far", "one")
    assert not switch_host(workspace, "far", far, "one")
    assert switch_host(workspace, "far", far, "two")
    assert login_host(workspace, "far", far) == used(workspace, name) == "two"
    # It stays so when the centre is registered again, as long as the profile has it.
    write_host(workspace, "far", far)
    assert used(workspace, name) == "two"
    write_host(workspace, "far", centre("one", "three"))
    assert used(workspace, name) == "one"
    forget_host(workspace, "far")
    assert login_host(workspace, "far", far) == "one"


def test_the_script_of_the_second_factor_is_told_the_host(workspace: Any, tmp_path: Path) -> None:
    script = tmp_path / "obtain"
    script.write_text("#!/bin/sh\necho $MATCOMPUTE_HOST\n")
    script.chmod(0o755)
    far = centre("one", "two", auth={"method": "mfa-script", "script": str(script)})
    write_host(workspace, "far", far)
    path = authentication_script(workspace, "far", far)
    assert path is not None

    def told() -> str:
        return subprocess.run([path], capture_output=True, text=True, check=True).stdout.strip()

    assert told() == "one"
    switch_host(workspace, "far", far, "two")
    assert told() == "two"
