"""Receipts: what receivers say, signed, of the versions that they took or refused."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import insert, select, update
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from matcompute.publish.errors import SignatureError
from matcompute.publish.receipt import Receipt
from matcompute.server.access import Access, Principal, require
from matcompute.server.errors import not_found, responses
from matcompute.server.models import ReceiptPage, Stored, StoredReceipt
from matcompute.server.node import Node
from matcompute.server.tables import datasets, receipts, tokens, versions
from matcompute.times import utc_now

__all__ = ["router"]


def router(node: Node) -> APIRouter:
    """Return the routes of receipts."""
    routes = APIRouter(tags=["receipts"])
    page_size = Query(node.settings.page_size, ge=1, le=node.settings.max_page)

    @routes.post(
        "/receipts",
        status_code=201,
        response_model=Stored,
        responses={
            200: {"model": Stored, "description": "It was here already"},
            **responses(400, 401, 403, 404, 409, 413, 422, 503),
        },
    )
    def receive(receipt: Receipt, who: Annotated[Principal, require("receipts")]) -> Response:
        """Take a receipt; the same one again changes nothing."""
        try:
            receipt.verify()
        except SignatureError as error:
            raise HTTPException(403, error.message) from error
        stored, new = _store(node, who, receipt)
        return JSONResponse(stored.model_dump(), 201 if new else 200)

    @routes.get("/receipts", response_model=ReceiptPage, responses=responses(401, 403, 422, 503))
    def list_receipts(
        who: Annotated[Principal, require("admin")],
        after: Annotated[int, Query(ge=0, le=2**53 - 1)] = 0,
        limit: int = page_size,
    ) -> ReceiptPage:
        """List all receipts, oldest first."""
        query = select(receipts).where(receipts.c.number > after).order_by(receipts.c.number).limit(limit + 1)
        with node.engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return ReceiptPage(
            receipts=[StoredReceipt.model_validate(dict(row)) for row in rows[:limit]],
            next=rows[limit - 1]["number"] if len(rows) > limit else None,
        )

    return routes


def _store(node: Node, who: Principal, receipt: Receipt) -> tuple[Stored, bool]:
    """Write a receipt; return its row, and whether it is new.

    Raises
    ------
    HTTPException
        403 if the token's receipts are signed by another key; 404 if the sender cannot see the dataset; 409 if the
        digest is not that version's.
    """
    with node.write() as connection:
        key = connection.execute(select(tokens.c.public_key).where(tokens.c.id == who.token_id)).scalar()
        if key is not None and key != receipt.public_key:
            raise HTTPException(403, "the receipts of this token are signed by another key")
        said = connection.execute(select(receipts).where(receipts.c.sha256 == receipt.sha256)).first()
        if said is not None:
            return Stored(number=said.number, sha256=said.sha256, received=said.received), False
        query = (
            select(versions.c.manifest_sha256)
            .join(datasets, datasets.c.id == versions.c.dataset_id)
            .where(
                Access.visible(who),
                versions.c.dataset_id == receipt.dataset_id,
                versions.c.version == receipt.version,
            )
        )
        digest = connection.execute(query).scalar()
        if digest is None:
            raise not_found()
        # Whoever refuses a version may have got another manifest: its digest is just what the node must hear of.
        if digest != receipt.manifest_sha256 and receipt.verdict == "accept":
            raise HTTPException(409, f"the manifest of this version has the digest {digest}")
        if key is None:
            connection.execute(
                update(tokens).where(tokens.c.id == who.token_id).values(public_key=receipt.public_key)
            )
        values = {
            **receipt.model_dump(exclude={"schema_", "public_key"}),
            "sha256": receipt.sha256,
            "key_id": receipt.key_id,
            "token_id": who.token_id,
            "received": utc_now(),
        }
        number = connection.execute(insert(receipts).values(values)).inserted_primary_key
        assert number is not None
        return Stored(number=number[0], sha256=receipt.sha256, received=str(values["received"])), True
