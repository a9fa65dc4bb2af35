"""The worker of an embedded profile, as a child of the supervisor: ``python -m … daemon worker ROOT``.

It is AiiDA's daemon worker with four additions: it dies with its supervisor, it tunes SQLite, it says when it is
ready and to which broker it is connected, and it ends (to be started again) when the broker was replaced, because
AiiDA's ZeroMQ client cannot reconnect.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from typing import Any

from matcompute.workspace.runtime import DaemonFiles, code_fingerprint, die_with_parent, write_json
from matcompute.workspace.workspace import Workspace

LOGGER = logging.getLogger("aiida.matcompute.worker")
#: How often the worker looks whether its broker is still the current one.
WATCH_INTERVAL_S = 1.0
#: How long a graceful end may take before the worker ends anyway.
GRACE_S = 3.0


def main() -> None:
    """Run the worker until SIGTERM."""
    die_with_parent()
    workspace = Workspace(sys.argv[-1])
    files = DaemonFiles.of(workspace)
    fingerprint = code_fingerprint()

    from aiida.common.log import configure_logging
    from aiida.engine.daemon.worker import shutdown_worker
    from aiida.manage import get_manager
    from aiida.manage.configuration import get_config_option

    manager = get_manager()
    configure_logging(with_orm=True, daemon=True, daemon_log_file=str(files.worker_log))

    # The broker starts beside the worker; its old file was removed, so what appears is the new one.
    endpoint = _await_broker(files)
    runner = manager.create_daemon_runner()
    manager.set_runner(runner)
    limit = get_config_option("daemon.recursion_limit")
    if isinstance(limit, int):
        sys.setrecursionlimit(limit)

    tasks: set[asyncio.Task[Any]] = set()

    def stop() -> None:
        runner.loop.call_later(GRACE_S, os._exit, 1)
        tasks.add(runner.loop.create_task(shutdown_worker(runner)))

    def watch() -> None:
        if files.endpoint() == endpoint:
            runner.loop.call_later(WATCH_INTERVAL_S, watch)
        else:
            LOGGER.warning("the broker was replaced: this worker ends, the supervisor starts a new one")
            stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        runner.loop.add_signal_handler(number, stop)
    runner.loop.call_soon(
        write_json,
        files.ready,
        {"pid": os.getpid(), "endpoint": endpoint, "code": fingerprint, "time": time.time()},
    )
    runner.loop.call_later(WATCH_INTERVAL_S, watch)
    try:
        _preload()
        runner.start()
    except SystemError as error:
        LOGGER.info("stopped: %s", error)
        manager.reset_profile()


def _preload() -> None:
    """Import what the first batch needs now, rather than while it waits."""
    import importlib

    for name in ("workchain", "batch", "parser", "shard"):
        try:
            importlib.import_module(f"matcompute_workflows.{name}")
        except ImportError:
            # The processes that need it will fail with the same error; others can be worked on.
            LOGGER.exception("cannot import matcompute_workflows.%s", name)


def _await_broker(files: DaemonFiles, timeout: float = 120.0) -> str:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        endpoint = files.endpoint()
        if endpoint is not None and os.path.exists(os.path.join(endpoint, "router.sock")):  # noqa: PTH110, PTH118
            return endpoint
        time.sleep(0.05)
    sys.exit(f"no broker after {timeout:.0f} s: {files.broker_sockets}")


if __name__ == "__main__":
    main()
