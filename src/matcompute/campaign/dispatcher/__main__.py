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
    from matcompute.campaign.state import State, StateError
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

        with State(workspace.state_path) as state:
            Dispatcher(workspace, state).run()
        return 0
    except StateError as error:
        logging.getLogger("matcompute").error("%s", error)
        # The daemon cannot record its steps either. What it holds in memory would be ahead of what is on disk: it
        # starts anew from what is on record. Jobs that run are not touched.
        if workspace.settings.embedded:
            workspace.stop_daemon(timeout=1.0)
        return error.exit_code
    except MatcomputeError as error:
        logging.getLogger("matcompute").error("%s", error)
        return error.exit_code
    finally:
        lock.release()


if __name__ == "__main__":
    sys.exit(main())
