"""Files of releases: by digest, or by dataset, version and path; ranges, and access that can end at any moment."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Annotated, Any
from urllib.parse import quote

import anyio
from fastapi import APIRouter, Path, Request
from sqlalchemy import Row, select
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from matcompute.dataset import GRADES, TIERS
from matcompute.errors import MatcomputeError
from matcompute.server.access import Access, Caller, Principal, authenticate
from matcompute.server.caching import (
    byte_range,
    cache_headers,
    content_disposition,
    failed,
    unchanged,
)
from matcompute.server.errors import not_found, problem, responses
from matcompute.server.guard.notes import note
from matcompute.server.node import Node
from matcompute.server.tables import datasets, files, versions

__all__ = ["router"]

_log = logging.getLogger("matcompute.server")
_CHUNK = 256 << 10
#: How often a download asks whether its token still holds; events are asked for at every piece.
_TOKEN_SECONDS = 1.0
_OK: dict[int | str, dict[str, Any]] = {
    code: {"description": text, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    for code, text in ((200, "The file"), (206, "The part that was asked for"))
}
_DOCUMENTED = {**_OK, 304: {"description": "You have it"}, **responses(401, 404, 412, 416, 422, 503)}


Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hexadecimal")]
DatasetId = Annotated[str, Path(max_length=36)]
Version = Annotated[int, Path(ge=1, le=1_000_000)]


@dataclass(frozen=True)
class _Wanted:
    """How a request names a file; the same question is asked again while the file is sent."""

    digest: str | None = None
    dataset_id: str | None = None
    version: int | None = None
    path: str | None = None

    def find(self, node: Node, who: Principal) -> Row[Any] | None:
        condition = Access.visible(who) & versions.c.withdrawn.is_(False)
        if self.digest is not None:
            condition &= files.c.sha256 == self.digest
        else:
            condition &= files.c.dataset_id == self.dataset_id
            condition &= (files.c.version == self.version) & (files.c.path == self.path)
        same = (versions.c.dataset_id == files.c.dataset_id) & (versions.c.version == files.c.version)
        query = (
            select(files, datasets.c.tier, datasets.c.grade)
            .join(versions, same)
            .join(datasets, datasets.c.id == files.c.dataset_id)
            .where(condition)
            .order_by(files.c.dataset_id, files.c.version.desc(), files.c.path)
            .limit(1)
        )
        with node.engine.connect() as connection:
            return connection.execute(query).first()


def router(node: Node) -> APIRouter:
    """Return the routes of files."""
    routes = APIRouter(tags=["files"])

    def blob(request: Request, who: Caller, digest: Digest) -> Response:
        """Return a file by its SHA-256."""
        return _serve(node, request, who, _Wanted(digest=digest))

    def file(request: Request, who: Caller, dataset_id: DatasetId, version: Version, path: str) -> Response:
        """Return a file of an available version by its path."""
        return _serve(node, request, who, _Wanted(dataset_id=dataset_id, version=version, path=path))

    for address, endpoint in (
        ("/blobs/sha256/{digest}", blob),
        ("/datasets/{dataset_id}/versions/{version}/files/{path:path}", file),
    ):
        for method in ("GET", "HEAD"):
            routes.add_api_route(
                address,
                endpoint,
                methods=[method],
                response_class=Response,
                responses=_DOCUMENTED,
                operation_id=f"{endpoint.__name__}_{method.lower()}",
            )
    return routes


def _serve(node: Node, request: Request, who: Principal, wanted: _Wanted) -> Response:
    row = wanted.find(node, who)
    if row is None:
        raise not_found()
    served = {"dataset_id": row.dataset_id, "version": row.version, "tier": row.tier, "grade": row.grade}
    note(request, **served, sha256=row.sha256)
    etag = f'"sha256:{row.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(row.sha256)).decode()}:",
        "Content-Disposition": content_disposition(row.path.rsplit("/", 1)[-1]),
        # A file of a release is data, never a page of this site.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        **cache_headers(who),
    }
    if failed(request, etag):
        raise HTTPException(412, "the content has another digest")
    if unchanged(request, etag):
        return Response(status_code=304, headers=headers)
    try:
        part = byte_range(request, etag, row.size)
    except ValueError as error:
        return problem(416, str(error), {"Content-Range": f"bytes */{row.size}"})
    start, stop = part or (0, row.size)
    store, prefix = node.publication.store, node.settings.x_accel
    if prefix is not None and store.local is not None and (row.tier, row.grade) == (TIERS[0], GRADES[0]):
        # Public data only: a token may end at any moment, and nginx is told of events alone (`cutting`).
        headers["X-Accel-Redirect"] = prefix + quote(row.location)
        del headers["Accept-Ranges"]  # nginx says it again
        note(request, bytes=0 if request.method == "HEAD" else stop - start)
        return Response(media_type=row.media_type, headers=headers)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{row.size}"
    headers["Content-Length"] = str(stop - start)
    authorization = request.headers.get("authorization")
    return _FileResponse(
        lambda: store.files.open(f"{store.root}/{row.location}"),
        (start, stop),
        _Watch(node, wanted, row.sha256, who, authorization),
        node.settings.send_seconds,
        status_code=206 if part else 200,
        media_type=row.media_type,
        headers=headers,
    )


class _Watch:
    """Whether a download may go on; cheap as long as there is no news."""

    def __init__(
        self, node: Node, wanted: _Wanted, digest: str, who: Principal, authorization: str | None
    ) -> None:
        self.node, self.wanted, self.digest, self.who = node, wanted, digest, who
        self.authorization = authorization
        # The events as they were before the file was found: one that came since then is seen at the first piece.
        self.head = -1
        self.asked = time.monotonic()

    def holds(self) -> bool:
        now = time.monotonic()
        try:
            if self.authorization is not None and now - self.asked > _TOKEN_SECONDS:
                self.who, self.asked = authenticate(self.node, self.authorization), now
                self.head = -1
            if self.node.head == self.head:
                return True
            head = self.node.refresh()
            row = self.wanted.find(self.node, self.who)
        except (HTTPException, MatcomputeError):
            return False  # the token ended, or the index cannot say
        self.head = head
        return row is not None and row.sha256 == self.digest


class _FileResponse(Response):
    """Part of a file, sent piece by piece; ends early, with the connection, when access ends."""

    def __init__(
        self,
        opener: Callable[[], IO[bytes]],
        span: tuple[int, int],
        watch: _Watch,
        send_seconds: float,
        **options: Any,
    ) -> None:
        super().__init__(None, **options)
        self.opener, self.span, self.watch, self.send_seconds = opener, span, watch, send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(head)
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            file = await anyio.to_thread.run_sync(self.opener)
        except (OSError, MatcomputeError) as error:
            _log.error("a file of the store cannot be read: %s", error)
            await problem(503, "the file cannot be read now")(scope, receive, send)
            return
        try:
            await self._send(file, head, send)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(file.close)

    async def _send(self, file: IO[bytes], head: dict[str, Any], send: Send) -> None:
        position, stop = self.span

        def piece(first: bool) -> bytes | None:
            if not self.watch.holds():
                return None
            if first:
                file.seek(position)
            return file.read(min(_CHUNK, stop - position))

        await send(head)
        while position < stop:
            raw = await anyio.to_thread.run_sync(piece, position == self.span[0])
            if not raw:
                # Not the promised length: the server closes the connection, and the client sees that it broke off.
                why = "access ended" if raw is None else "the file is shorter than its manifest says"
                _log.warning("a download of %s was broken off: %s", self.watch.digest, why)
                return
            position += len(raw)
            with anyio.move_on_after(self.send_seconds) as scope:
                await send({"type": "http.response.body", "body": raw, "more_body": position < stop})
            if scope.cancelled_caught:
                _log.warning("a download of %s was broken off: the client does not read", self.watch.digest)
                return
        if self.span[0] == stop:
            await send({"type": "http.response.body", "body": b""})
