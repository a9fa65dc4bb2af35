"""The test centres are what the other tests here take them for."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from matcompute.centres import Centre

from .services import Container, Site, SlurmCluster, SshLogin, sweep

NODE_PROGRAM = Path(sys.prefix) / "bin/matcompute-node"


def submit(site: Site, lines: str, *options: str) -> str:
    """Submit a job as the ordinary user over SSH; its output goes to ``NAME.out``; return the job's number."""
    name = f"job-{time.monotonic_ns()}"
    flags = {
        "slurm": f"--parsable -J {name} -o {name}.out",
        "sge": f"-terse -N {name} -j y -o $HOME/{name}.out",
    }
    program = {"slurm": "sbatch", "sge": "qsub -S /bin/bash"}[site.scheduler]
    command = f"{program} {flags[site.scheduler]} {' '.join(options)} <<'END'\n#!/bin/bash\n{lines}\nEND\n"
    number = site(command).strip()
    assert number.isdigit(), number
    return f"{number} {name}"


def output(site: Site, job: str, timeout: float = 300) -> str:
    """Wait until a job has ended; return what it wrote."""
    number, name = job.split()
    queue = {"slurm": f"squeue -h -j {number} -t PD,R,CG", "sge": f"qstat | grep -w {number}"}[site.scheduler]

    def ended() -> bool:
        done = site.container.run("bash", "-c", queue, user=True, check=False)
        return site.controller_answers() and not done.stdout.strip()

    site.container.until(ended, f"the end of job {job}", timeout)
    path = site.home / f"{name}.out"
    return path.read_text() if path.exists() else ""


