"""A PostgreSQL server of its own, for a benchmark and for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["missing", "running"]


def _initdb() -> str | None:
    return shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)


def missing() -> str | None:
    """Return why there can be no server here; None if there can."""
    if _initdb() is None:
        return "PostgreSQL is not installed (Debian: postgresql)"
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user 'postgres'"
    return None


@contextmanager
def running(folder: Path | None = None, *, durable: bool = True) -> Iterator[str]:
    """Run a server; yield its SQLAlchemy URL.

    Parameters
    ----------
    folder
        Where its data is kept, and found again; None: in a temporary folder.
    durable
        Whether it waits for the disk.
    """
    import psycopg

    initdb = _initdb()
    assert initdb is not None
    kept, folder = folder is not None, folder or Path(tempfile.mkdtemp(prefix="pg"))
    folder.mkdir(parents=True, exist_ok=True)
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    data = folder / "data"
    if not data.exists():
        # Another collation than SQLite's, as a server's usually is.
        words = [initdb, "-D", data, "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)
    sockets = tempfile.mkdtemp(prefix="pgs")  # a socket's path must be short
    if as_user:
        shutil.chown(sockets, "postgres", "postgres")
    program = Path(initdb).resolve().parent / "postgres"
    words = [program, "-D", data, "-k", sockets, "-c", "listen_addresses="]
    server = subprocess.Popen(
        words if durable else [*words, "-c", "fsync=off"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        **as_user,
    )
    try:
        for _ in range(1200):
            try:
                psycopg.connect(f"host={sockets} user=postgres dbname=postgres").close()
                break
            except psycopg.OperationalError:
                if server.poll() is not None:
                    raise
                time.sleep(0.05)
        yield f"postgresql+psycopg://postgres@/postgres?host={sockets}"
    finally:
        server.send_signal(signal.SIGINT)  # it does not wait for its clients
        server.wait(60)
        shutil.rmtree(sockets, ignore_errors=True)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
