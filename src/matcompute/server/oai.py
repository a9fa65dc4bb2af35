"""The OAI-PMH 2.0 door, ``/oai``: one record a dataset; what went out of sight stays as a deleted record.

The ``oaipmh`` package speaks the protocol; here stand the queries. A list is fixed to the last event at its first page
and goes on by the number of the last event shown, so nothing is lost, doubled or reordered by what happens meanwhile: a
dataset that changes during a harvest has a new datestamp, and the next harvest brings it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import anyio
from fastapi import FastAPI, Request, Response
from oaipmh import common, error
from oaipmh.server import ServerBase, decodeResumptionToken, encodeResumptionToken
from sqlalchemy import Connection, Select, and_, func, literal, select

from matcompute.errors import MatcomputeError
from matcompute.server.access import Access, Caller, Principal
from matcompute.server.oai_formats import FORMATS, Described, clean, registry
from matcompute.server.tables import changes, datasets

if TYPE_CHECKING:
    from matcompute.server.node import Node

__all__ = ["mount", "records"]

#: Records of a page.
BATCH = 50
_STAMP = "%Y-%m-%dT%H:%M:%SZ"
_VERBS = {"Identify", "ListMetadataFormats", "ListSets", "ListIdentifiers", "ListRecords", "GetRecord"}
_TYPE = "text/xml; charset=utf-8"


def records(principal: Principal) -> Select[Any]:
    """Return the query of a principal's records: ``id``, ``seq``, ``at``, ``deleted`` and columns of the dataset.

    A record is what the principal can see, or could see once: then it is deleted, with the time of the event that took
    it out of sight; nothing that happened behind the curtain shows.
    """
    in_sight = and_(
        Access.cleared(principal, changes.c.tier, changes.c.grade, changes.c.dataset_id),
        changes.c.newest.is_not(None),
    )
    seen = (
        select(changes.c.dataset_id, func.max(changes.c.seq).label("seq"))
        .where(in_sight)
        .group_by(changes.c.dataset_id)
        .subquery("seen")
    )
    following = changes.alias("following")
    ended = (
        select(func.min(following.c.seq))
        .where(following.c.dataset_id == seen.c.dataset_id, following.c.seq > seen.c.seq)
        .scalar_subquery()
    )
    return (
        select(
            datasets.c.id,
            changes.c.seq,
            changes.c.at,
            (changes.c.seq != seen.c.seq).label("deleted"),
            datasets.c.domain,
            datasets.c.version,
            datasets.c.title,
            datasets.c.licence,
        )
        .join_from(seen, changes, changes.c.seq == func.coalesce(ended, seen.c.seq))
        .join(datasets, datasets.c.id == seen.c.dataset_id)
    )


class _Repository(common.ResumptionOAIPMH):
    """Answers of one request; the names of the methods are those of the verbs."""

    def __init__(self, node: Node, principal: Principal, url: str) -> None:
        self.node = node
        self.principal = principal
        self.url = url

    def handleVerb(self, verb: str, kw: dict[str, Any]) -> Any:
        """Answer a verb with checked arguments."""
        with self.node.engine.connect() as connection:
            return getattr(self, f"_{verb}")(connection, **kw)

    # -- verbs ------------------------------------------------------------------------------------------------

    def _Identify(self, connection: Connection) -> Any:
        settings = self.node.settings
        shown = records(self.principal).subquery()
        first = connection.execute(select(func.min(shown.c.at))).scalar()
        return common.Identify(
            repositoryName=clean(settings.title.en or settings.id),
            baseURL=self.url,
            protocolVersion="2.0",
            adminEmails=[clean(settings.contact or "unknown@invalid")],
            earliestDatestamp=datetime.strptime(first or "2020-01-01T00:00:00Z", _STAMP),
            deletedRecord="persistent",
            granularity="YYYY-MM-DDThh:mm:ssZ",
            compression=["identity"],
            toolkit_description=False,
        )

    def _ListMetadataFormats(self, connection: Connection, identifier: str | None = None) -> Any:
        if identifier is not None:
            self._find(connection, identifier)
        return [(prefix, schema, namespace) for prefix, (schema, namespace) in FORMATS.items()]

    def _ListSets(self, connection: Connection, resumptionToken: str | None = None) -> Any:
        if resumptionToken is not None:
            raise error.BadResumptionTokenError("the list of sets has one page")
        shown = records(self.principal).subquery()
        found = connection.execute(select(shown.c.domain).distinct().order_by(shown.c.domain)).scalars()
        sets = [(f"domain:{domain}", domain.replace("-", " "), None) for domain in found]
        return sets or [("domain", "Domains of materials", None)], None

    def _GetRecord(self, connection: Connection, metadataPrefix: str, identifier: str) -> Any:
        row = self._find(connection, identifier)
        _check_prefix(metadataPrefix)
        return self._header(row), self._metadata(row), None

    def _ListIdentifiers(self, connection: Connection, **kw: Any) -> Any:
        rows, token = self._page(connection, kw)
        return [self._header(row) for row in rows], token

    def _ListRecords(self, connection: Connection, **kw: Any) -> Any:
        rows, token = self._page(connection, kw)
        return [(self._header(row), self._metadata(row), None) for row in rows], token

    # -- lists ------------------------------------------------------------------------------------------------

    def _page(self, connection: Connection, kw: dict[str, Any]) -> tuple[list[Any], str | None]:
        resumed = "resumptionToken" in kw
        cursor = 0
        head = int(connection.execute(select(func.coalesce(func.max(changes.c.seq), 0))).scalar_one())
        if resumed:
            kw, cursor = _token(kw["resumptionToken"])
            if int(kw["snapshot"]) > head:
                raise error.BadResumptionTokenError("this token was not given out here")
        else:
            kw = kw | {"snapshot": str(head)}
        _check_prefix(kw["metadataPrefix"])
        from_, until, of = kw.get("from_"), kw.get("until"), kw.get("set")
        if from_ is not None and until is not None and from_ > until:
            raise error.BadArgumentError("from is later than until")
        query = records(self.principal).where(changes.c.seq > cursor, changes.c.seq <= int(kw["snapshot"]))
        if from_ is not None:
            query = query.where(changes.c.at >= from_.strftime(_STAMP))
        if until is not None:
            query = query.where(changes.c.at <= until.strftime(_STAMP))
        if of is not None and of != "domain":
            # A set that is not one has no records.
            query = query.where(literal("domain:").concat(datasets.c.domain) == of)
        rows = list(connection.execute(query.order_by(changes.c.seq).limit(BATCH + 1)).all())
        if len(rows) > BATCH:
            rows = rows[:BATCH]
            return rows, encodeResumptionToken(kw, rows[-1].seq)
        # The last page of a list with several pages bears an empty token.
        return rows, "" if resumed else None

    def _find(self, connection: Connection, identifier: str) -> Any:
        prefix, _, dataset_id = identifier.rpartition(":")
        row = None
        if prefix == f"oai:{self.node.settings.id}":
            row = connection.execute(records(self.principal).where(datasets.c.id == dataset_id)).first()
        if row is None:
            raise error.IdDoesNotExistError(f"there is no record {identifier[:200]}")
        return row

    def _header(self, row: Any) -> Any:
        identifier = f"oai:{self.node.settings.id}:{row.id}"
        return common.Header(
            None, identifier, datetime.strptime(row.at, _STAMP), [f"domain:{row.domain}"], bool(row.deleted)
        )

    def _metadata(self, row: Any) -> Described | None:
        if row.deleted:
            return None
        document = _datacite(self.node, row.id, row.version)
        extra = {
            "title": row.title,
            "domain": row.domain,
            "licence": row.licence,
            "version": str(row.version),
            "created": row.at,
            "publisher": self.node.settings.title.en or self.node.settings.id,
            "url": f"{self.url.removesuffix('/oai')}/datasets/{row.id}",
        }
        return Described(document, extra)


def _check_prefix(prefix: str) -> None:
    if prefix not in FORMATS:
        raise error.CannotDisseminateFormatError(f"the formats are {', '.join(FORMATS)}")


def _token(text: str) -> tuple[dict[str, Any], int]:
    try:
        kw, cursor = decodeResumptionToken(text)
        known = {"metadataPrefix", "set", "from_", "until", "snapshot"}
        right = kw.keys() <= known and {"metadataPrefix", "snapshot"} <= kw.keys()
        right = right and kw["snapshot"].isdecimal() and len(kw["snapshot"]) < 19 and 0 <= cursor < 1 << 62
    except error.ErrorBase:
        raise
    except Exception:  # the package lets through what its parsers raise
        right = False
    if not right:
        raise error.BadResumptionTokenError("this token was not given out here")
    return kw, cursor


@lru_cache(maxsize=2048)
def _datacite(node: Node, dataset_id: str, version: int) -> dict[str, Any]:
    """Return the DataCite document of a release, which never changes; empty if there is none."""
    try:
        found = json.loads(node.publication.store.read(dataset_id, version, "datacite.json"))
    except (MatcomputeError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    inner = found.get("data", {}).get("attributes", found)
    return inner if isinstance(inner, dict) else {}


def answer(node: Node, principal: Principal, url: str, pairs: Iterable[tuple[str, str]]) -> bytes:
    """Return the XML answer to the arguments of a request."""
    given = list(pairs)
    server = ServerBase(_Repository(node, principal, url), registry())
    names = [name for name, _ in given]
    problem: error.ErrorBase | None = None
    if len(set(names)) < len(names):
        problem = error.BadArgumentError("an argument is given twice")
    elif any(clean(text) != text for pair in given for text in pair):
        problem = error.BadArgumentError("an argument holds characters that XML does not know")
    elif dict(given).get("verb") not in _VERBS:
        problem = error.BadVerbError("the verb is missing or unknown")
    elif any(len(value) > 2000 for _, value in given):
        problem = error.BadArgumentError("an argument is too long")
    if problem is not None:
        return bytes(server.handleException({}, (type(problem), problem, None)))
    return bytes(server.handleRequest(dict(given)))


def mount(app: FastAPI, node: Node) -> None:
    """Add the door to an application."""
    said: dict[int | str, dict[str, Any]] = {
        200: {"description": "OAI-PMH answer; of wrong arguments, too", "content": {"text/xml": {}}}
    }
    names = ("verb", "metadataPrefix", "identifier", "from", "until", "set", "resumptionToken")
    # Nothing is required: the protocol wants wrong arguments answered with 200 and an error inside.
    arguments = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]

    def respond(request: Request, who: Principal, pairs: Iterable[tuple[str, str]]) -> Response:
        base = str(node.settings.base_url or request.base_url).rstrip("/")
        content = answer(node, who, f"{base}/oai", pairs)
        return Response(
            content, media_type=_TYPE, headers={"Vary": "Authorization", "Cache-Control": "no-cache"}
        )

    @app.get(
        "/oai",
        tags=["oai-pmh"],
        response_class=Response,
        responses=said,
        openapi_extra={"parameters": arguments},
    )
    def oai(request: Request, who: Caller) -> Response:
        """Answer an OAI-PMH request."""
        return respond(request, who, request.query_params.multi_items())

    form = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    body = {"requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": form}}}}

    @app.post("/oai", tags=["oai-pmh"], response_class=Response, responses=said, openapi_extra=body)
    async def oai_post(request: Request, who: Caller) -> Response:
        """Answer an OAI-PMH request whose arguments are a form."""
        body = (await request.body()).decode("utf-8", "replace")
        pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=100)
        return await anyio.to_thread.run_sync(respond, request, who, pairs)
