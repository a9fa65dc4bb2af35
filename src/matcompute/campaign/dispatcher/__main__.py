"""``python -m matcompute.campaign.dispatcher ROOT``: the dispatcher of a workspace."""

from __future__ import annotations

import logging
import sys
import time

from filelock import Timeout

from matcompute.campaign.dispatcher.launch import dispatcher_lock
from matcompute.errors import MatcomputeError


def main() -> int:
    """Run the dispatcher unless another one is alive."""
    from matcompute.workspace import Workspace

    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING, stream=sys.stderr
    )
    logging.getLogger("matcompute").setLevel(logging.INFO)
    logging.Formatter.converter = time.gmtime
    workspace = Workspace(sys.argv[1])
    lock = dispatcher_lock(workspace)
    try:
        # Somebody who only looks holds the lock for a moment.
        lock.acquire(timeout=3.0)
    except Timeout:
        return 0
    try:
        from matcompute.campaign.dispatcher.loop import Dispatcher
        from matcompute.campaign.state import State

        with State(workspace.state_path) as state:
            Dispatcher(workspace, state).run()
        return 0
    except MatcomputeError as error:
        logging.getLogger("matcompute").error("%s", error)
        return error.exit_code
    finally:
        lock.release()


if __name__ == "__main__":
    sys.exit(main())
