"""Step 7: the accounts: known there, not over, and how much of them is used."""

from __future__ import annotations

import datetime as dt
import shlex
from typing import Any

from matcompute.centres.doctor.patient import Patient
from matcompute.centres.doctor.report import Finding, Step, worst
from matcompute.centres.model import ProjectBlock
from matcompute.errors import did_you_mean

__all__ = ["examine_account"]

_WARN_AT = 0.8


def examine_account(patient: Patient) -> Step:
    """Look at every project of the profile."""
    projects = patient.centre.projects
    live = patient.live
    findings: list[Finding] = []
    details: dict[str, Any] = {}
    if live is not None and live.accounts is not None and not projects and live.scheduler == "slurm":
        if not live.accounts:
            findings.append(
                Finding(
                    "wrong-account",
                    f"{patient.user} has no account at {patient.centre.id}: its jobs are refused",
                    "ask the centre for one",
                )
            )
        return Step(
            "account",
            worst(findings),
            findings[0].message
            if findings
            else f"jobs are charged to the default of {', '.join(live.accounts)}",
            tuple(findings),
            details={"accounts": list(live.accounts)},
        )
    if not projects:
        return Step("account", "skip", "the profile has no projects, the scheduler keeps no accounts")
    for index, project in enumerate(projects):
        findings += _project(patient, index, project, details)
    bad = next((item.message for item in findings if item.state == "fail"), None)
    return Step("account", worst(findings), bad or _told(details), tuple(findings), details=details)


def _told(details: dict[str, Any]) -> str:
    parts = []
    for account, info in details.items():
        used, quota = info.get("used_core_h"), info.get("quota_core_h")
        if used is None:
            parts.append(f"{account}: use unknown")
        else:
            parts.append(f"{account}: {used:.4g} core-hours used" + (f" of {quota:g}" if quota else ""))
    return "; ".join(parts)


def _project(patient: Patient, index: int, project: ProjectBlock, details: dict[str, Any]) -> list[Finding]:
    where, account, live = f"projects[{index}]", project.account, patient.live
    info: dict[str, Any] = {"quota_core_h": project.quota_core_h}
    details[account] = info
    if live is not None and live.accounts is not None and account not in live.accounts:
        return [
            Finding(
                "wrong-account",
                f"{where}: {patient.user} may not charge account '{account}' at {patient.centre.id}"
                f"{did_you_mean(account, live.accounts)}",
                f"write one of these into {where}.account: {', '.join(live.accounts) or 'none is open to you'}",
            )
        ]
    findings = []
    if project.until is not None and project.until < dt.date.today():
        findings.append(
            Finding(
                "project-over",
                f"{where}: project '{account}' ended on {project.until}",
                f"take it out, or set {where}.until if it was prolonged",
            )
        )
    used = info["used_core_h"] = _used(patient, account)
    quota = project.quota_core_h
    if used is not None and quota is not None and used >= _WARN_AT * quota:
        over = used >= quota
        findings.append(
            Finding(
                "quota-used",
                f"{where}: {used:.4g} of {quota:g} core-hours of '{account}' are used",
                f"ask for more, and set {where}.quota_core_h",
                "fail" if over else "warn",
            )
        )
    return findings


def _used(patient: Patient, account: str) -> float | None:
    """Return the core-hours that an account has used, by the scheduler's books; None if it keeps none."""
    kind, name = patient.centre.scheduler.type, shlex.quote(account)
    if kind == "slurm":
        done = patient.way.run(
            "sreport -n -P -t Hours cluster AccountUtilizationByUser "
            f"accounts={name} start=2000-01-01 end=now format=Login,Used",
            timeout=120,
        )
        for line in done.stdout.splitlines() if done.ok else ():
            login, _, used = line.partition("|")
            if not login and used.strip().replace(".", "").isdigit():  # the line of the whole account
                return float(used)
        return 0.0 if done.ok else None
    if kind == "sge":
        done = patient.way.run(f"LC_ALL=C qacct -P {name}", timeout=120)
        for line in done.stdout.splitlines() if done.ok else ():
            words = line.split()
            if words[:1] == [account] and len(words) > 4:
                return float(words[4]) / 3600  # the column CPU, in s
    return None
