"""Pages of the node: its own, the catalogue, campaigns, sign-in."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from matcompute.dataset import GRADES, TIERS
from matcompute.errors import MatcomputeError
from matcompute.server.access import Access, Caller, Principal
from matcompute.server.errors import ServerError, not_found
from matcompute.server.portal.catalogue import Catalogue, Query
from matcompute.server.portal.rendering import SECURITY, Renderer
from matcompute.server.portal.routes import page_router
from matcompute.server.portal.session import COOKIE
from matcompute.server.portal.view import element_places, format_number, format_units
from matcompute.server.portal.words import Words
from matcompute.server.tokens import find
from matcompute.times import utc_now, utc_text

if TYPE_CHECKING:
    from matcompute.server.node import Node

__all__ = ["router"]

#: Datasets of a page of the catalogue.
_PAGE = 20


def router(node: Node, renderer: Renderer, language: str) -> APIRouter:
    """Return the routes of one language."""
    routes = page_router(renderer, language)
    words = Words(language)

    @routes.get("/")
    def home(request: Request, who: Caller) -> HTMLResponse:
        with node.engine.connect() as connection:
            catalogue = Catalogue(connection, who)
            values: dict[str, Any] = {
                "totals": catalogue.totals(),
                "newest": catalogue.rows(Query(), 6),
                "domains": catalogue.domains(Query()),
            }
        return renderer.page(request, language, "node.html", here="home", **values)

    @routes.get("/datasets")
    def datasets(request: Request, who: Caller) -> HTMLResponse:
        query, problems = Query.parse(request.query_params, request.query_params.getlist("domain"))
        with node.engine.connect() as connection:
            catalogue = Catalogue(connection, who)
            rows = catalogue.rows(query, _PAGE + 1)
            properties = catalogue.properties()
            values: dict[str, Any] = {
                "count": catalogue.count(query),
                "domains": catalogue.domains(query),
                "elements": catalogue.elements(query),
            }
        more, rows = len(rows) > _PAGE, rows[:_PAGE]

        def toggle(symbol: str) -> str:
            kept = tuple(e for e in query.elements if e != symbol)
            return query.href(elements=kept if symbol in query.elements else (*query.elements, symbol))

        return renderer.page(
            request,
            language,
            "catalogue.html",
            here="datasets",
            query=query,
            rows=rows,
            properties=properties,
            places=element_places(),
            toggle=toggle,
            chips=_chips(words, query, properties),
            problems=[words(key, text=text) for key, text in problems],
            first_url=query.href() if query.before is not None else "",
            next_url=query.href(before=rows[-1]["seq"]) if more else "",
            **values,
        )

    @routes.get("/campaigns")
    def campaigns(request: Request, who: Caller) -> HTMLResponse:
        found = _campaigns(request, who)
        if request.query_params.get("part") == "list":
            text = renderer.text(request, language, "campaigns_list.html", campaigns=found)
            return HTMLResponse(text, headers=SECURITY)
        now = utc_now()[11:19] + " UTC"
        return renderer.page(request, language, "campaigns.html", here="campaigns", campaigns=found, now=now)

    @routes.get("/sign-in")
    def sign_in(request: Request, who: Caller) -> HTMLResponse:
        return renderer.page(request, language, "signin.html", failed=False)

    @routes.post("/sign-in")
    async def signed_in(request: Request) -> Any:
        # Another site must not sign a browser in, not even with a token of its own.
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise HTTPException(403)
        raw = await request.body()
        try:
            fields = parse_qs(raw[:4096].decode("ascii", "replace"), max_num_fields=5)
        except ValueError:
            fields = {}
        token = fields.get("token", [""])[0].strip()
        row = await run_in_threadpool(find, node.engine, token)
        if row is None:
            return renderer.page(request, language, "signin.html", status=401, failed=True)
        response = RedirectResponse(f"/{language}/", 303, SECURITY)
        response.set_cookie(
            COOKIE, token, httponly=True, samesite="strict", secure=_secure(node, request), path="/"
        )
        return response

    @routes.post("/sign-out")
    def sign_out() -> RedirectResponse:
        response = RedirectResponse(f"/{language}/", 303, SECURITY)
        response.delete_cookie(COOKIE, path="/")
        return response

    @routes.get("/{rest:path}")
    def nothing(rest: str, who: Caller) -> None:
        raise not_found()

    return routes


def _secure(node: Node, request: Request) -> bool:
    return request.url.scheme == "https" or node.settings.base_url.startswith("https:")


def _chips(words: Words, query: Query, properties: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what narrows the catalogue: a text, and the address without it."""
    chips = [(f"“{query.text}”", query.href(text=""))] if query.text else []
    for domain in query.domains:
        kept = tuple(d for d in query.domains if d != domain)
        chips.append((words.term("domain", domain), query.href(domains=kept)))
    chips += [
        (symbol, query.href(elements=tuple(e for e in query.elements if e != symbol)))
        for symbol in query.elements
    ]
    if query.column:
        known = next((p for p in properties if p["name"] == query.column), None)
        name = words.property(query.column, known["long_name"] if known else "")
        ends = [
            f"{sign} {format_number(end)}"
            for sign, end in (("≥", query.low), ("≤", query.high))
            if end is not None
        ]
        units = format_units(known["units"]) if known and ends else ""
        text = " ".join([name, ", ".join(ends), units]).strip()
        chips.append((text, replace(query, column="", low=None, high=None).href()))
    return chips


def _campaigns(request: Request, who: Principal) -> list[dict[str, Any]]:
    """Return the campaigns that somebody may see; one that does not say its grade and tier is for the highest."""
    source = getattr(request.app.state, "campaigns", None)
    found = []
    try:
        items = source() if source is not None else []
    except MatcomputeError as error:
        raise ServerError(error.message, hint=error.hint) from error
    for item in items:
        row = SimpleNamespace(
            grade=item.get("grade") or GRADES[-1], tier=item.get("tier") or TIERS[-1], withdrawn=False
        )
        if Access.allowed(who, row):
            times = {key: _iso(item.get(key)) for key in ("started", "finished")}
            found.append({**item, **times})
    return found


def _iso(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return utc_text(seconds)
