"""Run ``matcompute publish`` commands that die at a file operation of their own: ``python killable.py``.

Reads one JSON object a line, ``{"arguments": [...], "at": 7}``, and answers each with the exit status of the command
(-9 where it was killed) and the operations that it came to: those of the disk, or with ``s3`` as the script's argument
the requests to S3, each before it is sent and after it was answered. A fork for each command: the imports are paid
once, and no threads run yet that a fork would lose.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Any

#: Audit events of what changes the disk, or is about to.
CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "os.link", "sqlite3.connect"}


def watch(at: int, counter: int) -> None:
    """Count the operations into a pipe; die at number ``at``."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        os.write(counter, b".")
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or event in CHANGES:
            step()

    if sys.argv[1:2] != ["s3"]:
        sys.addaudithook(hook)
        return
    from aiobotocore.client import AioBaseClient

    call = AioBaseClient._make_api_call

    async def counted(*arguments: Any) -> Any:
        step()
        answer = await call(*arguments)
        step()
        return answer

    AioBaseClient._make_api_call = counted


def run(arguments: list[str], at: int) -> dict[str, Any]:
    from matcompute.cli import main

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            with open(os.devnull, "w") as nothing:  # noqa: PTH123
                os.dup2(nothing.fileno(), 1)
            watch(at, writer)
            sys.argv = ["matcompute", "publish", *arguments]
            main()
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    operations = 0
    while chunk := os.read(reader, 4096):
        operations += len(chunk)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    return {"status": os.waitstatus_to_exitcode(status), "operations": operations}


if __name__ == "__main__":
    import matcompute.publish.build
    import matcompute.publish.release  # noqa: F401

    if sys.argv[1:2] == ["s3"]:
        import s3fs  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
