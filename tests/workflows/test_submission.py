"""A job is submitted once and taken back for good: the shell code, run with schedulers that do what a test wants."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from matcompute.node.runner import WITHDRAWN as NODE_WITHDRAWN
from matcompute_workflows.submission import (
    PREFIX,
    WITHDRAWN,
    Withdrawal,
    job_name,
    read_withdrawal,
    submit_once,
    withdraw,
)

UUID = "c6192bef-8aae-4b95-972e-1a67802497e3"
NAME = "mc-c6192bef8aae"

#: Schedulers of a few lines. Jobs are files in ``queue``; ``sbatch`` may hang, may be slow, may lie about its success.
FAKE = {
    "sbatch": """\
n=$(ls $QUEUE | wc -l); n=$((n + 1))
for word; do case $word in --job-name=*) name=${word#*=};; esac; done
echo "$name" > $QUEUE/$n
[ -e $QUEUE.slow ] && { s=$(cat $QUEUE.slow); rm $QUEUE.slow; touch $QUEUE.asked; sleep $s; }
[ -e $QUEUE.lies ] && { rm $QUEUE.lies; echo 'Socket timed out on send/recv operation' >&2; exit 1; }
echo "Submitted batch job $n"
""",
    "squeue": """\
[ -e $QUEUE.down ] && { echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }
while [ $# -gt 0 ]; do [ "$1" = -n ] && name=$2; shift; done
grep -lx -e "$name" $QUEUE/* 2>/dev/null | xargs -rn1 basename
true
""",
    "scancel": 'rm -f "$QUEUE/$1"; touch $QUEUE.cancelled-$1\n',
}


class Centre:
    """A job's folder and a scheduler."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "scratch" / UUID[:2] / UUID[2:4] / UUID[4:]
        self.folder.mkdir(parents=True)
        self.queue, programs = root / "queue", root / "bin"
        self.queue.mkdir()
        programs.mkdir()
        for name, text in FAKE.items():
            (programs / name).write_text(f"#!/bin/bash\n{text}")
            (programs / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "QUEUE": str(self.queue),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        self.submission = submit_once("slurm", "sbatch 'job.sh'", job_name(self.folder))

    def switch(self, name: str) -> Path:
        return self.queue.with_name(f"queue.{name}")

    @property
    def jobs(self) -> list[str]:
        return [path.read_text().strip() for path in sorted(self.queue.iterdir())]

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        # As AiiDA's transport does.
        command = f"cd {self.folder} && ( {code} )"
        return subprocess.run(
            ["bash", "-c", command], env=self.environment, capture_output=True, text=True, check=False
        )

    def start(self, code: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["bash", "-c", f"cd {self.folder} && ( {code} )"],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def withdraw(self) -> Withdrawal | None:
        return read_withdrawal(self.run(withdraw("slurm", str(self.folder))).stdout)


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    return Centre(tmp_path)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_names() -> None:
    assert job_name(f"/scratch/{UUID[:2]}/{UUID[2:4]}/{UUID[4:]}") == NAME
    assert job_name("/scratch/some/other/folder") is None
    assert NAME.startswith(PREFIX)
    assert len(NAME) <= 15, "PBS"
    assert WITHDRAWN == NODE_WITHDRAWN


@pytest.mark.parametrize(
    ("scheduler", "command", "named"),
    [
        ("slurm", "sbatch 'job.sh'", f"sbatch --job-name={NAME} 'job.sh'"),
        ("sge", "qsub -terse 'job.sh'", f"qsub -N {NAME} -terse 'job.sh'"),
        ("pbs", "qsub 'job.sh'", f"qsub -N {NAME} 'job.sh'"),
        ("lsf", "bsub < 'job.sh'", f"bsub -J {NAME} < 'job.sh'"),
        (
            "direct",
            "(bash 'job.sh' > /dev/null 2>&1 & echo $!) &",
            "(bash 'job.sh' > /dev/null 2>&1 & echo $!) &",
        ),
    ],
)
def test_the_command_gets_the_name_and_the_code_is_sound(scheduler: str, command: str, named: str) -> None:
    code = submit_once(scheduler, command, NAME)
    assert named in code
    for text in (code, withdraw(scheduler, f"/scratch/{UUID[:2]}/{UUID[2:4]}/{UUID[4:]}")):
        for shell in ("bash", "sh"):
            done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")


def test_a_second_submission_gives_the_first_ones_answer(centre: Centre) -> None:
    first, second = centre.run(centre.submission), centre.run(centre.submission)
    assert first.stdout == second.stdout == "Submitted batch job 1\n"
    assert centre.jobs == [NAME]


def test_a_connection_that_breaks_after_the_scheduler_has_the_job(centre: Centre) -> None:
    """The shell at the centre dies with it: the queue is asked by the job's name."""
    centre.switch("slow").write_text("30")
    process = centre.start(centre.submission)
    until(centre.switch("asked").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = centre.run(centre.submission)
    assert again.stdout == "Submitted batch job 1\n"
    assert centre.jobs == [NAME]


def test_a_hangup_does_not_stop_a_submission(centre: Centre) -> None:
    centre.switch("slow").write_text("1")
    process = centre.start(centre.submission)
    until(centre.switch("asked").exists)
    os.killpg(process.pid, signal.SIGHUP)
    process.wait()
    until((centre.folder / ".submit.answer").exists)
    assert centre.run(centre.submission).stdout == "Submitted batch job 1\n"
    assert centre.jobs == [NAME]


def test_a_scheduler_that_refuses_what_it_has_taken(centre: Centre) -> None:
    centre.switch("lies").touch()
    first = centre.run(centre.submission)
    assert first.returncode != 0
    assert "Socket timed out" in first.stderr
    centre.switch("down").touch()
    second = centre.run(centre.submission)
    assert (second.returncode, second.stdout) == (77, "")
    assert "does not say whether it has this job" in second.stderr
    centre.switch("down").unlink()
    assert centre.run(centre.submission).stdout == "Submitted batch job 1\n"
    assert centre.jobs == [NAME]


def test_a_submission_waits_for_the_one_under_way(centre: Centre) -> None:
    (centre.queue.with_name("bin") / "sbatch").write_text(
        f"#!/bin/bash\necho {NAME} > $QUEUE/1; sleep 1; echo 'Submitted batch job 1'\n"
    )
    processes = [centre.start(f"{centre.submission} > out-{n}") for n in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert {(centre.folder / f"out-{n}").read_text() for n in range(3)} == {"Submitted batch job 1\n"}
    assert centre.jobs == [NAME]


def test_a_job_that_was_taken_back_is_not_submitted(centre: Centre) -> None:
    assert centre.withdraw() == Withdrawal(gone=True, begun=False)
    done = centre.run(centre.submission)
    assert done.returncode == 76
    assert "withdrawn" in done.stderr
    assert centre.jobs == []
    # A folder that is not there has no job.
    nowhere = centre.run(withdraw("slurm", "/nowhere/at/all"))
    assert read_withdrawal(nowhere.stdout) == Withdrawal(gone=True, begun=False)


def test_taking_back_cancels_what_is_in_the_queue(centre: Centre) -> None:
    centre.run(centre.submission)
    (centre.queue / "7").write_text(f"{NAME}\n")  # submitted twice, by whatever mischance
    (centre.queue / "8").write_text("mine\n")
    assert centre.withdraw() == Withdrawal(gone=True, begun=False, job_ids=("1", "7"))
    assert centre.jobs == ["mine"]


def test_taking_back_says_what_had_begun(centre: Centre) -> None:
    centre.run(centre.submission)
    (centre.folder / "job.lock").touch()
    (centre.folder / "checkpoint").mkdir()
    assert centre.withdraw() == Withdrawal(gone=True, begun=True, job_ids=("1",))


def test_taking_back_while_the_scheduler_is_down_says_nothing(centre: Centre) -> None:
    centre.switch("down").touch()
    assert centre.withdraw() is None
    assert read_withdrawal("Welcome!\n") is None


def test_without_a_scheduler_the_process_is_ended(centre: Centre) -> None:
    (centre.folder / "job.sh").write_text("sleep 1000 & sleep 1000\n")
    code = submit_once("direct", "(bash 'job.sh' > /dev/null 2>&1 & echo $!) &", NAME)
    first, second = centre.run(code), centre.run(code)
    assert first.stdout == second.stdout
    pid = int(first.stdout)
    children = [
        int(line) for line in Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if line.strip()
    ]
    found = centre.run(withdraw("direct", str(centre.folder)))
    assert read_withdrawal(found.stdout) == Withdrawal(gone=True, begun=False, job_ids=(str(pid),))
    for number in (pid, *children):
        until(lambda number=number: not Path(f"/proc/{number}").exists() or _zombie(number))


def _zombie(pid: int) -> bool:
    return "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()
