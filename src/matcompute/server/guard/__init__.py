"""The guard in front of every door: audit, rate limits, quotas, alerts, metrics, health."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from matcompute.server.guard.middleware import Watchman
    from matcompute.server.node import Node

__all__ = ["doors", "mount"]


def _watchman(app: FastAPI, node: Node) -> Watchman:
    from matcompute.server.guard.middleware import Watchman

    if not hasattr(app.state, "guard"):
        app.state.guard = Watchman(node, getattr(app.state, "cutter", None))
    found: Watchman = app.state.guard
    return found


def doors(app: FastAPI, node: Node) -> None:
    """Add ``/healthz`` and ``/metrics``; before any part that answers every path."""
    from matcompute.server.guard.operation import router

    app.include_router(router(_watchman(app, node)))


def mount(app: FastAPI, node: Node) -> None:
    """Put the guard around an application; the last part, so that it is outside of all others."""
    from matcompute.server.guard.middleware import Guard

    app.add_middleware(Guard, watchman=_watchman(app, node))
