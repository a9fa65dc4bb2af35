"""Step 6: a real job for each partition and code, through the scheduler, and its results checked."""

from __future__ import annotations

import re
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matcompute.centres.doctor.codes import program_blocks
from matcompute.centres.doctor.patient import Patient
from matcompute.centres.doctor.report import Finding, Step, worst
from matcompute.centres.doctor.trial import Trial, check_result, write_folder
from matcompute.centres.model import NODE_PROGRAM
from matcompute.centres.remote import LoginError

__all__ = ["examine_smoke"]

#: A job that the scheduler no longer knows may still be on its way to the login node's view of the disk, in s.
_GRACE_S = 15.0
_SUBMIT = {
    "slurm": "sbatch --parsable job.sh",
    "sge": "qsub -terse job.sh",
    "direct": "setsid bash job.sh > job.out 2>&1 < /dev/null & echo $!",
}
_QUEUE = {
    "slurm": "squeue -h -u \"$(id -un)\" -o '%i|%T|%r'",
    "sge": 'qstat -u "$(id -un)" | awk \'NR > 2 {print $1 "|" $5 "|"}\'',
    "direct": 'ps -u "$(id -un)" -o pid= -o stat= | awk \'$2 !~ /^Z/ {print $1 "|RUNNING|"}\'',
}
_CANCEL = {"slurm": "scancel", "sge": "qdel", "direct": "kill --"}
#: What schedulers say when they refuse a job → fault, key of the profile.
_REFUSALS: tuple[tuple[str, str, str], ...] = (
    (r"invalid account|unknown project|project .*does not exist", "wrong-account", "projects[].account"),
    (
        r"invalid partition|unknown queue|no suitable queues|queue .*does not exist",
        "wrong-partition",
        "partitions",
    ),
    (r"time limit|h_rt", "walltime-too-long", "partitions[].max_wall"),
    (r"parallel environment", "wrong-parallel-environment", "partitions[].parallel_environment"),
    (r"limit|maximum|too many|qos", "lower-limit", "scheduler.max_submitted"),
    (r"gres|generic resource", "wrong-gpu-resource", "partitions[].gpus.resource"),
    (r"unable to contact|cannot connect|can't connect|communication", "scheduler-down", "scheduler"),
)


def examine_smoke(patient: Patient) -> Step:
    """Run the smoke jobs of all partitions and codes that earlier steps have found in order."""
    kind = patient.centre.scheduler.type
    if kind not in _SUBMIT:
        return Step("smoke", "skip", f"no smoke job for {kind} in this release; run a small campaign there")
    trials, untried = _choose(patient)
    if not trials:
        return Step("smoke", "skip", "nothing to try: " + "; ".join(untried or ["no code has a smoke test"]))
    base = f"{patient.work_dir}/.matcompute-doctor-{time.time_ns()}"
    findings: list[Finding] = []
    running: list[Trial] = []
    try:
        running = _submit(patient, base, trials, findings)
        _wait(patient, running)
        findings += [item for trial in running for item in _judge(patient, trial)]
    except LoginError as error:
        findings.append(
            Finding("no-answer", f"the smoke jobs were lost sight of: {error.message}", error.hint or "")
        )
    finally:
        _tidy(patient, base, running, keep=any(item.state == "fail" for item in findings))
    good = sum(trial.status == 0 for trial in running)
    bad = next((item.message for item in findings if item.state == "fail"), None)
    details: dict[str, Any] = {
        "jobs": [
            {
                "partition": t.partition.name,
                "code": t.code.name,
                "job": t.job_id,
                "status": t.status,
                **t.details,
            }
            for t in trials
        ],
        "untried": untried,
    }
    count = f"{good} job{'s' if good != 1 else ''} ran and gave the right results"
    return Step("smoke", worst(findings), bad or count, tuple(findings), details=details)


def _choose(patient: Patient) -> tuple[list[Trial], list[str]]:
    trials, untried = [], []
    for part in patient.centre.partitions:
        if part.name in patient.bad_partitions:
            untried.append(f"partition '{part.name}' (see above)")
            continue
        for code in program_blocks(patient):
            if not code.runs_in(part.name) or (code.name != NODE_PROGRAM and code.smoke_test is None):
                continue
            if code.name in patient.bad_codes:
                untried.append(f"code '{code.name}' (see above)")
                continue
            trials.append(Trial(part, code, ""))
    return trials, list(dict.fromkeys(untried))


def _submit(patient: Patient, base: str, trials: Sequence[Trial], findings: list[Finding]) -> list[Trial]:
    """Send the folders of all jobs in one copy, submit each; return those that were taken."""
    remote, kind = patient.way, patient.centre.scheduler.type
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / "jobs"
        here.mkdir()
        for trial in trials:
            trial.folder = f"{base}/{trial.name}"
            write_folder(patient.centre, trial, here / trial.name)
        remote.run(f"mkdir -p {shlex.quote(patient.work_dir)}")  # AiiDA would make it with the first job
        remote.put(here, base)
    taken = []
    for trial in trials:
        done = remote.run(f"cd {shlex.quote(trial.folder)} && {_SUBMIT[kind]}", timeout=120)
        match = re.search(r"^\s*(\d+)", done.stdout, re.MULTILINE)
        if done.ok and match is not None:
            trial.job_id = match.group(1)
            taken.append(trial)
        else:
            said = " ".join(
                line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()
            )
            findings.append(_refusal(trial, said))
    return taken


