"""The supervisor of an embedded daemon: ``python -m … start-circus ROOT``.

AiiDA's own supervisor (circus) with the same name, sockets and pid file, so that ``verdi daemon status`` and
``stop`` work on it. It differs in what it supervises: our broker and worker entry points, and no statistics
process (which costs memory and wakes twice a second).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def _detach() -> None:
    """Leave the caller: own session, no terminal, no zombie."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)


def main() -> None:
    """Detach, then supervise one broker and one worker until told to quit."""
    _detach()
    from circus import get_arbiter, logger
    from circus.pidfile import Pidfile
    from circus.util import configure_logger

    from matcompute.workspace.runtime import DaemonFiles
    from matcompute.workspace.workspace import Workspace

    workspace = Workspace(sys.argv[-1])
    files = DaemonFiles.of(workspace)
    from aiida.manage import get_manager

    client = get_manager().get_daemon_client()
    files.broker_dir.mkdir(parents=True, exist_ok=True)
    env = workspace.environment()

    def watcher(name: str, module: str, arguments: list[str], log: Path) -> dict[str, object]:
        stream = {"class": "FileStream", "filename": str(log), "time_format": "%Y-%m-%d %H:%M:%S"}
        return {
            "name": name,
            "cmd": sys.executable,
            "args": ["-m", module, *arguments],
            "numprocesses": 1,
            "copy_env": True,
            "env": env,
            "working_dir": str(workspace.root),
            "stdout_stream": dict(stream),
            "stderr_stream": dict(stream),
            "graceful_timeout": 10,
            # A part that dies at once is started again, with pauses, as long as the supervisor lives.
            "max_retry": -1,
        }

    broker_log = files.broker_dir / "broker.log"
    arbiter = get_arbiter(
        controller=client.get_controller_endpoint(),
        pubsub_endpoint=client.get_pubsub_endpoint(),
        logoutput=client.circus_log_file,
        loglevel=client.loglevel,
        # No stats_endpoint: circus would start the statistics process for it, whatever statsd says.
        statsd=False,
        check_delay=0.5,
        pidfile=client.circus_pid_file,
        watchers=[
            watcher(
                f"{client.daemon_name}-zmq-broker-service",
                "matcompute.workspace._broker",
                ["daemon", "broker", str(files.broker_dir), str(broker_log)],
                broker_log,
            ),
            watcher(
                client.daemon_name,
                "matcompute.workspace._worker",
                ["daemon", "worker", str(workspace.root)],
                files.worker_log,
            ),
        ],
    )
    pidfile = Pidfile(client.circus_pid_file)
    pidfile.create(os.getpid())
    configure_logger(logger, client.loglevel, client.circus_log_file)
    try:
        arbiter.start()
    finally:
        pidfile.unlink()


if __name__ == "__main__":
    main()
