"""Run the application with uvicorn, with limits on what a slow or greedy client can hold."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from matcompute.errors import InputError
from matcompute.publish.release import Publication
from matcompute.server.node import Node

__all__ = ["configuration", "listen", "run"]


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


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; port 0: any free one.

    Raises
    ------
    InputError
        If the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol's number: asyncio switches Nagle's algorithm off only where it sees that this is TCP. With it,
    # an answer of two pieces waits for the client's delayed acknowledgement: 40 ms for each request.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)  # who comes from now on waits for the server, and is not turned away
    except OSError as error:
        listener.close()
        raise InputError(
            f"{host}, port {port}: {error.strerror}", hint="choose another one: --port"
        ) from error
    return listener


def run(
    publication: Publication,
    *,
    host: str,
    port: int,
    rebuild: bool = False,
    campaigns: Callable[[], list[dict[str, Any]]] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a publication until the process is told to stop.

    Parameters
    ----------
    publication
        What is served; its key must exist.
    host, port
        Where; port 0: any free one.
    rebuild
        Make the index again first.
    campaigns
        Returns what the portal shows of campaigns (`matcompute.campaign.showcase`); None: it shows none.
    say
        Called with the line that says where the server is.

    Raises
    ------
    KeyFileError
        If the publication has no key yet.
    InputError
        If the address cannot be used.
    ServerError
        If the index cannot be opened.
    """
    from matcompute.server.app import create_app

    node = Node(publication)
    node.keyring  # noqa: B018 - a node without keys cannot be trusted by anybody: say so now
    if rebuild:
        node.create_tables()
        node.rebuild()
    app = create_app(node)
    app.state.campaigns = campaigns
    listener = listen(host, port)
    name = f"[{host}]" if ":" in host else host
    say(f"serving {node.settings.id} at http://{name}:{listener.getsockname()[1]}")
    uvicorn.Server(configuration(app, node, host=host, port=port)).run(sockets=[listener])