def _refusal(trial: Trial, said: str) -> Finding:
    fault, key = "submit-refused", "the profile"
    for pattern, name, where in _REFUSALS:
        if re.search(pattern, said, re.IGNORECASE):
            fault, key = name, where
            break
    return Finding(fault, f"{trial.label}: the scheduler refuses the job: {said[:300]}", f"mend {key}")


def _wait(patient: Patient, trials: Sequence[Trial]) -> None:
    """Wait until every job has ended, as the login node sees it, or the time is over."""
    remote, kind = patient.way, patient.centre.scheduler.type
    end = time.monotonic() + patient.smoke_timeout_s
    pause = min(5.0, max(0.5, patient.centre.poll_interval_s))
    looks = "; ".join(
        f'printf "%s=%s\\n" {number} "$(cat {shlex.quote(trial.folder)}/exit_status 2>/dev/null)"'
        for number, trial in enumerate(trials)
    )
    while True:
        # The queue first: a job that leaves it in between is then seen with its exit status.
        done = remote.run(f"{_QUEUE[kind]} && echo @files@ && {{ {looks}; }}")
        queue, _, files = done.stdout.partition("@files@")
        if done.ok:
            _note(trials, queue, files)
        open_ = [trial for trial in trials if trial.status is None and not _lost(trial)]
        if not open_ or time.monotonic() > end:
            return
        time.sleep(pause)


def _note(trials: Sequence[Trial], queue: str, files: str) -> None:
    states = {}
    for line in queue.splitlines():
        job, _, rest = line.strip().partition("|")
        states[job] = rest.split("|")
    statuses = dict(line.split("=", 1) for line in files.splitlines() if "=" in line)
    for number, trial in enumerate(trials):
        status = statuses.get(str(number), "").strip()
        if status.lstrip("-").isdigit():
            trial.status = int(status)
            continue
        if trial.job_id in states:
            trial.state, trial.reason = (*states[trial.job_id], "")[:2]
            trial.gone_since = None
        elif trial.gone_since is None:
            trial.gone_since = time.monotonic()


def _lost(trial: Trial) -> bool:
    if "E" in trial.state and trial.state.islower() is False and trial.state.endswith("qw"):
        return True  # Grid Engine keeps a job in error in its queue for ever
    return trial.gone_since is not None and time.monotonic() - trial.gone_since > _GRACE_S


def _judge(patient: Patient, trial: Trial) -> list[Finding]:
    remote = patient.way
    if trial.status is not None:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "job"
            remote.get(trial.folder, copy)
            return check_result(trial, copy)
    if _lost(trial):
        shown = remote.run(f"tail -n 3 {shlex.quote(trial.folder)}/job.out 2>/dev/null").stdout.strip()
        said = shown.splitlines()[-1] if shown else "it left no output"
        if trial.state.startswith("E"):
            told = remote.run(f"qstat -j {trial.job_id} | grep -m 1 '^error reason'").stdout.strip()
            said = told.split(":", 2)[-1].strip() or said
        return [
            Finding(
                "job-lost",
                f"{trial.label}: the job {trial.job_id} ended without a trace in {trial.folder}: {said[:200]}",
                "do compute nodes see storage.work_dir? does the node have the login's user and shell?",
            )
        ]
    if trial.state.upper().startswith(("PEND", "QW", "HQW", "CONF")):
        return [
            Finding(
                "job-waits",
                f"{trial.label}: the job {trial.job_id} still waits after {patient.smoke_timeout_s:.0f} s"
                + (f" ({trial.reason})" if trial.reason else ""),
                "the partition is busy, or can never start it; try again later, or with --smoke-timeout",
                "warn",
            )
        ]
    return [
        Finding(
            "job-slow",
            f"{trial.label}: the job {trial.job_id} has not ended after {patient.smoke_timeout_s:.0f} s",
            "try again with --smoke-timeout; a slow file system is the usual cause",
            "warn",
        )
    ]


def _tidy(patient: Patient, base: str, trials: Sequence[Trial], *, keep: bool) -> None:
    """Cancel what still runs, and remove the folder unless somebody has to look into it."""
    open_ = [trial.job_id for trial in trials if trial.status is None and trial.job_id]
    commands = []
    if open_:
        commands.append(f"{_CANCEL[patient.centre.scheduler.type]} {' '.join(open_)} >/dev/null 2>&1")
    if not keep:
        commands.append(f"rm -rf {shlex.quote(base)}")
    try:
        if commands:
            patient.way.run("; ".join(commands))
    except LoginError:
        return  # the connection is gone, and was told of
