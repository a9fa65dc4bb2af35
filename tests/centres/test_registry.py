"""Registering, changing and removing centres: what AiiDA gets, and that running work is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from matcompute.centres import Centre, CentreError, centre_ids, load_centre, registered, registry
from matcompute.centres.compare import compare
from matcompute.centres.computers import computers_of
from matcompute.workspace import Workspace

CONFIGS = Path(__file__).parents[2] / "cluster_configs"


@pytest.fixture
def gpu_file(workspace: Workspace, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Write the ready GPU profile with changes; the centre is forgotten afterwards."""

    def write(centre_id: str = "hpc-gpu", **changes: Any) -> Path:
        data = yaml.safe_load((CONFIGS / "slurm-gpu.yaml").read_text(encoding="utf-8"))
        data["centre"]["id"] = centre_id
        data["login"]["auth"] = {"method": "agent"}
        for key, value in changes.items():
            block, _, name = key.partition("__")
            data[block][name] = value
        path = tmp_path / "gpu.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    yield write
    for name in centre_ids(workspace)[1:]:
        registry.remove(workspace, name, force=True)


def test_what_aiida_gets(workspace: Workspace, gpu_file: Callable[..., Path]) -> None:
    path = gpu_file("one", login__auth={"method": "mfa-script", "script": "/bin/true"})
    done = registry.add(workspace, path, {"user": "ada"})
    assert done.new
    found = registered(workspace, "one", partition="gpu-debug", project="materials")
    assert (found.partition, found.account, found.slots) == ("gpu-debug", "materials", None)
    computer = found.computer
    assert computer.label == "one"
    assert (computer.transport_type, computer.scheduler_type) == ("core.ssh_async", "matcompute.slurm")
    assert computer.get_workdir() == "/lustre/materials/ada/matcompute"
    assert computer.get_mpirun_command() == ["srun", "-n", "{tot_num_mpiprocs}"]
    assert "module load cuda/12.4" in computer.get_prepend_text()
    assert computer.get_minimum_job_poll_interval() == 30
    from aiida.orm import ContainerizedCode, User

    settings = computer.get_authinfo(User.collection.get_default()).get_auth_params()
    assert (settings["host"], settings["backend"], settings["safe_interval"]) == ("mc-one", "openssh", 15)
    script = Path(settings["authentication_script"])
    assert "exec '/bin/true'" in script.read_text()
    code = found.codes["matcompute-node"]
    assert isinstance(code, ContainerizedCode)
    assert code.image_name == "/lustre/materials/images/matcompute.sif"
    assert code.use_double_quotes  # $PWD is the shell's
    config = (workspace.ssh_dir / "config").read_text()
    assert "Host mc-one\n" in config
    assert "Host mc-one-hop1" in config
    assert "Include ~/.ssh/config" in config


def test_the_same_profile_again_changes_nothing(workspace: Workspace, gpu_file: Callable[..., Path]) -> None:
    first = registry.add(workspace, gpu_file("two"), {"user": "ada"})
    codes = registered(workspace, "two").codes
    again = registry.add(workspace, gpu_file("two"))  # the value is remembered
    assert first.new
    assert not again.changed
    assert registered(workspace, "two").codes["matcompute-node"].uuid == codes["matcompute-node"].uuid
    assert load_centre(workspace, "two").login.user == "ada"


def test_a_change_is_shown_first_and_made_in_place(
    workspace: Workspace, gpu_file: Callable[..., Path]
) -> None:
    registry.add(workspace, gpu_file("three"), {"user": "ada"})
    before = registered(workspace, "three")
    path = gpu_file("three", scheduler__max_submitted=5, storage__work_dir="/new/{user}/{project}")
    shown = registry.add(workspace, path, dry_run=True)
    assert [str(item) for item in shown.differences] == [
        "scheduler.max_submitted: 20 → 5",
        "storage.work_dir: '/lustre/materials/ada/matcompute' → '/new/ada/materials'",
    ]
    assert load_centre(workspace, "three").window == 20
    registry.add(workspace, path)
    after = registered(workspace, "three")
    assert after.centre.window == 5
    assert after.computer.uuid == before.computer.uuid
    assert after.computer.get_workdir() == "/new/ada/materials"


