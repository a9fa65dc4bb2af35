"""Routes of pages: an error is a page too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from matcompute.server.errors import ServerError
from matcompute.server.portal.rendering import Renderer

__all__ = ["page_router"]

#: Statuses that have a page of their own in `words`.
_PAGES = (400, 401, 403, 404, 413, 422, 429, 503)


def page_router(renderer: Renderer, language: str) -> APIRouter:
    """Return a router for the pages of a language, whose errors are pages."""

    class PageRoute(APIRoute):
        """A route that shows errors as pages, and answers HEAD where it answers GET."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if self.methods is not None and "GET" in self.methods:
                self.methods.add("HEAD")

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    return await handle(request)
                except HTTPException as error:
                    status, headers = error.status_code, dict(error.headers or {})
                except RequestValidationError:
                    status, headers = 404, {}
                except ServerError:
                    status, headers = 503, {"Retry-After": "5"}
                shown = status if status in _PAGES else 400
                page = renderer.page(request, language, "problem.html", status=status, shown=shown)
                page.headers.update(headers)
                return page

            return answer

    return APIRouter(prefix=f"/{language}", route_class=PageRoute)
