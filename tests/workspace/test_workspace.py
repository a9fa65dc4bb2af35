"""Making, finding, moving and losing a workspace. Each in a subprocess: AiiDA has one profile per process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from matcompute.workspace import Workspace, WorkspaceError
from matcompute.workspace.settings import WorkspaceSettings

FROM_PYTHON = """
import sys
from ase.build import bulk
from matcompute.centres import local_centre, register
from matcompute.dataset import DatasetWriter, Metadata
from matcompute.workspace import Workspace
from matcompute_kernels import Batch
workspace = Workspace(sys.argv[1])
centre = register(workspace, local_centre(workspace))
workspace.ensure_daemon()
from aiida.engine import submit
from matcompute_workflows import ShardData, build_batch
import time
path = workspace.root / "one.h5"
with DatasetWriter(path, Metadata(), overwrite=True) as writer:
    writer.append(Batch.from_atoms([bulk("Cu")]))
task = {"task": "static", "parameters": {}, "calculator": {"name": "emt", "parameters": {}}, "stage": "static"}
node = submit(build_batch(centre, ShardData(path), task, label="one"))
end = time.time() + 90
while not node.is_terminated and time.time() < end:
    time.sleep(0.1)
assert node.is_finished_ok, (node.process_state, node.exit_message)
print("job", node.called[0].get_remote_workdir())
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, matcompute):
    """A workspace made by the command line, and a home that was empty before."""
    home = tmp_path_factory.mktemp("home")
    root = tmp_path_factory.mktemp("made") / "workspace"
    root.mkdir()
    matcompute("init", root, HOME=str(home))
    return root, home


