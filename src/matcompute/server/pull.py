"""The pull protocol: who the node is, what changed, what a dataset is now."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI

import matcompute
from matcompute.server.access import Caller
from matcompute.server.errors import responses
from matcompute.server.node import Node

__all__ = ["PROTOCOL", "mount"]

PROTOCOL = "matcompute.pull/v1"


def mount(app: FastAPI, node: Node) -> None:
    """Add the routes."""
    app.include_router(router(node))


def router(node: Node) -> APIRouter:
    """Return the routes of the pull protocol."""
    routes = APIRouter(tags=["pull"])

    @routes.get("/node", responses=responses(401))
    def describe(who: Caller) -> dict[str, Any]:
        """Say who the node is."""
        settings = node.settings
        return {
            "schema": "matcompute.node/v1",
            "id": settings.id,
            "title": settings.title.model_dump(),
            "organisation": settings.organisation.model_dump(),
            "contact": settings.contact,
            "node_class": settings.node_class,
            "software": f"matcompute {matcompute.__version__}",
            "protocol": [PROTOCOL],
        }

    return routes
