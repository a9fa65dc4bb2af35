"""Errors of the server, and how they look to a client: problem documents (RFC 9457)."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from matcompute.errors import MatcomputeError

__all__ = ["Problem", "ServerError", "install", "methods_of", "not_found", "problem", "responses"]


class ServerError(MatcomputeError):
    """The server cannot start or go on."""


class Problem(BaseModel):
    """A problem document."""

    type: str
    title: str
    status: int
    detail: str


class ProblemResponse(JSONResponse):
    """A problem as an answer."""

    media_type = "application/problem+json"


def problem(status: int, detail: str = "", headers: Mapping[str, str] | None = None) -> ProblemResponse:
    """Return a problem document."""
    title = http.HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail or title}
    return ProblemResponse(content, status, headers=dict(headers or {}))


def not_found(what: str = "") -> HTTPException:
    """Return the 404 for what does not exist, and equally for what the client may not see."""
    return HTTPException(404, what or "there is nothing here that you may see")


def responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses=`` of a route that may answer with these problems."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        code: {
            "description": http.HTTPStatus(code).phrase,
            "content": {"application/problem+json": {"schema": schema}},
        }
        for code in codes
    }


def methods_of(app: FastAPI, scope: Mapping[str, Any]) -> list[str]:
    """Return the methods that an application takes at the path of a request."""
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.router.routes)
    ]


def install(app: FastAPI) -> None:
    """Give an application (the mounted ones too) the problem documents."""

    describe = app.openapi

    def openapi() -> dict[str, Any]:
        schema = describe()
        parts = schema.setdefault("components", {}).setdefault("schemas", {})
        parts.setdefault("Problem", Problem.model_json_schema())
        return schema

    app.openapi = openapi  # type: ignore[method-assign]

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> ProblemResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # Starlette names the methods of the first route at this address only.
            headers["Allow"] = ", ".join(methods_of(request.app, request.scope))
        return problem(error.status_code, str(error.detail), headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> ProblemResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        # What the client sent is not repeated: it may be large, or not text.
        return problem(422, f"{where}: {first['msg']}"[:500].encode("utf-8", "replace").decode())

    @app.exception_handler(ServerError)
    async def _busy(_: Request, error: ServerError) -> ProblemResponse:
        return problem(503, error.message, {"Retry-After": "5"})