def _run_batch(root: Path, home: Path) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("AIIDA_PATH", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", FROM_PYTHON, str(root)],
        env={**env, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_init_makes_everything_and_says_where(made):
    root, _ = made
    settings = WorkspaceSettings.load(root / "matcompute.toml")
    assert settings.embedded
    assert {"aiida", "datasets", "scratch", "logs", "slots", "cache"} <= {p.name for p in root.iterdir()}
    config = json.loads((root / "aiida/.aiida/config.json").read_text())
    profile = config["profiles"]["matcompute"]
    assert profile["storage"]["backend"] == "core.sqlite_dos"
    assert profile["process_control"]["backend"] == "core.zeromq"


def test_nothing_is_written_in_the_home(made, matcompute):
    """Init, daemon, one batch, verdi, stop."""
    root, home = made
    env = {"HOME": str(home)}
    try:
        _run_batch(root, home)
        assert "BatchWorkChain" in matcompute("verdi", "process", "list", "-a", cwd=root, **env).stdout
        status = json.loads(matcompute("-w", root, "workspace", "status", "--json", **env).stdout)
        assert status["daemon"]["state"] == "running"
    finally:
        matcompute("-w", root, "workspace", "stop", HOME=str(home))
    assert list(home.iterdir()) == []


def test_a_moved_workspace_works(made, matcompute, tmp_path):
    root, home = made
    target = tmp_path / "elsewhere with spaces"
    shutil.copytree(root, target)
    try:
        out = _run_batch(target, home)
        assert str(target) in out, "the job ran in the old place"
        storage = json.loads((target / "aiida/.aiida/config.json").read_text())
        assert storage["profiles"]["matcompute"]["storage"]["config"]["filepath"].startswith(str(target))
    finally:
        matcompute("-w", target, "workspace", "stop")


def test_verdi_starts_our_daemon(made, matcompute):
    """AiiDA's own broker would delete the folder that a damaged file names: the current one, all of it."""
    root, _ = made
    there = {path.name for path in root.iterdir()}
    (root / "aiida/.aiida/broker").mkdir(exist_ok=True)
    (folder,) = (root / "aiida/.aiida/broker").glob("*")
    (folder / "broker.sockets").write_text("")
    try:
        assert "daemon started" in matcompute("verdi", "daemon", "start", cwd=root).stdout
        assert "daemon restarted" in matcompute("verdi", "daemon", "restart", cwd=root).stdout
        assert there <= {path.name for path in root.iterdir()}
    finally:
        matcompute("-w", root, "workspace", "stop")
    refused = matcompute("verdi", "daemon", "start", "3", cwd=root, check=False)
    assert refused.returncode == 2
    assert "one worker" in refused.stderr


def test_two_starts_at_once_make_one_daemon(made, tmp_path, matcompute):
    root, _ = made
    command = [str(Path(sys.executable).parent / "matcompute"), "-w", str(root), "workspace", "start"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        said = sorted(process.communicate(timeout=90)[0].strip() for process in both)
        assert [process.returncode for process in both] == [0, 0]
        assert said == ["daemon started", "daemon was running"]
        import psutil

        parts = [
            p
            for p in psutil.process_iter(["cmdline"])
            if any(str(root) in part for part in p.info["cmdline"] or [])
            and "_worker" in " ".join(p.info["cmdline"])
        ]
        assert len(parts) == 1
    finally:
        matcompute("-w", root, "workspace", "stop")


def test_init_twice_is_refused(made, matcompute):
    root, _ = made
    done = matcompute("init", root, check=False)
    assert done.returncode == 2
    assert "is a workspace already" in done.stderr


def test_no_workspace_is_a_clear_error(tmp_path, matcompute):
    done = matcompute("workspace", "status", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "no workspace in" in done.stderr
    assert "matcompute init" in done.stderr


def test_an_unknown_profile_names_the_nearest(made, matcompute, tmp_path):
    root, _ = made
    done = matcompute(
        "init", tmp_path / "other", "--profile", "matcomputer", check=False, AIIDA_PATH=str(root / "aiida")
    )
    assert done.returncode == 2
    assert "did you mean 'matcompute'?" in done.stderr
    assert not (tmp_path / "other" / "matcompute.toml").exists()


def test_an_existing_profile_is_used_and_left_where_it_is(made, matcompute, tmp_path):
    root, _ = made
    other = tmp_path / "other"
    matcompute("init", other, "--profile", "matcompute", AIIDA_PATH=str(root / "aiida"))
    settings = WorkspaceSettings.load(other / "matcompute.toml")
    assert not settings.embedded
    assert Path(settings.aiida_path) == root / "aiida" / ".aiida"
    assert not (other / "aiida").exists()
    listed = matcompute("verdi", "computer", "list", cwd=other).stdout
    assert "local-" + settings.uuid[:8] in listed


def test_find_walks_up_and_obeys_the_environment(made, tmp_path, monkeypatch):
    root, _ = made
    deep = root / "datasets" / "deep"
    deep.mkdir(exist_ok=True)
    assert Workspace.find(deep).root == root
    monkeypatch.setenv("MATCOMPUTE_WORKSPACE", str(root))
    monkeypatch.chdir(tmp_path)
    assert Workspace.find().root == root
    monkeypatch.setenv("MATCOMPUTE_WORKSPACE", str(tmp_path))
    with pytest.raises(WorkspaceError, match="from MATCOMPUTE_WORKSPACE"):
        Workspace.find()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 1\nx", "not valid TOML"),
        ('schema = "matcompute.workspace/v9"', "expected 'matcompute.workspace/v1'"),
        ('schema = "matcompute.workspace/v1"\nuuid="1"\ncreated="x"\n', "'profile' is missing"),
    ],
)
def test_a_damaged_settings_file_is_named(tmp_path, text, message):
    (tmp_path / "matcompute.toml").write_text(text)
    with pytest.raises(WorkspaceError, match=message):
        Workspace(tmp_path)


def test_a_missing_database_is_named(made, tmp_path, matcompute):
    root, _ = made
    target = tmp_path / "copy"
    shutil.copytree(root, target)
    (target / "aiida/storage/database.sqlite").unlink()
    done = matcompute("-w", target, "workspace", "status", check=False)
    assert done.returncode == 2
    assert "database.sqlite" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become nobody")
def test_a_read_only_folder_is_a_clear_error(tmp_path):
    """As another user, since root writes everywhere; the modules are imported before."""
    locked = Path("/var/tmp") / f"matcompute-read-only-{os.getpid()}"
    locked.mkdir(mode=0o755)
    done = _create_under("os.setuid(65534)", locked)
    locked.rmdir()
    assert done.returncode == 3, done.stderr
    assert f"cannot write in {locked}: Permission denied" in done.stdout


def test_a_full_disk_is_a_clear_error(tmp_path):
    """No file may grow past zero bytes: what a full disk looks like to a program."""
    done = _create_under(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))", tmp_path / "full"
    )
    assert done.returncode == 3, done.stderr
    assert "cannot write in" in done.stdout
    assert not (tmp_path / "full" / "matcompute.toml").exists()


def _create_under(limit: str, root: Path) -> subprocess.CompletedProcess[str]:
    script = (
        "import os, sys, tempfile, random\n"
        "import matcompute.workspace.profiles\n"
        "from matcompute.workspace import Workspace, WorkspaceError\n"
        f"{limit}\n"
        "try:\n    Workspace.create(sys.argv[1])\n"
        "except WorkspaceError as error:\n    print(error); sys.exit(3)"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(root)], capture_output=True, text=True, timeout=60, check=False
    )


def test_init_takes_seconds(tmp_path, matcompute):
    """Of processor time, and three times what it takes alone on a slow machine."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    matcompute("init", tmp_path / "new")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 10.0
