"""``Remote``: commands and files on a login node, by a local process or by OpenSSH."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from matcompute.centres.answers import LoginError, Result, login_hint
from matcompute.centres.errors import CentreError
from matcompute.centres.ssh import (
    alias,
    classify,
    config_text,
    control_dir,
    control_path,
    host_block,
)

if TYPE_CHECKING:
    from types import TracebackType

    from matcompute.centres.model import Centre

__all__ = ["LoginError", "Remote", "Result"]

#: Printed before a command's own output: what stands before it comes from the shell's start files.
_MARK = "@matcompute@"
_SSH_FAILED = 255


class Remote:
    """The way to a centre's login node; a context manager.

    Connections are multiplexed: many ``Remote`` objects, in several processes, share one to each login host, and it
    stays open for a while after the last of them.

    Parameters
    ----------
    centre
        The profile; its login block decides.
    shared
        Use the shared connection. Without, every command logs in anew, as the doctor's test of the login does.
    avoid
        A login host that is tried last: it has just failed.
    """

    def __init__(self, centre: Centre, *, shared: bool = True, avoid: str | None = None) -> None:
        if centre.login.transport == "firecrest":
            raise CentreError(
                f"centre '{centre.id}': transport 'firecrest' cannot be used by this release",
                hint="use transport ssh",
            )
        if centre.unfilled:
            raise CentreError(
                f"centre '{centre.id}': no value for {', '.join(centre.unfilled)}",
                hint=f"give it: --set {centre.unfilled[0]}=…",
            )
        self.centre = centre
        self.shared, self.avoid = shared, avoid
        #: The login host in use; None for this machine, or before :meth:`open`.
        self.host: str | None = None
        #: The one that was used last.
        self.last_host: str | None = None
        self._config: Path | None = None

    # ------------------------------------------------------------------ opening
    def __enter__(self) -> Remote:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_local(self) -> bool:
        """Whether commands run on this machine."""
        return self.centre.login.transport == "local"

    def open(self) -> Remote:
        """Log in at the first host that answers; one to which a shared connection is open comes first.

        Raises
        ------
        LoginError
            If none lets us in.
        """
        if self.is_local or self.host is not None:
            return self
        failed: list[LoginError] = []
        for host in self._order():
            try:
                self._login(host)
            except LoginError as error:
                failed.append(error)
                if error.kind not in ("unreachable", "timeout", "closed"):
                    break
            else:
                self.host = self.last_host = host
                return self
        if len(failed) == 1:
            raise failed[0]
        raise LoginError(
            "; ".join(error.message for error in failed), failed[-1].hint, kind=failed[-1].kind
        ) from failed[-1]

    def _order(self) -> list[str]:
        hosts = list(self.centre.login.hosts)
        if len(hosts) > 1:
            hosts.sort(key=lambda host: (host == self.avoid, not (self.shared and self.alive(host))))
        return hosts

    def close(self) -> None:
        """Forget the host; the shared connection stays for others and closes itself when idle."""
        self.host = None

    def drop(self) -> None:
        """End the shared connection to every login host, or remove what a dead one has left."""
        if self.is_local:
            return
        for host in self.centre.login.hosts:
            socket = control_path(self.centre.login, host)
            if socket.exists():
                self._ssh(host, ["-O", "exit"], timeout=10)
                socket.unlink(missing_ok=True)
        self.host = None

    def alive(self, host: str) -> bool:
        """Whether a shared connection to a host is open."""
        socket = control_path(self.centre.login, host)
        return socket.exists() and self._ssh(host, ["-O", "check"], timeout=10).code == 0

    def _login(self, host: str) -> None:
        login = self.centre.login
        if (
            login.auth.key_file
            and not login.auth.script
            and not Path(login.auth.key_file).expanduser().is_file()
        ):
            raise LoginError(
                f"login.auth.key_file: {login.auth.key_file} is missing",
                hint="name the private key's file; it lies on this machine",
                kind="key-file",
            )
        with self._lock(host):
            if self.shared and self.alive(host):
                return
            if login.auth.script:
                self._run_script(login.auth.script, host)
            if self.shared:
                # An old socket of a dead connection would make ssh log in without sharing.
                control_path(login, host).unlink(missing_ok=True)
                done = self._ssh(host, ["-f", "-N"], timeout=login.connect_timeout_s + 60, files=True)
            else:
                done = self._ssh(host, [], ["true"], timeout=login.connect_timeout_s + 60)
        if done.code != 0:
            raise self._error(host, done)

    @contextmanager
    def _lock(self, host: str) -> Iterator[None]:
        """One process at a time opens the connection; the others then find it."""
        path = control_path(self.centre.login, host).with_suffix(".lock")
        with path.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _run_script(self, script: str, host: str) -> None:
        path = Path(script).expanduser()
        if not os.access(path, os.X_OK):
            raise LoginError(
                f"login.auth.script: {path} is missing or not executable",
                hint=f"put it there, and: chmod +x {path}",
                kind="script",
            )
        env = {
            **os.environ,
            "MATCOMPUTE_CENTRE": self.centre.id,
            "MATCOMPUTE_HOST": host,
            "MATCOMPUTE_USER": self.centre.login.user or "",
        }
        try:
            done = subprocess.run(
                [str(path)], env=env, capture_output=True, text=True, timeout=300, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LoginError(f"the login script {path} failed: {error}", kind="script") from error
        if done.returncode != 0:
            said = Result(done.returncode, done.stdout, done.stderr).message
            raise LoginError(
                f"the login script {path} ended with {done.returncode}: {said}",
                hint="run it by hand and mend what it says",
                kind="script",
            )

    # ------------------------------------------------------------------ commands
    def run(
        self,
        command: str,
        timeout: float = 60.0,
        *,
        input: str | None = None,
        login_shell: bool | None = None,
    ) -> Result:
        """Run a command in bash, as AiiDA would.

        Parameters
        ----------
        command
            Shell code.
        timeout
            In s.
        input
            What it reads.
        login_shell
            In a login shell; by default as the profile says.

        Raises
        ------
        LoginError
            If the connection fails or the time is over. The command's own failure is in the result.
        """
        shell = self.centre.login.use_login_shell if login_shell is None else login_shell
        wrapped = [
            "bash",
            *(["-l"] if shell else []),
            "-c",
            f"printf %s {_MARK}; printf %s {_MARK} >&2\n{command}",
        ]
        if self.is_local:
            result = _execute(wrapped, timeout, input)
        else:
            if self.host is None:
                self.open()
            assert self.host is not None
            result = self._ssh(self.host, [], [shlex.join(wrapped)], timeout=timeout, input=input)
            began = _MARK in result.stdout
            if result.code == _SSH_FAILED and not began:
                host, self.host = self.host, None
                raise self._error(host, result)
        if result.code == _TIMED_OUT:
            raise LoginError(f"{self.where}: no answer after {timeout:.0f} s: {command}", kind="timeout")
        return _without_chatter(result)

    @property
    def where(self) -> str:
        """The place, for messages."""
        if self.is_local:
            return "this machine"
        login = self.centre.login
        user = f"{login.user}@" if login.user else ""
        port = f":{login.port}" if login.port != 22 else ""
        return f"{user}{self.host or login.hosts[0]}{port}"

    def put(self, local: Path, remote: str, timeout: float = 300.0) -> None:
        """Copy a file or a folder there.

        Raises
        ------
        LoginError
            If it cannot be copied.
        """
        if self.is_local:
            _copy(Path(local), Path(remote))
            return
        self._copy(str(local), remote, to_remote=True, timeout=timeout)

    def get(self, remote: str, local: Path, timeout: float = 300.0) -> None:
        """Copy a file or a folder from there.

        Raises
        ------
        LoginError
            If it cannot be copied.
        """
        if self.is_local:
            _copy(Path(remote), Path(local))
            return
        self._copy(str(local), remote, to_remote=False, timeout=timeout)

    def _copy(self, local: str, remote: str, *, to_remote: bool, timeout: float) -> None:
        if self.host is None:
            self.open()
        assert self.host is not None
        there = f"{self._alias}:{remote}"
        pair = [local, there] if to_remote else [there, local]
        command = ["scp", "-F", str(self._conf(self.host)), "-q", "-p", "-r", *pair]
        done = _execute(command, timeout, None)
        if done.code != 0:
            what = f"{local} to {there}" if to_remote else f"{there} to {local}"
            raise LoginError(
                f"{self.where}: cannot copy {what}: {done.message}", kind=classify(done.stderr) or "other"
            )

    # ------------------------------------------------------------------ ssh
    @property
    def _alias(self) -> str:
        return alias(self.centre.id)

    def _conf(self, host: str) -> Path:
        """Write the configuration of this centre, beside the socket of its connection."""
        text = config_text([host_block(self._alias, self.centre.login, host, multiplex=self.shared)])
        suffix = f".{self.centre.id}{'' if self.shared else '.once'}.conf"
        path = control_path(self.centre.login, host).with_suffix(suffix)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with tempfile.NamedTemporaryFile(
                "w", dir=control_dir(), delete=False, encoding="utf-8"
            ) as handle:
                handle.write(text)
            Path(handle.name).replace(path)
        return path

    def _ssh(
        self,
        host: str,
        flags: list[str],
        command: list[str] | None = None,
        *,
        timeout: float,
        input: str | None = None,
        files: bool = False,
    ) -> Result:
        argv = [
            "ssh",
            "-F",
            str(self._conf(host)),
            *flags,
            self._alias,
            *(["--", *command] if command else []),
        ]
        return _execute(argv, timeout, input, files=files)

    def _error(self, host: str, result: Result) -> LoginError:
        kind = classify(result.stderr) or ("timeout" if result.code == _TIMED_OUT else "other")
        login = self.centre.login
        where = f"{login.user + '@' if login.user else ''}{host}:{login.port}"
        said = result.stderr.strip().splitlines()
        text = said[-1].strip() if said else f"ssh ended with {result.code}"
        return LoginError(f"{where}: {text}", login_hint(kind, self.centre, host), kind=kind)


_TIMED_OUT = -1000


def _execute(argv: list[str], timeout: float, input: str | None, *, files: bool = False) -> Result:
    """Run a local process; with ``files`` its output goes through a file, which a child may keep open."""
    feed: Mapping[str, object] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
    options = {"text": True, "errors": "replace", "timeout": timeout, "check": False, **feed}
    try:
        if not files:
            done = subprocess.run(argv, capture_output=True, **options)  # type: ignore[call-overload]
            return Result(done.returncode, done.stdout, done.stderr)
        with tempfile.TemporaryFile("w+", errors="replace") as handle:
            done = subprocess.run(argv, stdout=handle, stderr=handle, **options)  # type: ignore[call-overload]
            handle.seek(0)
            return Result(done.returncode, "", handle.read())
    except subprocess.TimeoutExpired:
        return Result(_TIMED_OUT, "", "timed out")
    except OSError as error:
        raise LoginError(
            f"cannot run {argv[0]}: {error.strerror}", hint=f"install {argv[0]} on this machine"
        ) from error


def _without_chatter(result: Result) -> Result:
    before, mark, stdout = result.stdout.partition(_MARK)
    if not mark:
        return result
    noise, _, stderr = result.stderr.partition(_MARK)
    return Result(result.code, stdout, stderr, before, noise)


def _copy(source: Path, target: Path) -> None:
    try:
        if source.is_dir():
            shutil.copytree(source, target / source.name if target.is_dir() else target)
        else:
            shutil.copy2(source, target)
    except OSError as error:
        raise LoginError(f"cannot copy {source} to {target}: {error.strerror or error}") from error
