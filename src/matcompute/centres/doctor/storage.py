"""Step 4: the folder of the jobs: there, writable, with space and within its quotas."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from matcompute.centres.doctor.patient import Patient
from matcompute.centres.doctor.report import Finding, Step, worst
from matcompute.centres.remote import LoginError

__all__ = ["examine_storage"]

#: A file of so many MiB is written, so that quotas and full disks are felt.
_TRY_MB = 4
_DU_S = 20
_NEARLY_FULL = 0.8

_LOOK = """\
d={folder}
export LC_ALL=C
if [ ! -d "$d" ]; then
  p="$d"; while [ ! -e "$p" ]; do p=$(dirname "$p"); done
  echo "missing $p"; [ -d "$p" ] && [ -w "$p" ] && echo creatable
  exit 0
fi
echo present
[ -O "$d" ] && echo own
ls -ld "$d" | awk '{{print "mode " $1 " " $3}}'
df -Pk "$d" | awk 'NR==2 {{print "space " $2 " " $4 " " $6}}'
df -Pi "$d" 2>/dev/null | awk 'NR==2 {{print "inodes " $2 " " $4}}'
t="$d/.matcompute-doctor.$$"
if e=$( {{ dd if=/dev/zero of="$t" bs=1048576 count={size} conv=fsync; }} 2>&1 ); then echo written
else echo "error $(printf %s "$e" | grep -v records | head -n 1)"; fi
rm -f "$t"
"""


def examine_storage(patient: Patient) -> Step:
    """Look at the jobs' folder, and write a file in it."""
    folder = patient.work_dir
    if patient.root is None and "{workspace}" in folder:
        return Step("storage", "skip", f"{folder} is only known in a workspace")
    found = _look(patient, folder)
    details: dict[str, Any] = {"work_dir": folder, **found}
    findings = _findings(patient, folder, found)
    if "written" in found and not findings:
        findings += _quotas(patient, folder, details)
    if any(item.state == "fail" for item in findings):
        patient.bad_partitions |= {part.name for part in patient.centre.partitions}
    bad = next((item.message for item in findings if item.state == "fail"), None)
    message = bad or f"{folder}: {details.get('free_gb', 0):.1f} GB free"
    return Step("storage", worst(findings), message, tuple(findings), details=details)


def _look(patient: Patient, folder: str) -> dict[str, Any]:
    done = patient.way.run(_LOOK.format(folder=shlex.quote(folder), size=_TRY_MB), timeout=120)
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        word, _, rest = line.partition(" ")
        if word == "space":
            total, free, mount = rest.split(" ", 2)
            found |= {"size_gb": int(total) * 1024 / 1e9, "free_gb": int(free) * 1024 / 1e9, "mount": mount}
        elif word == "inodes":
            total, free = rest.split()
            if total.isdigit() and free.isdigit() and int(total):
                found |= {"inodes": int(total), "free_inodes": int(free)}
        else:
            found[word] = rest or True
    return found


def _findings(patient: Patient, folder: str, found: dict[str, Any]) -> list[Finding]:
    where, quoted = patient.way.where, shlex.quote(folder)
    if "missing" in found:
        parent = found["missing"]
        if "creatable" in found:
            return [
                Finding(
                    "work-dir-missing",
                    f"{folder} does not exist at {where}",
                    f"mkdir -p {quoted}",
                    "warn",
                    _command(patient, f"mkdir -p {quoted}"),
                )
            ]
        return [
            Finding(
                "work-dir-unwritable",
                f"{folder} does not exist at {where}, and {parent} cannot be written by {patient.user}",
                f"let the centre make it, or set storage.work_dir to a folder of {patient.user}",
            )
        ]
    error = str(found.get("error", ""))
    least = patient.centre.storage.min_free_gb
    full = any(text in error for text in ("No space left", "quota exceeded"))
    if full or found.get("free_inodes") == 0 or found.get("free_gb", least) < least:
        what = (
            error.split(": ")[-1] if error else f"{found.get('free_gb', 0):.2f} GB free, {least:g} GB wanted"
        )
        if found.get("free_inodes") == 0:
            what = "no more files can be made (inodes)"
        return [
            Finding(
                "disk-full",
                f"the disk of {folder} at {where} is full: {what}",
                f"delete what is no longer needed below {quoted}, ask for more quota, or move storage.work_dir",
            )
        ]
    if "written" not in found:
        repair = _command(patient, f"chmod u+rwx {quoted}") if "own" in found else None
        mode = str(found.get("mode", "? ?")).split()
        return [
            Finding(
                "work-dir-unwritable",
                f"{folder} at {where} cannot be written by {patient.user} "
                f"({mode[0]}, of {mode[-1]}): {error.split(': ')[-1] or 'no reason given'}",
                f"chmod u+rwx {quoted}"
                if repair
                else f"let {mode[-1]} give it to {patient.user}, or choose another",
                "fail",
                repair,
            )
        ]
    return []


def _command(patient: Patient, command: str) -> Callable[[], str]:
    def repair() -> str:
        done = patient.way.run(command)
        if not done.ok:
            raise LoginError(f"{command}: {done.message}")
        return f"{patient.way.where}: {command}"

    return repair


def _quotas(patient: Patient, folder: str, details: dict[str, Any]) -> list[Finding]:
    """Compare what is used with the quotas of the profile; counting is given up after some seconds."""
    storage = patient.centre.storage
    findings = []
    for key, quota, option, unit, scale in (
        ("used_gb", storage.quota_gb, "-sk", "GB", 1024 / 1e9),
        ("files", storage.max_files, "-s --inodes", "files", 1.0),
    ):
        if quota is None:
            continue
        done = patient.way.run(
            f"timeout {_DU_S} du {option} {shlex.quote(folder)} 2>/dev/null", timeout=_DU_S + 30
        )
        first = done.stdout.split(maxsplit=1)[:1]
        if not first or not first[0].isdigit() or done.code == 124:
            details[key] = None
            continue
        used = details[key] = int(first[0]) * scale
        if used > _NEARLY_FULL * quota:
            findings.append(
                Finding(
                    "quota-nearly-used" if used <= quota else "disk-full",
                    f"{folder} holds {used:.4g} {unit} of the {quota:g} that the profile gives",
                    f"delete what is no longer needed below {folder}, or raise the quota",
                    "warn" if used <= quota else "fail",
                )
            )
    return findings
