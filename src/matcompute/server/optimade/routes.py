"""The OPTIMADE door: ``/optimade/v1/…`` (and without version, for people)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Request, Response

from matcompute.server.access import Caller, Principal
from matcompute.server.optimade import answers
from matcompute.server.optimade.listing import Query, find_one, find_page
from matcompute.server.optimade.load import load_structures
from matcompute.server.optimade.problems import NotFound, OptimadeProblem, VersionNotSupported
from matcompute.server.optimade.served import PREFIX, Catalogues

if TYPE_CHECKING:
    from matcompute.server.node import Node

__all__ = ["mount"]

_TYPE = "application/vnd.api+json"
_VERSIONS = ("/v1", "/v1.2", "/v1.2.0", "")
_OBJECT = {"content": {_TYPE: {"schema": {"type": "object"}}}}
_CODES: dict[int | str, dict[str, Any]] = {
    200: {"description": "JSON:API document"} | _OBJECT,
    400: {"description": "The request is wrong"} | _OBJECT,
    401: {"description": "The token is wrong", "content": {"application/problem+json": {}}},
    403: {"description": "Too large a page"} | _OBJECT,
    404: {"description": "No such entry"} | _OBJECT,
    501: {"description": "An optional feature that is not offered"} | _OBJECT,
    553: {"description": "Another version of the API"} | _OBJECT,
}
_PARAMETERS = (
    ("filter", "string", "An OPTIMADE filter."),
    ("response_format", "string", "Only json."),
    ("response_fields", "string", "Names of properties, separated by commas."),
    ("sort", "string", "Names of properties, separated by commas; - before a name: descending."),
    ("page_limit", "integer", "Entries of a page."),
    ("page_offset", "integer", "Entries to leave out."),
    ("page_number", "integer", "Number of a page, from 1."),
    ("page_cursor", "string", "Where to go on, from links.next; page_after means the same."),
    ("page_after", "string", "Where to go on, from links.next."),
    ("email_address", "string", "Not used."),
    ("api_hint", "string", "v1"),
)
#: What else is known of them.
_FORMS: dict[str, dict[str, Any]] = {
    "response_format": {"enum": ["json"]},
    "api_hint": {"pattern": r"^(v1(\.[0-9]{1,3}){0,2})?$"},
    "page_limit": {"minimum": 1, "maximum": 10_000},
    "page_offset": {"minimum": 0, "maximum": 999_999_999_999_999},
    "page_number": {"minimum": 1, "maximum": 999_999_999_999_999},
}


def mount(app: FastAPI, node: Node) -> None:
    """Add the door to an application."""
    node.register("optimade", load_structures)
    door = _Door(node)

    @app.exception_handler(OptimadeProblem)
    async def _problem(request: Request, error: OptimadeProblem) -> Response:
        content = answers.error(error, answers.meta(_representation(request), door.provider(request)))
        return _respond(json.dumps(content, ensure_ascii=False).encode(), error.status)

    for version in _VERSIONS:
        app.include_router(_router(door), prefix=f"/optimade{version}", include_in_schema=version == "/v1")
    app.include_router(_versions(), prefix="/optimade")


def _router(door: _Door) -> APIRouter:
    router = APIRouter(tags=["optimade"])
    codes = {code: dict(said) for code, said in _CODES.items()}

    def parameters(*names: str) -> dict[str, Any]:
        return {
            "parameters": [
                {
                    "name": name,
                    "in": "query",
                    "description": text,
                    "schema": {"type": kind} | _FORMS.get(name, {}),
                }
                for name, kind, text in _PARAMETERS
                if not names or name in names
            ]
        }

    @router.get("/info", responses=codes, response_class=Response)
    def info(request: Request, who: Caller) -> Response:
        """Return what this server offers."""
        return door.info(request, who)

    @router.get("/info/{entry}", responses=codes, response_class=Response)
    def entry_info(request: Request, entry: str, who: Caller) -> Response:
        """Return the properties of an entry type."""
        return door.entry_info(request, entry, who)

    @router.get("/links", responses=codes, response_class=Response)
    def links(request: Request, who: Caller) -> Response:
        """Return related servers."""
        return door.links(request, who)

    @router.get("/structures", responses=codes, response_class=Response, openapi_extra=parameters())
    def structures(request: Request, who: Caller) -> Response:
        """Return a page of structures."""
        return door.structures(request, who)

    single = ("response_format", "response_fields", "email_address", "api_hint")

    @router.get(
        "/structures/{entry_id:path}",
        responses=codes,
        response_class=Response,
        openapi_extra=parameters(*single),
    )
    def structure(request: Request, entry_id: str, who: Caller) -> Response:
        """Return one structure."""
        return door.structure(request, entry_id, who)

    return router


def _versions() -> APIRouter:
    router = APIRouter(tags=["optimade"])

    @router.get("/versions", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
    def versions() -> Response:
        """Return the major versions of the API that this server speaks."""
        return Response("version\n1\n", media_type="text/csv; header=present")

    @router.get("/{rest:path}", include_in_schema=False)
    def other(rest: str) -> Response:
        first = rest.partition("/")[0]
        if re.fullmatch(r"v[0-9].*", first) and first not in {v.strip("/") for v in _VERSIONS}:
            raise VersionNotSupported(f"this server speaks v1, not {first[:20]}")
        raise NotFound("there is nothing here")

    return router


class _Door:
    """What the routes share."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.catalogues = Catalogues(node)
        self.dialect = node.engine.dialect.name

    def base(self, request: Request) -> str:
        url = str(getattr(self.node.settings, "base_url", "") or request.base_url)
        return url.rstrip("/") + "/optimade"

    def provider(self, request: Request) -> dict[str, Any]:
        name = self.node.settings.title.en or self.node.settings.id
        return {"name": name, "description": f"matcompute node {self.node.settings.id}", "prefix": PREFIX}

    def structures(self, request: Request, who: Principal) -> Response:
        settings = self.node.settings
        query = Query.read(request.query_params.multi_items(), settings.page_size, settings.max_page)
        with self.node.engine.connect() as connection:
            catalogue = self.catalogues.get(connection, who)
            fields = answers.fields_of(query.fields, catalogue, query.warnings)
            page = find_page(connection, who, catalogue, query, self.dialect)
        data = "[" + ",".join([answers.entry(row, fields) for row in page.rows]) + "]"
        following = None
        if page.cursor is not None:
            drop = {"page_cursor", "page_after", "page_offset", "page_number"}
            kept = [(k, v) for k, v in request.query_params.multi_items() if k not in drop]
            path = request.url.path.partition("/optimade")[2]
            following = f"{self.base(request)}{path}?{urlencode([*kept, ('page_cursor', page.cursor)])}"
        meta = answers.meta(
            _representation(request),
            self.provider(request),
            more=page.more,
            returned=page.returned,
            available=catalogue.total,
            warnings=query.warnings,
        )
        return _respond(answers.document(meta, data, {"next": following}))

    def structure(self, request: Request, entry_id: str, who: Principal) -> Response:
        query = Query.read(request.query_params.multi_items(), 1, 1, single=True)
        with self.node.engine.connect() as connection:
            catalogue = self.catalogues.get(connection, who)
            fields = answers.fields_of(query.fields, catalogue, query.warnings)
            row = find_one(connection, who, catalogue, entry_id)
        meta = answers.meta(
            _representation(request),
            self.provider(request),
            returned=1,
            available=catalogue.total,
            warnings=query.warnings,
        )
        return _respond(answers.document(meta, answers.entry(row, fields)))

    def info(self, request: Request, who: Principal) -> Response:
        return self._plain(request, answers.info(self.base(request)))

    def entry_info(self, request: Request, entry: str, who: Principal) -> Response:
        if entry != "structures":
            raise NotFound(f"there is no entry type '{entry[:40]}'")
        with self.node.engine.connect() as connection:
            found = answers.property_infos(self.catalogues.get(connection, who))
        return self._plain(
            request,
            {
                "type": "info",
                "id": "structures",
                "description": "Structures with the values that were computed for them.",
                "formats": ["json"],
                "properties": found,
                "output_fields_by_format": {"json": list(found)},
            },
        )

    def links(self, request: Request, who: Principal) -> Response:
        title = self.node.settings.title.en or self.node.settings.id
        here = {
            "name": title,
            "description": f"matcompute node {self.node.settings.id}",
            "base_url": self.base(request),
            "homepage": str(request.base_url),
            "link_type": "root",
        }
        return self._plain(request, [{"type": "links", "id": "root", "attributes": here}])

    def _plain(self, request: Request, data: Any) -> Response:
        Query.read(request.query_params.multi_items(), 1, 1, single=True)
        count = len(data) if isinstance(data, list) else 1
        meta = answers.meta(_representation(request), self.provider(request), returned=count, available=count)
        return _respond(answers.document(meta, json.dumps(data, ensure_ascii=False)))


def _representation(request: Request) -> str:
    path = re.sub(r"^.*?/optimade(?:/v[0-9.]+)?", "", request.url.path)
    query = request.url.query
    return path + (f"?{query}" if query else "")


def _respond(content: bytes, status: int = 200) -> Response:
    # What is shown depends on who asks.
    return Response(
        content, status, media_type=_TYPE, headers={"Vary": "Authorization", "Cache-Control": "no-cache"}
    )