def until(condition: Callable[[], object], timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---------------------------------------------------------------------- what a user does
def test_ordinary_user_runs_the_node_program_in_a_job(site: Site) -> None:
    job = submit(site, f"id -un; hostname; pwd; {NODE_PROGRAM} info")
    who, where, folder, *rest = output(site, job).splitlines()
    assert (who, where, folder) == ("mcuser", site.name, "/home/mcuser")
    assert "emt" in "\n".join(rest)


def test_environment_modules(site: Site) -> None:
    use = "source /etc/profile.d/modules.sh; module load"
    assert (
        output(site, submit(site, f"{use} chemistry/1.0; echo version=$CHEMISTRY_VERSION")) == "version=1.0\n"
    )
    done = site.container.over_ssh(f"{use} physics/1.0", check=False)
    assert (done.returncode, "physics/1.0" in done.stderr) == (1, True)


def test_accounting(slurm_a: Site, slurm_b: Site, sge: Site) -> None:
    jobs = {site: submit(site, "sleep 1; exit 3") for site in (slurm_a, slurm_b, sge)}
    for site, job in jobs.items():
        output(site, job)
    number = jobs[slurm_a].split()[0]

    def recorded() -> bool:
        line = slurm_a(
            f"sacct -nPX -j {number} -o JobID,User,Account,State,ExitCode,AllocCPUS,ElapsedRaw"
        ).strip()
        return re.fullmatch(rf"{number}\|mcuser\|materials\|FAILED\|3:0\|1\|[1-9]\d*", line) is not None

    until(recorded)
    assert slurm_b("sacct", check=False) == ""
    number = jobs[sge].split()[0]
    until(lambda: re.search(r"^exit_status +3", sge(f"qacct -j {number}", check=False), re.MULTILINE))


def test_fake_gpus_are_handed_out(slurm_a: Site) -> None:
    both = "for i in 1 2 3 4 5; do [ $(squeue -h -t R -p gpu -o %i | wc -l) = 2 ] && break; sleep 0.5; done"
    jobs = [
        submit(slurm_a, f"{both}; echo device=$CUDA_VISIBLE_DEVICES", "-p gpu --gres=gpu:1") for _ in range(2)
    ]
    devices = [re.findall(r"device=(\d)", output(slurm_a, job)) for job in jobs]
    assert sorted(devices) == [["0"], ["1"]]
    done = slurm_a.container.over_ssh("sbatch -p gpu --gres=gpu:3 --wrap true", check=False)
    assert "not available" in done.stderr


def test_a_user_is_no_admin(site: Site) -> None:
    command = {"slurm": "scontrol update NodeName={0} State=DRAIN Reason=no", "sge": "qmod -d '*@{0}'"}
    done = site.container.over_ssh(command[site.scheduler].format(site.nodes[0]), check=False)
    assert done.returncode != 0 or "denied" in done.stdout
    assert set(site.node_states().values()) == {"idle"}


# ---------------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize("site", ["slurm_a"], indirect=True)
def test_controller_is_killed_and_comes_back(site: Site) -> None:
    job = submit(site, "sleep 8; echo survived")
    until(lambda: site("squeue -h -t R").strip())
    site.kill_controller()
    try:
        assert not site.controller_answers()
        assert site.node_states() == {}
    finally:
        site.start_controller()
    assert output(site, job) == "survived\n"
    assert output(site, submit(site, "echo next")) == "next\n"


@pytest.mark.parametrize("site", ["slurm_a", "sge"], indirect=True)
def test_drained_nodes_take_no_job_until_resumed(site: Site) -> None:
    for node in site.nodes:
        site.drain(node)
    try:
        assert "idle" not in site.node_states().values()
        job = submit(site, "echo ran")
        time.sleep(3)
        assert not (site.home / f"{job.split()[1]}.out").exists()
    finally:
        for node in site.nodes:
            site.resume(node)
    assert output(site, job) == "ran\n"
    site.container.until(lambda: set(site.node_states().values()) == {"idle"}, "nodes that wait for jobs")


def test_killed_node_daemon_leaves_its_job_running(slurm_b: Site) -> None:
    assert isinstance(slurm_b, SlurmCluster)
    job = submit(slurm_b, "sleep 2; echo survived")
    until(lambda: slurm_b("squeue -h -t R").strip())
    slurm_b.kill_node("b1")
    slurm_b.start_node("b1")
    assert output(slurm_b, job) == "survived\n"


def test_sshd_goes_down_and_comes_back(site: Site) -> None:
    command = [*site.ssh.command("echo ready; sleep 60")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "ready\n"
        site.sshd_down()
        try:
            assert session.wait(timeout=60) == 255  # cut
            until(lambda: "refused" in site.container.over_ssh("true", check=False).stderr)
        finally:
            site.sshd_up()
    until(lambda: site.container.over_ssh("true", check=False).returncode == 0)


# ---------------------------------------------------------------------- what a centre is made of
def test_profile_is_valid(site: Site, tmp_path: Path) -> None:
    centre = Centre.load(site.profile(tmp_path, scheduler={"max_submitted": 7}, centre={"title": "other"}))
    assert (centre.id, centre.title, centre.window) == (site.name, "other", 7)
    assert centre.cores == 4 * len(site.nodes) + 4 * (site.name == "slurm-a")
    assert centre.login.port == site.ssh.port


def test_a_centre_shares_no_folder_with_this_machine(site: Site, tmp_path: Path) -> None:
    (tmp_path / "local").touch()
    assert site.container.over_ssh(f"ls {tmp_path}", check=False).returncode != 0
    site("echo remote > ~/remote")
    assert (site.home / "remote").read_text() == "remote\n"
    assert not Path("/home/mcuser").exists()
    assert "mcuser" not in Path("/etc/passwd").read_text()
    assert site.container.over_ssh(f"touch {sys.prefix}/x", check=False).returncode != 0
    assert "slurm" not in site("cat /proc/[0-9]*/comm") or site.scheduler == "slurm"


def test_only_the_key_logs_in(site: Site, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    ssh = site.ssh
    wrong = SshLogin(ssh.host, ssh.port, ssh.user, tmp_path / "other", ssh.known_hosts)
    done = subprocess.run(wrong.command("true"), capture_output=True, text=True, check=False)
    assert "Permission denied" in done.stderr
    (tmp_path / "known_hosts").touch()
    unknown = SshLogin(ssh.host, ssh.port, ssh.user, ssh.key, tmp_path / "known_hosts")
    done = subprocess.run(unknown.command("true"), capture_output=True, text=True, check=False)
    assert "Host key verification failed" in done.stderr


def test_idle_centres_need_no_cpu(slurm_a: Site, slurm_b: Site, sge: Site) -> None:
    def seconds() -> float:
        total = 0.0
        for site in (slurm_a, slurm_b, sge):
            first = psutil.Process(site.container.pid)
            for process in [first, *first.children(recursive=True)]:
                total += sum(process.cpu_times()[:2])
        return total

    until(lambda: all(set(site.node_states().values()) == {"idle"} for site in (slurm_a, slurm_b, sge)))
    time.sleep(1)
    before = seconds()
    time.sleep(4)
    assert seconds() - before < 0.4  # a tenth of one core for all three


def test_nothing_is_left_of_a_run_that_was_killed(cluster_folder: Path) -> None:
    """``kill -9`` of the process that made a container ends all that runs in it; the next run removes its files."""
    script = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from cluster.services import Container, new_folder
        folder, lock = new_folder()
        box = Container(folder / "x", "short-lived")
        box.start()
        box.spawn("sleep", "1000", log="sleep.log")
        box.spawn("setsid", "--fork", "sleep", "1000", log="sleep.log")
        time.sleep(0.2)
        print(folder, box.pid, flush=True)
        time.sleep(1000)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder, pid = process.stdout.readline().split()
    assert Path(folder).parent == cluster_folder.parent
    first = psutil.Process(int(pid))
    inside = [other for other in psutil.process_iter() if _namespace(other.pid) == _namespace(first.pid)]
    assert len(inside) >= 3
    assert Path(folder) not in sweep()  # it lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(inside, timeout=60)
    assert not alive
    until(lambda: Path(folder) in sweep())
    assert not Path(folder).exists()


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def test_a_container_that_cannot_start_says_why(cluster_folder: Path) -> None:
    box = Container(cluster_folder / "broken", "broken")
    box._hidden.append("/nowhere")
    with pytest.raises(RuntimeError, match="/nowhere"):
        box.start()
    box.stop()
