"""Submitting a job once, and taking it back for good: shell code that runs in the job's folder at the centre.

A connection may break when the scheduler has a job and AiiDA does not know its number; AiiDA then submits again, or
forgets a job that runs. So the folder itself remembers: a submission holds a lock there, leaves a mark before it asks
the scheduler and the scheduler's answer after it. A second one gives the same answer, and where the answer is missing
it looks for the job in the queue by its name, which is made from the folder's.

A job that is to go elsewhere is withdrawn: a mark in its folder refuses every later submission and lets a job that
starts all the same end at once (:mod:`matcompute.node.runner`); what is in the queue is cancelled.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = [
    "END_TREE",
    "PREFIX",
    "WITHDRAWN",
    "Withdrawal",
    "job_name",
    "read_withdrawal",
    "submit_once",
    "withdraw",
]

#: First letters of the names of our jobs.
PREFIX = "mc-"
#: Mark in the folder of a job that was taken back; the node program looks for it.
WITHDRAWN = "withdrawn"
_LOCK, _BEGUN, _ANSWER = ".submit.lock", ".submit.begun", ".submit.answer"
#: Digits of the UUID in a job's name. PBS may cut names after 15 characters.
_DIGITS = 12
#: Seconds to wait for another submission in the same folder, for the end of a cancelled job, for what it leaves.
_LOCK_S, _END_S = 60, 30


@dataclass(frozen=True)
class _Words:
    """How a scheduler is spoken to.

    Attributes
    ----------
    named
        Option that names a job.
    find, active
        Print the numbers of the user's jobs named ``$name``, one a line: of all that are known, of those that have not
        ended. They fail if the scheduler does not answer.
    answer
        Prints what the submission of job ``$id`` would have printed.
    cancel
        Cancels job ``$id``.
    """

    named: str
    find: str
    active: str
    answer: str
    cancel: str


# Ended jobs: Slurm lists them for some minutes, Grid Engine has them in its accounting, if that may be read.
_SGE_ACTIVE = (
    'qstat >/dev/null || exit 1; qstat -j "$name" 2>/dev/null | awk \'$1 == "job_number:" {print $2}\''
)
_WORDS = {
    "slurm": _Words(
        named="--job-name=",
        find='squeue -h -t all -u "$(id -un)" -n "$name" -o %i',
        active='squeue -h -u "$(id -un)" -n "$name" -o %i',
        answer='echo "Submitted batch job $id"',
        cancel='scancel "$id"',
    ),
    "sge": _Words(
        named="-N ",
        find=f'{_SGE_ACTIVE}; qacct -j "$name" 2>/dev/null | awk \'$1 == "jobnumber" {{print $2}}\'',
        active=_SGE_ACTIVE,
        answer='echo "$id"',
        cancel='qdel "$id"',
    ),
    "pbs": _Words(
        named="-N ",
        find='qselect -x -u "$(id -un)" -N "$name" 2>/dev/null || qselect -u "$(id -un)" -N "$name"',
        active='qselect -u "$(id -un)" -N "$name"',
        answer='echo "$id"',
        cancel='qdel "$id"',
    ),
    "lsf": _Words(
        named="-J ",
        # No such job is an error of bjobs; while LSF is down it waits.
        find='bjobs -a -noheader -o jobid -J "$name" 2>/dev/null || true',
        active='bjobs -noheader -o jobid -J "$name" 2>/dev/null || true',
        answer='echo "Job <$id> is submitted to default queue."',
        cancel='bkill "$id"',
    ),
    # Without a scheduler a job is a process: its number is in the answer or nowhere, and may be another one's by now.
    "direct": _Words(
        named="",
        find="true",
        active="true",
        answer='echo "$id"',
        cancel='[ "$(readlink "/proc/$id/cwd")" = "$(pwd -P)" ] && end_tree "$id"',
    ),
}
#: Shell function that ends a process with all that it has started.
END_TREE = 'end_tree() { for c in $(ps -o pid= --ppid "$1"); do end_tree "$c"; done; kill "$1" 2>/dev/null || true; }'
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def job_name(folder: str | PurePosixPath) -> str | None:
    """Return the name of the job that works in a folder of AiiDA's, ``…/c6/19/2bef-…``; None for other folders."""
    uuid = "".join(PurePosixPath(folder).parts[-3:])
    return f"{PREFIX}{uuid.replace('-', '')[:_DIGITS]}" if _UUID.fullmatch(uuid) else None


