"""The doctor on this machine: no scheduler, no ssh; the real ones are in tests/cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from matcompute.centres import Centre, CentreError
from matcompute.centres.doctor import STEPS, examine_file
from matcompute.centres.remote import LoginError, Remote

PROFILE: dict[str, Any] = {
    "schema": "matcompute.centre/v1",
    "centre": {"id": "here"},
    "partitions": [{"name": "all", "cores": 1, "mem_gb": 0.5}],
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def made(**blocks: Any) -> Path:
        path = tmp_path / "here.yaml"
        data = {**PROFILE, "storage": {"work_dir": str(tmp_path / "work"), "min_free_gb": 0}, **blocks}
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return path

    return made


def test_this_machine_is_in_order(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    seen: list[str] = []
    report = examine_file(None, write(), smoke_timeout_s=120, on_step=lambda step: seen.append(step.name))
    assert report.ok
    assert report.faults == ()
    assert seen == list(STEPS)
    (job,) = report.step("smoke").details["jobs"]
    assert job["status"] == 0
    assert job["largest_difference_eV"] < 1e-6
    assert list((tmp_path / "work").iterdir()) == []  # tidied
    json.dumps(report.to_dict())


def test_a_wrong_file_is_a_fault_of_the_schema(write: Callable[..., Path]) -> None:
    report = examine_file(None, write(scheduler={"type": "slrum"}))
    assert report.faults == ("wrong-profile",)
    assert "did you mean 'slurm'" in report.step("schema").findings[0].message
    assert {step.state for step in report.steps[1:]} == {"skip"}


def test_a_variable_without_a_value_is_named(write: Callable[..., Path]) -> None:
    path = write(variables={"team": {}}, storage={"work_dir": "/scratch/{team}"})
    report = examine_file(None, path)
    assert report.faults == ("no-value",)
    assert report.step("schema").fix == "--set team=…"


def test_more_than_the_machine_has_is_named(write: Callable[..., Path]) -> None:
    path = write(partitions=[{"name": "all", "cores": 4096, "mem_gb": 10**6, "gpus": 64}])
    step = examine_file(None, path, only=["limits"]).step("limits")
    assert [item.fault for item in step.findings] == ["lower-limit"] * 3
    assert "cores is 4096, its largest node has" in step.findings[0].message


def test_the_folder_is_made_only_when_asked(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write()
    assert examine_file(None, path, only=["storage"]).faults == ("work-dir-missing",)
    assert not (tmp_path / "work").exists()
    assert examine_file(None, path, only=["storage"], fix=True).faults == ()
    assert (tmp_path / "work").is_dir()


def test_quotas_of_the_profile_count(write: Callable[..., Path], tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for number in range(20):
        (work / str(number)).touch()
    path = write(storage={"work_dir": str(work), "min_free_gb": 0, "max_files": 10})
    report = examine_file(None, path, only=["storage"])
    assert report.faults == ("disk-full",)
    assert "holds 21 files of the 10" in report.step("storage").findings[0].message
    path = write(storage={"work_dir": str(work), "min_free_gb": 10**9})
    assert examine_file(None, path, only=["storage"]).faults == ("disk-full",)


def test_a_code_that_fails_is_named(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    code = {"name": "tool", "executable": "/bin/echo", "plugin": "core.arithmetic.add"}
    test = {"arguments": ["hello", "world"], "expect": "good morning"}
    node = {"name": "matcompute-node", "executable": "/bin/false", "partitions": ["all"]}
    report = examine_file(None, write(codes=[{**code, "smoke_test": test}, node]), smoke_timeout_s=60)
    assert report.faults == ("code-broken", "wrong-result")
    test["expect"] = "hello +world"
    report = examine_file(None, write(codes=[{**code, "smoke_test": test}]), smoke_timeout_s=60)
    assert report.ok
    report = examine_file(
        None, write(codes=[{**code, "version": "9", "smoke_test": test}]), smoke_timeout_s=60
    )
    assert report.faults == ("version-mismatch",)


def test_a_project_that_is_over_is_named(write: Callable[..., Path]) -> None:
    path = write(projects=[{"account": "old", "until": "2001-01-01"}])
    assert examine_file(None, path, only=["account"]).faults == ("project-over",)


def test_an_unknown_step_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(CentreError, match="no step 'storge'; did you mean 'storage'"):
        examine_file(None, write(), only=["storge"])


def test_an_unreachable_host_is_named_and_the_rest_is_skipped(write: Callable[..., Path]) -> None:
    login = {"transport": "ssh", "hosts": ["127.0.0.1"], "port": 1, "connect_timeout_s": 5}
    codes = [{"name": "matcompute-node", "executable": "/x"}]
    report = examine_file(None, write(login=login, codes=codes))
    assert report.faults == ("unreachable",)
    assert {step.state for step in report.steps[2:]} == {"skip"}


# ---------------------------------------------------------------------- Remote on this machine
def test_remote_runs_copies_and_tells_chatter(write: Callable[..., Path], tmp_path: Path) -> None:
    with Remote(Centre.load(write())) as remote:
        done = remote.run("cat; echo out; echo err >&2; exit 3", input="in\n")
        assert (done.code, done.stdout, done.stderr, done.chatter) == (3, "in\nout\n", "err\n", "")
        assert done.message == "err"
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "f").write_text("x")
        remote.put(tmp_path / "a", str(tmp_path / "b"))
        remote.get(str(tmp_path / "b" / "f"), tmp_path / "c")
        assert (tmp_path / "c").read_text() == "x"
        with pytest.raises(LoginError, match="no answer after 0 s") as caught:
            remote.run("sleep 5", timeout=0.2)
        assert caught.value.kind == "timeout"


def test_a_chatty_shell_is_told_apart_from_the_command(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".bash_profile").write_text("echo Welcome; echo Hm >&2\n")
    monkeypatch.setitem(os.environ, "HOME", str(tmp_path))
    remote = Remote(Centre.load(write(login={"use_login_shell": True})))
    done = remote.run("echo 42")
    assert (done.stdout, done.chatter, done.noise) == ("42\n", "Welcome\n", "Hm\n")
    report = examine_file(None, write(login={"use_login_shell": True}), only=["login"])
    assert report.faults == ("chatty-shell",)
    assert not report.ok
    assert examine_file(None, write(), only=["login"]).ok  # a login shell is not in use: a warning
