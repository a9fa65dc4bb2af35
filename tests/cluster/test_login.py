"""Ways to log in: through another host, and with a script that obtains the key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from matcompute.centres import Centre
from matcompute.centres.doctor import examine_file
from matcompute.centres.remote import LoginError, Remote

from .services import SSHD, Site

#: Of an sshd that only the centre's own network reaches: the login node behind the gateway.
INNER = 2222


@pytest.fixture
def inner(slurm_b: Site) -> Iterator[None]:
    box = slurm_b.container
    box.mkdir("/run/sshd", 0o755)
    service = box.spawn(
        SSHD,
        "-D",
        "-e",
        "-f",
        "/etc/ssh/sshd_config",
        "-p",
        str(INNER),
        "-o",
        "ListenAddress=127.0.0.1",
        log="inner.log",
    )
    yield
    service.kill()


def test_through_a_gateway(slurm_b: Site, inner: None, tmp_path: Path) -> None:
    login = slurm_b.ssh
    jump = f"{login.user}@{login.host}:{login.port}"
    known = tmp_path / "known_hosts"
    # The inner host has the same key under its own name.
    lines = login.known_hosts.read_text().splitlines()
    key = next(line for line in lines if line.strip() and not line.startswith("#")).split(None, 1)[1]
    known.write_text("\n".join([*lines, f"[127.0.0.1]:{INNER} {key}", ""]))
    overrides = {
        "login": {
            "hosts": ["127.0.0.1"],
            "port": INNER,
            "proxy_jump": jump,
            "auth": {"known_hosts": str(known)},
        }
    }
    direct = Centre.load(
        slurm_b.profile(tmp_path, login={**overrides["login"], "proxy_jump": None, "connect_timeout_s": 5})
    )
    with pytest.raises(LoginError), Remote(direct):
        pass
    path = slurm_b.profile(tmp_path, **overrides)
    report = examine_file(None, path, smoke_timeout_s=300)
    assert report.ok, [step.message for step in report.steps]
    Remote(Centre.load(path)).drop()


def test_a_script_obtains_the_key(slurm_b: Site, tmp_path: Path) -> None:
    """As with centres that sign a key for a day after a second factor was asked for."""
    key, calls = tmp_path / "key-of-the-day", tmp_path / "calls"
    script = tmp_path / "obtain"
    script.write_text(f"#!/bin/sh\necho once >> {calls}\ninstall -m 600 {slurm_b.ssh.key} {key}\n")
    script.chmod(0o755)
    auth = {"method": "mfa-script", "script": str(script), "key_file": str(key)}
    path = slurm_b.profile(tmp_path, login={"auth": auth})
    report = examine_file(None, path, smoke_timeout_s=300)
    assert report.ok, [step.message for step in report.steps]
    assert calls.read_text().splitlines() == ["once"], "one login, and no second factor for each command"
    Remote(Centre.load(path)).drop()
    shutil.rmtree(tmp_path, ignore_errors=True)
