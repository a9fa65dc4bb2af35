"""The application: every door over one node."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from fastapi import FastAPI

import matcompute
from matcompute.errors import MatcomputeError
from matcompute.server import errors
from matcompute.server.bodies import BodyLimit
from matcompute.server.cutting import Cutter
from matcompute.server.node import Node

__all__ = ["PARTS", "create_app"]

_log = logging.getLogger("matcompute.server")

#: ``module:function`` of each part; ``function(app, node)`` adds routes, mounts, middleware, ``node.register(…)``.
#: In the order of their routes; a part that adds middleware is outside of those before it.
PARTS: tuple[str, ...] = (
    "matcompute.server.guard:doors",
    "matcompute.server.pull:mount",
    "matcompute.server.optimade.routes:mount",
    "matcompute.server.oai:mount",
    "matcompute.server.portal:mount",
    "matcompute.server.guard:mount",  # outside of all others
    "matcompute.server.portal:cookies",  # but for this: the guard must see who asks
)  # fmt: skip


def create_app(node: Node, *, follow_seconds: float = 1.0) -> FastAPI:
    """Return the ASGI application of a node, with its index up to date.

    Parameters
    ----------
    node
        The node.
    follow_seconds
        How often the indexers look for new versions while the server runs; 0: never (what was released
        before is loaded now). Grades, tiers and withdrawals hold at once all the same: every request asks for them.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(app.state.cutter.follow())]
        if follow_seconds:
            tasks.append(asyncio.create_task(_follow(node, follow_seconds)))
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    app = FastAPI(
        title=f"matcompute node {node.settings.id}",
        version=matcompute.__version__,
        openapi_url="/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    app.state.node = node
    app.state.cutter = Cutter(node)
    errors.install(app)
    limit = node.settings.max_body_kb << 10
    app.add_middleware(BodyLimit, max_bytes=limit, seconds=node.settings.body_seconds)
    mounts = []
    for part in PARTS:
        module, function = part.split(":")
        mounts.append(getattr(importlib.import_module(module), function))
    for mount in mounts:
        mount(app, node)
    node.create_tables()
    node.sync()
    return app


async def _follow(node: Node, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            if node.behind:
                # The index may be left at any point: a server that is told to stop does not wait for it.
                await anyio.to_thread.run_sync(node.sync, abandon_on_cancel=True)
        except MatcomputeError as error:
            _log.error("the index does not follow: %s", error)
        except Exception:
            _log.exception("the index does not follow")
