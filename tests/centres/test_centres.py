"""The local centre: its file, what is detected, and its AiiDA computer and code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from matcompute.centres import Centre, CentreError, detect, local_centre, register

READY = Path(__file__).parents[2] / "cluster_configs" / "workstation.yaml"


@pytest.fixture
def local_file(workspace):
    """Write ``centres/local.yaml``; it is gone afterwards and the centre is as before."""
    path = workspace.centres_dir / "local.yaml"

    def write(**changes):
        data = yaml.safe_load(READY.read_text())
        for key, value in changes.items():
            block, _, name = key.partition("__")
            data[block][name] = value
        path.write_text(yaml.safe_dump(data))
        return path

    yield write
    path.unlink(missing_ok=True)
    register(workspace, local_centre(workspace))


def test_the_ready_profile_is_valid():
    centre = Centre.load(READY)
    assert (centre.id, centre.clearance, centre.cores, centre.window) == ("local", "general", 2, 4)


def test_the_cores_that_this_process_may_use_are_detected():
    centre = detect()
    assert centre.cores == len(os.sched_getaffinity(0))
    assert centre.memory_gb > 0
    assert centre.window > centre.cores


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "schema: matcompute.centre/v1\ncentre: {id: Local}\npartitions: [{name: a, cores: 1, mem_gb: 1}]",
            "centre.id",
        ),
        ("schema: matcompute.centre/v1\ncentre: {id: a}\n", "'partitions' is missing"),
        (
            "schema: matcompute.centre/v1\ncentre: {id: a}\npartitions: [{name: a, core: 1, cores: 1, mem_gb: 1}]",
            "did you mean 'cores'",
        ),
        (
            "schema: x\ncentre: {id: a}\npartitions: [{name: a, cores: 1, mem_gb: 1}]",
            "schema: 'x' is not a valid value",
        ),
        ("centre: [", "not valid YAML"),
        ("- 1", "expected a mapping"),
    ],
)
def test_a_wrong_file_is_told_by_key(tmp_path, text, message):
    path = tmp_path / "centre.yaml"
    path.write_text(text)
    with pytest.raises(CentreError, match=message) as error:
        Centre.load(path)
    assert str(path) in str(error.value)


def test_register_is_idempotent(workspace):
    first = register(workspace, local_centre(workspace))
    second = register(workspace, local_centre(workspace))
    assert first.computer.uuid == second.computer.uuid
    assert first.codes["matcompute-node"].uuid == second.codes["matcompute-node"].uuid


def test_what_is_registered(workspace, centre):
    computer = centre.computer
    assert computer.label == "local"
    assert computer.get_workdir() == str(workspace.scratch_dir)
    assert computer.get_minimum_job_poll_interval() <= 1
    assert computer.get_transport().get_safe_open_interval() == 0
    assert Path(computer.get_mpirun_command()[0]).name == "mpiexec"
    code = centre.codes["matcompute-node"]
    assert code.full_label == "matcompute-node@local"
    assert os.access(code.filepath_executable, os.X_OK)
    assert sorted(p.name for p in workspace.slots_dir.iterdir()) == [
        f"core-{number}" for number in range(centre.centre.cores)
    ]


def test_the_file_in_the_workspace_decides(workspace, local_file):
    local_file(scheduler__max_submitted=7, launch__env={"OMP_PROC_BIND": "true"})
    centre = local_centre(workspace)
    assert centre.window == 7
    registered = register(workspace, centre)
    assert "export OMP_PROC_BIND=true" in registered.computer.get_prepend_text()


def test_slots_follow_the_cores(workspace, local_file):
    path = local_file()
    data = yaml.safe_load(path.read_text())
    data["partitions"][0]["cores"] = 5
    path.write_text(yaml.safe_dump(data))
    register(workspace, local_centre(workspace))
    assert len(list(workspace.slots_dir.glob("core-*"))) == 5
    data["partitions"][0]["cores"] = 1
    path.write_text(yaml.safe_dump(data))
    register(workspace, local_centre(workspace))
    assert [p.name for p in workspace.slots_dir.glob("core-*")] == ["core-0"]


def test_another_id_in_the_local_file_is_refused(workspace, local_file):
    local_file(centre__id="elsewhere")
    with pytest.raises(CentreError, match="expected 'local'"):
        local_centre(workspace)


def test_a_code_that_moved_is_replaced_and_the_old_one_kept(workspace, centre):
    from matcompute.centres.codes import setup_codes
    from matcompute.centres.model import CodeBlock

    old = centre.codes["matcompute-node"]
    elsewhere = CodeBlock(name="matcompute-node", executable="/elsewhere/bin/matcompute-node")
    new = setup_codes(centre.computer, centre.centre.model_copy(update={"codes": (elsewhere,)}))[
        "matcompute-node"
    ]
    try:
        assert new.uuid != old.uuid
        assert old.is_hidden
        assert new.label == "matcompute-node-2"
    finally:
        again = register(workspace, local_centre(workspace)).codes["matcompute-node"]
    assert again.uuid == old.uuid
    assert not again.is_hidden
    assert new.is_hidden
