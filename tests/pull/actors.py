"""Puller and server as processes that kill themselves, SIGKILL, at the n-th step; started by test_kill.py.

The process imports everything once; for each line of its input it forks a child that does the work, and prints how the
child ended. A step is whatever can be told apart from outside the program: a file opened, renamed or removed, a
connection, a piece of an answer.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

STEPS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "socket.connect"})


class Countdown:
    """Die at the n-th step; n = 0: count only."""

    def __init__(self, steps: int) -> None:
        self.left, self.count = steps, 0

    def __call__(self) -> None:
        self.count += 1
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def run_puller(order: dict[str, Any]) -> None:
    from matcompute.publish.pull import Options, pull

    step = Countdown(order["steps"])
    folder = order["dest"]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        # What concerns the copy or the net; not the modules that Python opens.
        if event in STEPS and (event == "socket.connect" or str(args[0]).startswith(folder)):
            step()

    sys.addaudithook(hook)
    options = Options(
        token=order["token"], receiver="platform", jobs=order["jobs"], rate=order["rate"], patience=120
    )
    report = pull(order["url"], Path(folder), options, progress=lambda *_: step())
    Path(order["report"]).write_text(json.dumps(report.to_json() | {"steps": step.count}))


def run_server(order: dict[str, Any]) -> None:
    import uvicorn

    from matcompute.publish.release import Publication
    from matcompute.server.app import create_app
    from matcompute.server.node import Node
    from matcompute.server.serve import configuration
    from matcompute.server.settings import Limits, NodeSettings

    step = Countdown(order["steps"])
    free = Limits(anonymous_per_minute=10**7, member_per_minute=10**7)
    publication = Publication(Path(order["publication"]), order["store"])
    node = Node(publication, NodeSettings(id="node", limits=free))
    app = create_app(node)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def logged(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        os.write(log, f"{scope['method']} {scope['path']}\n".encode())
        step()

        async def sending(message: Any) -> None:
            step()
            await send(message)

        await app(scope, receive, sending)

    uvicorn.Server(configuration(logged, node, host="127.0.0.1", port=order["port"])).run()  # type: ignore[arg-type]


def main() -> None:
    which = sys.argv[1]
    names = [
        "matcompute.publish.pull",
        "httpx",
        "pyarrow.parquet",
        "cryptography.hazmat.primitives.serialization",
    ]
    if which == "server":
        from matcompute.server.app import PARTS

        names += ["uvicorn", "uvicorn.lifespan.on", "s3fs", *(part.split(":")[0] for part in PARTS)]
    for name in names:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            # A quiet end, or a trace on stderr; never the loop of the parent.
            try:
                {"puller": run_puller, "server": run_server}[which](json.loads(line))
            except BaseException:
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
