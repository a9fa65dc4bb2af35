"""Bodies of requests: read whole before anybody works with them, never past a size, never for ever."""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matcompute.server.errors import problem

__all__ = ["BodyLimit"]

_CLOSE = {"Connection": "close"}


class BodyLimit:
    """ASGI middleware: 413 past a size, 408 past a time.

    Parameters
    ----------
    app
        The application.
    max_bytes
        Most bytes of a body.
    seconds
        Time in which it must have come.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float) -> None:
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > self.max_bytes:
            await self._refuse(413)(scope, receive, send)
            return
        if length == b"0" and b"transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        body = bytearray()
        more = True
        with anyio.move_on_after(self.seconds) as timer:
            while more and len(body) <= self.max_bytes:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                more = message.get("more_body", False)
        if timer.cancelled_caught:
            await problem(408, "the body did not come in time", _CLOSE)(scope, receive, send)
            return
        if len(body) > self.max_bytes:
            await self._refuse(413)(scope, receive, send)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, replay, send)

    def _refuse(self, status: int) -> ASGIApp:
        return problem(status, f"a body of more than {self.max_bytes} bytes is not taken", _CLOSE)
