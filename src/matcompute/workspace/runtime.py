"""Files through which the parts of an embedded daemon (supervisor, broker, worker) know of each other."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matcompute.workspace.workspace import Workspace

__all__ = ["DaemonFiles", "code_fingerprint", "die_with_parent", "write_json"]

#: What a worker imports of ours: when one of these changes on disk, a running worker is out of date.
_WATCHED = ("dataset", "gates", "structures", "workspace")


@dataclass(frozen=True)
class DaemonFiles:
    """Paths of the state files of a profile's daemon."""

    supervisor_pid: Path
    supervisor_sockets: Path
    supervisor_log: Path
    worker_log: Path
    broker_dir: Path
    ready: Path
    lock: Path

    @classmethod
    def of(cls, workspace: Workspace) -> DaemonFiles:
        """Return the paths for the profile of a workspace (loads the profile)."""
        profile = workspace.load_profile()
        from aiida.manage.configuration import get_config

        paths = get_config().filepaths(profile)
        daemon = Path(paths["circus"]["pid"]).parent
        return cls(
            supervisor_pid=Path(paths["circus"]["pid"]),
            supervisor_sockets=Path(paths["circus"]["socket"]["file"]),
            supervisor_log=Path(paths["circus"]["log"]),
            worker_log=Path(paths["daemon"]["log"]),
            broker_dir=Path(paths["broker_service"]["dir"]),
            ready=daemon / f"matcompute-{profile.name}.ready",
            lock=daemon / f"matcompute-{profile.name}.lock",
        )

    @property
    def broker_pid(self) -> Path:
        """The broker's pid file."""
        return self.broker_dir / "broker.pid"

    @property
    def broker_sockets(self) -> Path:
        """Names the folder of the broker's sockets."""
        return self.broker_dir / "broker.sockets"

    @property
    def queues(self) -> tuple[Path, Path]:
        """Folders of the process tasks that wait, and that the worker has taken."""
        tasks = self.broker_dir / "storage" / "tasks"
        return tasks / "pending", tasks / "processing"

    def endpoint(self) -> str | None:
        """Return the folder of the current broker's sockets, None when there is none."""
        try:
            return self.broker_sockets.read_text(encoding="utf-8").strip() or None
        except OSError:
            return None

    def clean(self) -> None:
        """Remove what only a running daemon may have."""
        for path in (
            self.supervisor_pid,
            self.supervisor_sockets,
            self.broker_pid,
            self.broker_sockets,
            self.broker_dir / "broker.status",
            self.ready,
        ):
            path.unlink(missing_ok=True)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write JSON atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(data), encoding="utf-8")
    temporary.replace(path)


def code_fingerprint() -> str:
    """Return a hash of the code that a worker runs: interpreter, AiiDA version and our files' size and time."""
    import matcompute

    package = Path(matcompute.__file__).parent
    roots = [package / name for name in _WATCHED]
    for name in ("matcompute_workflows", "matcompute_kernels"):
        spec = sys.modules.get(name) or __import__(name)
        roots.append(Path(str(spec.__file__)).parent)
    digest = hashlib.sha256(f"{sys.executable} {sys.version}".encode())
    from importlib.metadata import version

    digest.update(version("aiida-core").encode())
    files = [*package.glob("*.py"), *(file for root in roots for file in root.rglob("*.py"))]
    for file in sorted(files):
        try:
            info = file.stat()
        except OSError:
            continue
        digest.update(f"{file.name} {info.st_size} {info.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies, so that a killed supervisor leaves no stray children."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes
    import signal

    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)  # 1 = PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died in between
        os.kill(os.getpid(), signal.SIGTERM)
