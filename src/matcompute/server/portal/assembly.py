"""Add the portal to the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from matcompute.server.portal import pages, releases
from matcompute.server.portal.index import index_version
from matcompute.server.portal.rendering import SECURITY, STATIC, STATIC_URL, Renderer
from matcompute.server.portal.session import CookieTokens
from matcompute.server.portal.words import LANGUAGES, preferred

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

    from matcompute.server.node import Node

__all__ = ["cookies", "mount"]


class _Static(StaticFiles):
    """Styles and scripts; their addresses change with their content, so browsers may keep them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(
            {**SECURITY, "Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        )
        return response


def mount(app: FastAPI, node: Node) -> None:
    """Add pages, static files and the indexer of the catalogue.

    ``app.state.campaigns``, if set, is a callable that returns campaigns as
    `matcompute.campaign.state.counts.CampaignStatus.to_json` does, each with its ``grade`` and ``tier``.
    """
    renderer = Renderer()
    node.register("portal", index_version)
    app.mount(STATIC_URL, _Static(directory=STATIC), name="portal-static")

    @app.get("/", include_in_schema=False)
    def root(request: Request) -> Any:
        language = preferred(request.headers.get("accept-language", ""))
        return RedirectResponse(f"/{language}/", 302, {"Vary": "Accept-Language"})

    for language in LANGUAGES:
        app.include_router(releases.router(node, renderer, language), include_in_schema=False)
        # The last one ends with a route that answers every other address of the language.
        app.include_router(pages.router(node, renderer, language), include_in_schema=False)


def cookies(app: FastAPI, node: Node) -> None:
    """Have the cookie of the sign-in page count as a token on all doors; outside of what asks for tokens."""
    app.add_middleware(CookieTokens, node=node)
