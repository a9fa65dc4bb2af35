"""Conditional requests and ranges (RFC 9110): the parts that every door needs alike."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response

from matcompute.server.access import Principal

__all__ = ["answer", "byte_range", "cache_headers", "content_disposition", "failed", "unchanged"]

_RANGE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE | re.ASCII)


def cache_headers(who: Principal) -> dict[str, str]:
    """Return headers that let caches keep an answer, but ask each time: grades change."""
    kind = "public" if who.token_id is None else "private"
    return {"Cache-Control": f"{kind}, no-cache", "Vary": "Authorization"}


def _tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}


def unchanged(request: Request, etag: str) -> bool:
    """Whether ``If-None-Match`` says that the client has this already."""
    header = request.headers.get("if-none-match")
    return header is not None and (header.strip() == "*" or etag in _tags(header))


def failed(request: Request, etag: str) -> bool:
    """Whether ``If-Match`` names other content."""
    header = request.headers.get("if-match")
    return header is not None and header.strip() != "*" and etag not in {t.strip() for t in header.split(",")}


def byte_range(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """Return (first byte, one past the last) that is asked for; None for all of it.

    More than one range, or one that is no range, is answered by the whole, as the standard allows.

    Raises
    ------
    ValueError
        If the range begins past the end: status 416.
    """
    header = request.headers.get("range")
    condition = request.headers.get("if-range")
    if header is None or (condition is not None and condition.strip() != etag):
        return None
    match = _RANGE.fullmatch(header)
    if match is None or len(header) > 60:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        start, stop = max(0, size - int(last)), size
    else:
        start = int(first)
        if last and int(last) < start:
            return None
        stop = min(size, int(last) + 1) if last else size
    if start >= stop:
        raise ValueError("the range begins past the end")
    return start, stop


def content_disposition(name: str) -> str:
    """Return a header that names a file; nothing in a name can end the header or begin another one."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def answer(
    request: Request, who: Principal, raw: bytes, media_type: str, etag: str | None = None
) -> Response:
    """Return small content with its ETag, or 304 if the client has it."""
    tag = etag or f'"{hashlib.sha256(raw).hexdigest()[:32]}"'
    headers = {"ETag": tag, **cache_headers(who)}
    if unchanged(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(raw, media_type=media_type, headers=headers)