def submit_once(scheduler: str, command: str, name: str | None) -> str:
    """Return shell code that submits the job of the present folder, however often it runs.

    Parameters
    ----------
    scheduler
        Its type: ``slurm``, ``sge``, ``pbs``, ``lsf`` or ``direct``.
    command
        AiiDA's, such as ``sbatch _aiidasubmit.sh``; is given the name.
    name
        From :func:`job_name`; None leaves the scheduler's own and cannot be found again in the queue.
    """
    words = _WORDS[scheduler]
    if name is not None and words.named:
        program, rest = command.split(" ", 1)
        command = f"{program} {words.named}{name} {rest}"
    find = words.find if name is not None else "true"
    return f"""\
trap '' HUP
(
name={shlex.quote(name or "")}
if command -v flock >/dev/null; then
  flock -w {_LOCK_S} 9 || {{ echo 'another submission of this job is under way' >&2; exit 75; }}
fi
if [ -e {WITHDRAWN} ]; then echo 'this job was withdrawn' >&2; exit 76; fi
if [ ! -s {_ANSWER} ] && [ -e {_BEGUN} ]; then
  found=$({find}) || {{ echo 'the scheduler does not say whether it has this job already' >&2; exit 77; }}
  id=$(printf '%s\\n' "$found" | head -n 1)
  if [ -n "$id" ]; then {words.answer} > {_ANSWER}; fi
fi
if [ ! -s {_ANSWER} ]; then
  : > {_BEGUN}
  {{
    {command}
  }} > {_ANSWER}.part 9>&-
  code=$?
  [ $code = 0 ] || exit $code
  {_wait_for_answer(scheduler)}mv {_ANSWER}.part {_ANSWER}
fi
cat {_ANSWER}
) 9>>{_LOCK}"""


def _wait_for_answer(scheduler: str) -> str:
    # AiiDA's command without a scheduler works in the background.
    wait = f"for n in 1 2 3 4 5 6 7 8 9 10; do [ -s {_ANSWER}.part ] && break; sleep 0.1; done\n  "
    return wait if scheduler == "direct" else ""


@dataclass(frozen=True)
class Withdrawal:
    """What became of a job that was taken back.

    Attributes
    ----------
    gone
        Nothing of it is in the queue or running any more, and nothing will be.
    begun
        The node program had begun: its checkpoint may hold finished structures.
    job_ids
        The scheduler's numbers of the job; more than one if it was submitted more than once.
    """

    gone: bool
    begun: bool
    job_ids: tuple[str, ...] = ()


def withdraw(scheduler: str, folder: str) -> str:
    """Return shell code that takes a job back for good; :func:`read_withdrawal` reads what it prints.

    Parameters
    ----------
    scheduler
        Its type.
    folder
        Of the job; one that is not there has no job and cannot get one.
    """
    words, name = _WORDS[scheduler], job_name(folder) or ""
    find, active = (words.find, words.active) if name else ("true", "true")
    return f"""\
cd {shlex.quote(folder)} 2>/dev/null || {{ echo 'withdrawn gone fresh'; exit 0; }}
{END_TREE}
(
name={shlex.quote(name)}
if command -v flock >/dev/null; then flock -w {_LOCK_S} 9 || exit 75; fi
: > {WITHDRAWN} || exit 73
first=$(sed -n 's/^[^0-9]*\\([0-9][0-9A-Za-z_.-]*\\).*/\\1/p' {_ANSWER} 2>/dev/null | head -n 1)
found=$({find}) || exit 77
for id in $first $found; do {words.cancel} >/dev/null 2>&1; done
n=0
while [ -n "$({active})" ] && [ $n -lt {_END_S * 2} ]; do n=$((n + 1)); sleep 0.5; done
gone=gone; [ -z "$({active})" ] || gone=there
if [ -e job.lock ] && command -v flock >/dev/null; then flock -w {_END_S} job.lock true || gone=there; fi
begun=fresh; if [ -e job.lock ] && [ -d checkpoint ]; then begun=begun; fi
echo "withdrawn $gone $begun" $(printf '%s\n' $first $found | sort -u)
) 9>>{_LOCK}"""


def read_withdrawal(text: str) -> Withdrawal | None:
    """Return what :func:`withdraw` printed; None if it came to no end."""
    match = re.search(r"^withdrawn (gone|there) (fresh|begun)(.*)$", text, flags=re.MULTILINE)
    if match is None:
        return None
    return Withdrawal(match[1] == "gone", match[2] == "begun", tuple(match[3].split()))
