"""The pull protocol: who the node is, what changed, what a dataset is now, its manifests and files."""

from __future__ import annotations

import time
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, FastAPI, Path, Query, Request
from sqlalchemy import Row, select
from starlette.responses import Response

import matcompute
from matcompute.server import blobs, receipts
from matcompute.server.access import Access, Caller, Principal, authenticate
from matcompute.server.caching import answer
from matcompute.server.errors import methods_of, not_found, responses
from matcompute.server.feed import head_of, page_of
from matcompute.server.guard.notes import note
from matcompute.server.models import Dataset, DatasetPage, Feed, NodeDescription, Summary, VersionInfo
from matcompute.server.node import Node
from matcompute.server.tables import datasets, versions

__all__ = ["PROTOCOL", "mount"]

PROTOCOL = "matcompute.pull/v1"
MAX_SEQ = 2**53 - 1
_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
DatasetId = Annotated[str, Path(pattern=_UUID, description="UUID of the dataset")]
VersionNumber = Annotated[int, Path(ge=1, le=1_000_000)]
_JSON = "application/json"
#: Doors of the node; those that are there are told.
_DOORS = {"pull": "/changes", "optimade": "/optimade/v1/info", "oai_pmh": "/oai", "portal": "/"}


def mount(app: FastAPI, node: Node) -> None:
    """Add the routes of the protocol, blobs and receipts included."""
    app.include_router(router(node))
    app.include_router(blobs.router(node))
    app.include_router(receipts.router(node))


def router(node: Node) -> APIRouter:
    """Return the routes of node, feed, datasets and manifests."""
    routes = APIRouter(tags=["pull"])
    settings = node.settings
    # Not in an annotation: those know the module's names only.
    patience = Query(0.0, ge=0, le=settings.max_wait_seconds, description="wait for news so many seconds")
    page_size = Query(settings.page_size, ge=1, le=settings.max_page)

    # What the protocol promises to take, whatever the node gives at once: a follower need not know its settings.
    feed_size = Query(
        settings.page_size, ge=1, le=1000, description="changes at most; the node may give fewer"
    )

    @routes.get("/node", response_model=NodeDescription, responses=responses(401, 503))
    def describe(request: Request, who: Caller) -> Response:
        """Say who the node is, with its public keys."""
        with node.engine.connect() as connection:
            head = head_of(connection, who)
        doors = {
            name: path
            for name, path in _DOORS.items()
            if "GET" in methods_of(request.app, {**request.scope, "path": path})
        }
        keyring = node.keyring.model_dump()
        keyring["schema"] = keyring.pop("schema_")
        said = NodeDescription(
            id=settings.id,
            title=settings.title.model_dump(),
            organisation=settings.organisation.model_dump(),
            contact=settings.contact,
            node_class=settings.node_class,
            software=f"matcompute {matcompute.__version__}",
            keyring=keyring,
            head=head,
            protocol=[PROTOCOL],
            doors=doors,
        )
        return answer(request, who, said.model_dump_json(by_alias=True).encode(), _JSON)

    @routes.get("/changes", response_model=Feed, responses=responses(401, 422, 503))
    async def changes(
        request: Request,
        who: Caller,
        after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="the last change that you have")] = 0,
        limit: int = feed_size,
        wait: float = patience,
    ) -> Response:
        """Return what changed, oldest first, as far as you may see it."""
        end = time.monotonic() + wait
        limit = min(limit, settings.max_page)

        def look(reader: Principal) -> Feed:
            with node.engine.connect() as connection:
                found, more = page_of(connection, reader, after, limit)
                head = head_of(connection, reader)
            return Feed.model_validate(
                {
                    "changes": found,
                    "next": found[-1]["seq"] if found else after,
                    "head": head,
                    "more": more,
                }
            )

        feed = await anyio.to_thread.run_sync(look, who)
        while not feed.changes and time.monotonic() < end:
            seen = node.head
            while node.head == seen and time.monotonic() < end:
                await anyio.sleep(min(0.25, max(0.0, end - time.monotonic())))
            # A token may have ended while it waited.
            header = request.headers.get("authorization")
            await anyio.to_thread.run_sync(node.refresh)
            who = await anyio.to_thread.run_sync(authenticate, node, header)
            feed = await anyio.to_thread.run_sync(look, who)
        return answer(request, who, feed.model_dump_json().encode(), _JSON)

    @routes.get("/datasets", response_model=DatasetPage, responses=responses(401, 422, 503))
    def list_datasets(
        request: Request,
        who: Caller,
        after: Annotated[str, Query(pattern=_UUID, description="`next` of the page before")] | None = None,
        limit: int = page_size,
    ) -> Response:
        """List the datasets that you may see, in the order of their ids."""
        query = select(datasets).where(Access.visible(who)).order_by(datasets.c.id).limit(limit + 1)
        if after is not None:
            query = query.where(datasets.c.id > after)
        with node.engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        page = DatasetPage(
            datasets=[Summary.model_validate(dict(row)) for row in rows[:limit]],
            next=rows[limit - 1]["id"] if len(rows) > limit else None,
        )
        return answer(request, who, page.model_dump_json().encode(), _JSON)

    @routes.get("/datasets/{dataset_id}", response_model=Dataset, responses=responses(401, 404, 422, 503))
    def dataset(request: Request, who: Caller, dataset_id: DatasetId) -> Response:
        """Say what holds now of a dataset; withdrawn versions are listed, their files are not served."""
        columns = [versions.c[name] for name in VersionInfo.model_fields]
        with node.engine.connect() as connection:
            query = select(datasets).where(Access.visible(who), datasets.c.id == dataset_id)
            row = connection.execute(query).mappings().first()
            if row is None:
                raise not_found()
            note(request, dataset_id=dataset_id, tier=row["tier"], grade=row["grade"])
            found = connection.execute(
                select(*columns).where(versions.c.dataset_id == dataset_id).order_by(versions.c.version)
            )
            said = Dataset.model_validate({**row, "versions": [dict(v) for v in found.mappings()]})
        return answer(request, who, said.model_dump_json(by_alias=True).encode(), _JSON)

    def version_of(request: Request, who: Principal, dataset_id: str, version: int) -> Row[Any]:
        query = (
            select(versions, datasets.c.tier, datasets.c.grade)
            .join(datasets, datasets.c.id == versions.c.dataset_id)
            .where(Access.visible(who), datasets.c.id == dataset_id, versions.c.version == version)
        )
        with node.engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise not_found()
        note(request, dataset_id=dataset_id, version=version, tier=row.tier, grade=row.grade)
        return row

    @routes.get(
        "/datasets/{dataset_id}/versions/{version}/manifest",
        response_model=dict[str, Any],
        responses=responses(401, 404, 422, 503),
    )
    def manifest(request: Request, who: Caller, dataset_id: DatasetId, version: VersionNumber) -> Response:
        """Return the manifest, byte by byte as it was signed; a withdrawn version's too: the chain needs it."""
        row = version_of(request, who, dataset_id, version)
        return answer(request, who, row.manifest, _JSON, f'"sha256:{row.manifest_sha256}"')

    @routes.get(
        "/datasets/{dataset_id}/versions/{version}/manifest.sig",
        response_model=dict[str, Any],
        responses=responses(401, 404, 422, 503),
    )
    def signature(request: Request, who: Caller, dataset_id: DatasetId, version: VersionNumber) -> Response:
        """Return the detached signature of the manifest."""
        row = version_of(request, who, dataset_id, version)
        return answer(request, who, row.signature, _JSON)

    return routes
