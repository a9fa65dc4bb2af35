"""Browsers cannot send a token by themselves: a cookie brings it, and counts as the header would."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

import anyio

from matcompute.server.tokens import find

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from matcompute.server.node import Node

__all__ = ["COOKIE", "CookieTokens"]

COOKIE = "matcompute_token"


class CookieTokens:
    """Middleware: turn the cookie of the sign-in page into an ``Authorization`` header.

    Only for GET and HEAD, so that no other site can have a browser do something in somebody's name (the cookie is
    ``SameSite=Strict`` besides), and only while the token holds: a browser with an old cookie gets the public's pages.
    """

    def __init__(self, app: ASGIApp, node: Node) -> None:
        self.app, self.node = app, node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            headers = dict(scope["headers"])
            token = _cookie(headers.get(b"cookie", b""))
            if token and b"authorization" not in headers:
                row = await anyio.to_thread.run_sync(find, self.node.engine, token)
                if row is not None:
                    bearer = (b"authorization", f"Bearer {token}".encode())
                    scope = {**scope, "headers": [*scope["headers"], bearer]}
        await self.app(scope, receive, send)


def _cookie(raw: bytes) -> str:
    if COOKIE.encode() not in raw:
        return ""
    try:
        found = SimpleCookie(raw.decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None and found.value.isascii() else ""
