"""First process of a container (see ``container.py``): makes the namespaces, then waits for SSH connections.

Started as ``python -I -S _init.py SPEC`` with nothing but the standard library: it is up in a few milliseconds and
sleeps in ``select`` for the rest of its life.

Two processes. The *keeper* stays in the machine's namespaces and dies with the test run that started it (also by
``kill -9``: the kernel sends it a signal). Its child is process 1 of a PID namespace and dies with the keeper; when
process 1 dies, the kernel kills every process of its namespace, and with the last of them the private mounts and the
private network are gone. Nothing has to be cleaned up by code that might not run.

The SSH ports are opened by the keeper's side, before the child leaves the machine's network: a socket belongs to the
network in which it was made. So the container is reached at 127.0.0.1 and 127.0.0.2, its two login hosts, although its
own network is a loopback that nobody else sees, and no address of the machine has to be configured. Each connection
gets an ``sshd -i``.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP, IFF_RUNNING = 0x8914, 0x8916, 0x1, 0x40
#: Second address of ``lo``: the resolver refuses to serve a machine that has 127.0.0.1 only (AI_ADDRCONFIG).
ADDRESS = "10.77.0.1"


def _call(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0) -> None:
    """``mount(2)``."""
    encoded = (source.encode(), target.encode(), kind.encode() if kind else None)
    _call("mount", *encoded, ctypes.c_ulong(flags), None)


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends, whatever ends it."""
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def loopback_up() -> None:
    """Bring up ``lo`` of this network namespace, with :data:`ADDRESS` on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(ADDRESS))
        fcntl.ioctl(sock, SIOCSIFADDR, struct.pack("16s16s", b"lo:1", address))


def build_filesystem(root: str, hidden: list[str], shown: list[str]) -> None:
    """Put private folders in the place of some of the machine's, and show others read-only where they are.

    Parameters
    ----------
    root
        Folder that holds the private folders: ``root/home`` is put over ``/home``.
    hidden
        The folders that are replaced.
    shown
        Folders that stay visible at their path even when a folder above them is replaced.
    """
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    keep = [(path, os.open(path, os.O_PATH)) for path in shown]
    own = [(path, os.open(root + path, os.O_PATH)) for path in hidden]
    for path, handle in own:
        mount(f"/proc/self/fd/{handle}", path, flags=MS_BIND | MS_REC)
    for path, handle in keep:
        Path(path).mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{handle}", path, flags=MS_BIND | MS_REC)
        mount("none", path, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    for _, handle in keep + own:
        os.close(handle)
    mount("tmpfs", "/dev/shm", "tmpfs")
    mount("proc", "/proc", "proc")


def open_ports(hosts: list[str]) -> list[socket.socket]:
    """Listen on one free port at several addresses of the machine's loopback."""
    while True:
        with socket.socket() as probe:
            probe.bind((hosts[0], 0))
            port = probe.getsockname()[1]
        listeners = [socket.socket() for _ in hosts]
        try:
            for listener, host in zip(listeners, hosts):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # By its number: a port that the kernel chose is given away while the door is closed.
                listener.bind((host, port))
                listener.listen(64)
        except OSError:
            for listener in listeners:
                listener.close()
            continue
        return listeners


class Door:
    """One login host: accepts SSH connections while it is open; closed it refuses them and keeps its port."""

    def __init__(self, listener: socket.socket, command: list[str]) -> None:
        self.listener, self.command, self.is_open = listener, command, True
        self.children: set[int] = set()

    def close(self) -> None:
        """Refuse connections, cut those that are there."""
        if self.is_open:
            self.is_open = False
            self.listener.shutdown(socket.SHUT_RD)  # no longer listening, still bound: "connection refused"
        for pid in _descendants(self.children):
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() == "sshd":
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                continue

    def open(self) -> None:
        """Accept connections again."""
        if not self.is_open:
            self.listener.listen(64)
            self.is_open = True

    def accept(self) -> None:
        """Give a connection to an sshd of its own."""
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        pid = os.fork()
        if pid == 0:
            for end in (0, 1, 2):
                os.dup2(connection.fileno(), end)
            os.setsid()
            for number in (signal.SIGCHLD, *SWITCHES):
                signal.signal(number, signal.SIG_DFL)
            os.execv(self.command[0], self.command)
        self.children.add(pid)
        connection.close()


#: Signals that close and open the first login host, and the second one.
SWITCHES = tuple(range(signal.SIGRTMIN, signal.SIGRTMIN + 4))


def _descendants(roots: set[int]) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = set(roots) & set(parents)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


class House:
    """Serves the doors, and reaps whatever the container's processes leave behind."""

    def __init__(self, doors: list[Door]) -> None:
        self.doors = doors
        self.wake, self._wake_end = os.pipe()
        for end in (self.wake, self._wake_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        actions = [action for door in doors for action in (door.close, door.open)]
        for number, action in zip(SWITCHES, actions):
            signal.signal(number, lambda *_, action=action: action())

    def run(self) -> None:
        """Serve for ever."""
        while True:
            is_open = [door for door in self.doors if door.is_open]
            ready, _, _ = select.select([self.wake, *(door.listener for door in is_open)], [], [])
            if self.wake in ready:
                self._reap()
            for door in is_open:
                if door.listener in ready and door.is_open:
                    door.accept()

    def _reap(self) -> None:
        try:
            while os.read(self.wake, 4096):
                pass
        except BlockingIOError:
            pass
        try:
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                for door in self.doors:
                    door.children.discard(pid)
        except ChildProcessError:
            pass


def main() -> None:
    """Read the specification, make the container, say where it is, serve."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    die_with_parent(spec["owner"])
    os.umask(0o022)
    listeners = open_ports(spec["hosts"])
    _call("unshare", CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
    keeper = os.getpid()
    ready, done = os.pipe()
    child = os.fork()
    if child:
        os.close(done)
        if os.read(ready, 1) == b"r":
            print(json.dumps({"pid": child, "port": listeners[0].getsockname()[1]}), flush=True)
            for listener in listeners:
                listener.close()
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    if not Path(f"/proc/{keeper}").exists():
        os._exit(1)
    os.close(ready)
    os.setsid()
    socket.sethostname(spec["hostname"])
    loopback_up()
    build_filesystem(spec["root"], spec["hidden"], spec["shown"])
    os.chdir("/")
    house = House([Door(listener, spec["sshd"]) for listener in listeners])
    os.write(done, b"r")
    os.close(done)
    os.closerange(0, 3)
    os.open("/dev/null", os.O_RDWR)
    os.dup2(0, 1)
    os.dup2(0, 2)
    house.run()


if __name__ == "__main__":
    main()