def test_a_profile_edited_in_the_workspace_is_compared_with_what_was_registered(
    workspace: Workspace, gpu_file: Callable[..., Path]
) -> None:
    registry.add(workspace, gpu_file("four"), {"user": "ada"})
    stored = registry.require_profile(workspace, "four")
    stored.write_text(stored.read_text().replace("poll_interval_s: 30", "poll_interval_s: 60"))
    done = registry.add(workspace, stored)
    assert [item.key for item in done.differences] == ["scheduler.poll_interval_s"]


def test_another_machine_is_another_computer_and_the_old_one_stays(
    workspace: Workspace, gpu_file: Callable[..., Path]
) -> None:
    registry.add(workspace, gpu_file("five"), {"user": "ada"})
    old = registered(workspace, "five")
    done = registry.add(workspace, gpu_file("five", login__hosts=["elsewhere.example.org"]))
    assert done.moves
    new = registered(workspace, "five")
    assert (old.computer.label, new.computer.label) == ("five", "five-2")
    assert old.computer.hostname == "gpu.hpc.example.org"
    assert new.codes["matcompute-node"].uuid != old.codes["matcompute-node"].uuid
    config = (workspace.ssh_dir / "config").read_text()
    assert "gpu.hpc.example.org" in config  # running work still finds its host
    assert "elsewhere.example.org" in config
    # Back again: the first computer is taken up, no third one made.
    registry.add(workspace, gpu_file("five"))
    assert registered(workspace, "five").computer.uuid == old.computer.uuid
    assert len(computers_of(workspace, "five")) == 2


def test_removing_disables_and_keeps_the_nodes(workspace: Workspace, gpu_file: Callable[..., Path]) -> None:
    registry.add(workspace, gpu_file("six"), {"user": "ada"})
    found = registered(workspace, "six")
    assert registry.remove(workspace, "six") == 0
    assert "six" not in centre_ids(workspace)
    assert found.codes["matcompute-node"].is_hidden
    assert "mc-six\n" not in (workspace.ssh_dir / "config").read_text()
    with pytest.raises(CentreError, match="no centre 'six'"):
        registered(workspace, "six")
    registry.add(workspace, gpu_file("six"), {"user": "ada"})
    assert registered(workspace, "six").computer.uuid == found.computer.uuid
    assert not registered(workspace, "six").codes["matcompute-node"].is_hidden


def test_what_cannot_be_registered(workspace: Workspace, gpu_file: Callable[..., Path]) -> None:
    with pytest.raises(CentreError, match=r"no value for user"):
        registry.add(workspace, gpu_file("seven"))
    assert registry.questions(workspace, gpu_file("seven"), {}) == {"user": "Your user name at the centre"}
    path = gpu_file("seven", login__transport="firecrest", login__url="https://api.example.org")
    with pytest.raises(CentreError, match="transport 'firecrest' cannot be registered"):
        registry.add(workspace, path, {"user": "ada"})
    assert "seven" not in centre_ids(workspace)
    with pytest.raises(CentreError, match="'local' is this machine"):
        registry.remove(workspace, "local")
    with pytest.raises(CentreError, match="did you mean 'local'"):
        load_centre(workspace, "locl")


def test_differences_go_by_names() -> None:
    old = Centre.load(CONFIGS / "slurm-cpu.yaml", {"user": "ada", "project": "p"})
    new = old.model_copy(update={"partitions": old.partitions[1:]})
    assert {item.key.split(".")[0] for item in compare(old, new)} == {"partitions[short]"}
    assert all(item.new is None for item in compare(old, new))
    assert "(gone)" in str(compare(old, new)[0])


def test_an_exported_profile_is_one(
    workspace: Workspace, gpu_file: Callable[..., Path], tmp_path: Path, matcompute: Callable[..., Any]
) -> None:
    registry.add(workspace, gpu_file("eight"), {"user": "ada"})
    path = tmp_path / "out.yaml"
    path.write_text(registry.export_text(workspace, "eight", filled=True))
    assert compare(Centre.load(path), load_centre(workspace, "eight")) == []
    assert registry.export_text(workspace, "eight") == gpu_file("eight").read_text()
    shown = matcompute("-w", workspace.root, "centre", "show", "eight", "--json")
    assert json.loads(shown.stdout)["login"]["user"] == "ada"
    listed = matcompute("-w", workspace.root, "centre", "list")
    assert "eight" in listed.stdout
    wrong = matcompute(
        "centre", "check", CONFIGS / "sge.yaml", CONFIGS.parent / "pyproject.toml", check=False
    )
    assert wrong.returncode == 2
    assert "centre 'grid' is well described" in wrong.stdout
