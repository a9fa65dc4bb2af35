"""Our ssh configuration, as OpenSSH itself reads it, and what a failed login means."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from matcompute.centres import Centre
from matcompute.centres.ssh import alias, classify, config_text, control_dir, control_path, host_block

CONFIGS = Path(__file__).parents[2] / "cluster_configs"
needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client")


def understood(text: str, host: str, folder: Path) -> dict[str, str]:
    """What ``ssh -G`` makes of a configuration."""
    path = folder / "config"
    path.write_text(text)
    done = subprocess.run(["ssh", "-F", str(path), "-G", host], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


@needs_ssh
def test_a_key_login_over_one_shared_connection(tmp_path: Path) -> None:
    centre = Centre.load(CONFIGS / "slurm-cpu.yaml", {"user": "ada", "project": "p"})
    host = centre.login.hosts[0]
    found = understood(config_text([host_block(alias("x"), centre.login, host)]), "mc-x", tmp_path)
    assert found["hostname"] == "login1.hpc.example.org"
    assert found["user"] == "ada"
    assert found["batchmode"] == "yes"
    assert found["identitiesonly"] == "yes"
    assert found["connecttimeout"] == "20"
    assert found["controlmaster"] == "auto"
    assert found["controlpath"] == str(control_path(centre.login, host))


@needs_ssh
def test_hops_have_the_same_key_and_user(tmp_path: Path) -> None:
    centre = Centre.load(CONFIGS / "slurm-gpu.yaml", {"user": "ada"})
    login = centre.login.model_copy(update={"proxy_jump": "gate.example.org:2222, bob@inner.example.org"})
    text = config_text([host_block("mc-x", login, "gpu.example.org")])
    assert understood(text, "mc-x", tmp_path)["proxyjump"] == "mc-x-hop2"
    inner = understood(text, "mc-x-hop2", tmp_path)
    assert (inner["hostname"], inner["user"], inner["proxyjump"]) == ("inner.example.org", "bob", "mc-x-hop1")
    gate = understood(text, "mc-x-hop1", tmp_path)
    assert (gate["hostname"], gate["user"], gate["port"]) == ("gate.example.org", "ada", "2222")
    assert "hpc-short-lived" in gate["identityfile"]


@needs_ssh
def test_without_sharing_each_command_logs_in(tmp_path: Path) -> None:
    login = Centre.load(CONFIGS / "sge.yaml", {"user": "ada"}).login
    text = config_text([host_block("mc-x", login, "h", multiplex=False)])
    assert understood(text, "mc-x", tmp_path)["controlmaster"] == "false"


def test_another_key_or_user_is_another_connection() -> None:
    login = Centre.load(CONFIGS / "slurm-cpu.yaml", {"user": "ada", "project": "p"}).login
    other = login.model_copy(update={"user": "bob"})
    key = login.model_copy(update={"auth": login.auth.model_copy(update={"key_file": "~/.ssh/other"})})
    paths = {control_path(one, "h") for one in (login, other, key)} | {control_path(login, "i")}
    assert len(paths) == 4
    assert all(len(str(path)) < 80 for path in paths)


def test_sockets_lie_in_a_private_folder() -> None:
    assert stat.S_IMODE(control_dir().stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("mc@h: Permission denied (publickey).", "auth"),
        ("Host key verification failed.", "host-key"),
        ("ssh: connect to host h port 22: Connection refused", "unreachable"),
        ("ssh: Could not resolve hostname h: Name or service not known", "unreachable"),
        ("ssh: connect to host h port 22: Connection timed out", "timeout"),
        ("kex_exchange_identification: Connection closed by remote host", "closed"),
        ("Permissions 0644 for 'k' are too open. WARNING: UNPROTECTED PRIVATE KEY FILE!", "key-file"),
        ("sinfo: error: something else", None),
    ],
)
def test_what_a_failed_login_means(said: str, kind: str | None) -> None:
    assert classify(said) == kind
