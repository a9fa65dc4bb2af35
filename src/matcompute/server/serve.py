"""Run the application with uvicorn, with limits on what a slow or greedy client can hold."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from matcompute.server.node import Node

__all__ = ["configuration"]


def configuration(app: FastAPI, node: Node, *, host: str, port: int, **options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for an application.

    Parameters
    ----------
    app, node
        What is served.
    host, port
        Where.
    options
        More options of uvicorn (``workers`` are not possible here).
    """
    seconds = node.settings.header_seconds

    class Protocol(H11Protocol):
        """HTTP/1.1 that does not wait for ever for the end of a request's headers."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._timer = self.loop.call_later(seconds, self._look, None)

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def _look(self, before: Any) -> None:
            # No request came to its end of headers since the last look, and none is being answered.
            idle = self.cycle is None or self.cycle.response_complete
            if idle and self.cycle is before:
                self.transport.close()
                return
            self._timer = self.loop.call_later(seconds, self._look, self.cycle)

    defaults: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": 5,
        "limit_concurrency": 1000,
        "h11_max_incomplete_event_size": 32768,
        "timeout_graceful_shutdown": 10,
    }
    return uvicorn.Config(app, host=host, port=port, http=Protocol, **(defaults | options))
