"""Step 2: the login. Fresh, as AiiDA's first; then what the shell does, and whether files get through."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from matcompute.centres.doctor.patient import Patient
from matcompute.centres.doctor.report import Finding, Step, worst
from matcompute.centres.remote import LoginError, Remote, Result
from matcompute.centres.ssh import control_path

__all__ = ["examine_login"]

#: What must be on PATH for AiiDA's plugin of a scheduler.
COMMANDS = {
    "direct": ("bash", "ps", "kill"),
    "slurm": ("sbatch", "squeue", "scancel"),
    "sge": ("qsub", "qstat", "qdel"),
    "pbs": ("qsub", "qstat", "qdel"),
    "lsf": ("bsub", "bjobs", "bkill"),
}
_FAULTS = {
    "auth": "wrong-key",
    "host-key": "unknown-host-key",
    "key-file": "bad-key-file",
    "unreachable": "unreachable",
    "timeout": "no-answer",
    "closed": "connection-closed",
    "script": "login-script",
    "other": "login-failed",
}
_MAX_SKEW_S = 60.0


def examine_login(patient: Patient) -> Step:
    """Log in; the patient has a :class:`~matcompute.centres.remote.Remote` afterwards, if that works."""
    centre = patient.centre
    findings: list[Finding] = []
    details: dict[str, Any] = {}
    remote = Remote(centre)
    if not remote.is_local:
        findings += _stale_sockets(remote)
        try:
            details["hosts"] = _fresh_login(remote, findings)
        except LoginError as error:
            findings.append(_refused(error))
            return Step("login", "fail", error.message, tuple(findings))
    try:
        remote.open()
        found = remote.run("id -un; hostname; date +%s")
    except LoginError as error:
        findings.append(_refused(error))
        return Step("login", "fail", error.message, tuple(findings))
    if not found.ok:
        findings.append(
            Finding(
                "no-bash",
                f"{remote.where}: commands do not run in bash: {found.message}",
                "install bash there",
            )
        )
        return Step("login", "fail", findings[-1].message, tuple(findings))
    patient.user, host, there = found.stdout.split()
    details |= {"user": patient.user, "host": host}
    findings += _chatter(remote, found)
    findings += _commands(remote)
    skew = abs(float(there) - time.time())
    details["clock_skew_s"] = round(skew, 1)
    if skew > _MAX_SKEW_S:
        findings.append(
            Finding(
                "clock-skew",
                f"the clock of {remote.where} differs by {skew:.0f} s from this machine's",
                "set the clock of one of them by NTP; times of jobs are compared",
                "warn",
            )
        )
    if not remote.is_local and not any(item.fault == "chatty-shell" for item in findings):
        findings += _files(remote)
    patient.remote = remote
    how = (
        "this machine"
        if remote.is_local
        else f"{patient.user}@{host} in {details['hosts'][remote.host]:.2f} s"
    )
    bad = next((item.message for item in findings if item.state == "fail"), None)
    return Step("login", worst(findings), bad or how, tuple(findings), details=details)


def _refused(error: LoginError) -> Finding:
    return Finding(_FAULTS[error.kind], error.message, error.hint or "")


def _fresh_login(remote: Remote, findings: list[Finding]) -> dict[str, float]:
    """Log in at every host without the shared connection, which would hide a key that is no longer accepted."""
    centre = remote.centre
    if centre.login.auth.method == "mfa-script":
        # Each login may cost a one-time password: the shared connection is what counts.
        begin = time.monotonic()
        remote.open()
        return {str(remote.host): time.monotonic() - begin}
    took: dict[str, float] = {}
    failed: list[LoginError] = []
    for host in centre.login.hosts:
        alone = centre.model_copy(update={"login": centre.login.model_copy(update={"hosts": (host,)})})
        begin = time.monotonic()
        try:
            with Remote(alone, shared=False):
                took[host] = time.monotonic() - begin
        except LoginError as error:
            failed.append(error)
    if not took:
        raise failed[0]
    findings += [Finding(_FAULTS[one.kind], one.message, one.hint or "", "warn") for one in failed]
    return took


def _stale_sockets(remote: Remote) -> list[Finding]:
    """Return sockets that a dead connection has left: ssh would log in without sharing."""
    found = []
    for host in remote.centre.login.hosts:
        socket = control_path(remote.centre.login, host)
        if socket.exists() and not remote.alive(host):

            def repair(path: Path = socket) -> str:
                path.unlink(missing_ok=True)
                return f"removed {path}"

            found.append(
                Finding(
                    "stale-socket",
                    f"{socket} belongs to a connection that is dead",
                    f"rm {socket}",
                    "warn",
                    repair,
                )
            )
    return found


def _chatter(remote: Remote, found: Result) -> list[Finding]:
    """Return what start files print: AiiDA and scp read it as the answers of commands."""
    login = remote.centre.login
    other = remote.run("true", login_shell=not login.use_login_shell)
    findings = []
    if found.chatter:
        files = "~/.bash_profile, ~/.profile or ~/.bashrc" if login.use_login_shell else "~/.bashrc"
        quiet = login.use_login_shell and not other.chatter
        findings.append(
            Finding(
                "chatty-shell",
                f"the login shell at {remote.where} prints {_first(found.chatter)!r} before every command",
                f"print only to terminals: in {files} there, begin with `[[ $- != *i* ]] && return`"
                + ("; or set login.use_login_shell: false" if quiet else ""),
            )
        )
    elif found.noise:
        findings.append(
            Finding(
                "chatty-shell",
                f"the login shell at {remote.where} prints {_first(found.noise)!r} to standard error "
                "before every command",
                "print only to terminals: AiiDA puts it into its log each time",
                "warn",
            )
        )
    elif other.chatter and not login.use_login_shell:
        findings.append(
            Finding(
                "chatty-shell",
                f"a login shell (bash -l) at {remote.where} prints {_first(other.chatter)!r}; it is not in use",
                "leave login.use_login_shell false, or silence ~/.bash_profile there",
                "warn",
            )
        )
    return findings


def _first(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "an empty line")
    return line if len(line) <= 60 else f"{line[:57]}..."


def _commands(remote: Remote) -> list[Finding]:
    """Return what AiiDA's plugin of the scheduler calls and does not find."""
    kind = remote.centre.scheduler.type
    names = COMMANDS[kind]
    script = f"for c in {' '.join(names)}; do command -v $c >/dev/null || echo $c; done"
    missing = remote.run(script).stdout.split()
    if not missing:
        return []
    fix = f"put the commands of {kind} on the PATH of non-interactive shells there (~/.bashrc)"
    shell = remote.centre.login.use_login_shell
    if not shell and not remote.run(script, login_shell=True).stdout.split():
        fix = "set login.use_login_shell: true: a login shell finds them"
    return [Finding("scheduler-missing", f"{remote.where} does not find {', '.join(missing)}", fix)]


def _files(remote: Remote) -> list[Finding]:
    """Send a file there and back, as AiiDA does for every job."""
    content = "matcompute doctor"
    name = f".matcompute-doctor-{time.time_ns()}"
    with tempfile.TemporaryDirectory() as folder:
        here, back = Path(folder) / "here", Path(folder) / "back"
        here.write_text(content)
        try:
            remote.put(here, name, timeout=60)
            remote.get(name, back, timeout=60)
            remote.run(f"rm -f {name}")
        except LoginError as error:
            fix = "free space in the home folder there; else let sshd have its subsystem sftp"
            return [Finding("no-file-transfer", error.message, fix)]
        if back.read_text() != content:
            return [
                Finding("no-file-transfer", f"{remote.where}: a file came back changed", "look at its sshd")
            ]
    return []
