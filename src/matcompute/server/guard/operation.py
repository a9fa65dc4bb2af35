"""``/healthz`` and ``/metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from matcompute.server.access import require
from matcompute.server.errors import responses

if TYPE_CHECKING:
    from matcompute.server.guard.middleware import Watchman

__all__ = ["router"]


def router(watchman: Watchman) -> APIRouter:
    """Return the two routes."""
    routes = APIRouter(tags=["operation"])

    @routes.get(
        "/healthz",
        summary="Whether the node can serve",
        response_model=None,
        responses={200: _schema("The node can serve."), 503: _schema("A part is failing.")},
    )
    def healthz() -> JSONResponse:
        state = watchman.health.check()
        # Which part, but not why: paths and addresses are for the node's people, who read the log.
        checks = {name: "failing" if wrong else "ok" for name, wrong in state.checks.items()}
        content = {"status": "ok" if state.ok else "failing", "checks": checks}
        return JSONResponse(content, 200 if state.ok else 503, headers={"Cache-Control": "no-store"})

    @routes.get(
        "/metrics",
        summary="Numbers for Prometheus; needs a token of scope metrics",
        dependencies=[require("metrics")],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **responses(401, 403)},
    )
    def metrics() -> Response:
        return Response(watchman.metrics.expose(), media_type=CONTENT_TYPE_LATEST)

    return routes


def _schema(text: str) -> dict[str, Any]:
    words = {"type": "string", "enum": ["ok", "failing"]}
    schema = {
        "type": "object",
        "required": ["status", "checks"],
        "properties": {"status": words, "checks": {"type": "object", "additionalProperties": words}},
    }
    return {"description": text, "content": {"application/json": {"schema": schema}}}
