"""Pages of a release: the dataset, its entries, one entry; the numbers behind its plots; how to cite it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from sqlalchemy import select
from starlette.responses import Response

from matcompute.dataset.errors import DatasetError, UnknownNameError
from matcompute.publish.errors import PublishError
from matcompute.publish.manifest import Manifest
from matcompute.publish.store import Store
from matcompute.server.access import Access, Caller, Principal
from matcompute.server.errors import not_found
from matcompute.server.portal.catalogue import parse_elements, parse_number
from matcompute.server.portal.cite import FORMATS, Citation
from matcompute.server.portal.contents import Contents
from matcompute.server.portal.origin import authors_of
from matcompute.server.portal.plots import histogram
from matcompute.server.portal.rendering import SECURITY, Renderer
from matcompute.server.portal.routes import page_router
from matcompute.server.portal.rows import Filter
from matcompute.server.portal.species import species_of
from matcompute.server.portal.tables import summaries
from matcompute.server.portal.view import format_units
from matcompute.server.portal.words import Words
from matcompute.server.tables import datasets, versions

if TYPE_CHECKING:
    from matcompute.server.node import Node

__all__ = ["router"]

#: Entries of a page.
_PAGE = 50
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_EMPTY: dict[str, Any] = {
    "sites": 0,
    "chemical_systems": None,
    "elements": [],
    "properties": [],
    "selections": [],
    "methods": [],
    "processes": [],
    "sources": [],
}


@dataclass(frozen=True)
class _Release:
    """A version that somebody may see."""

    dataset: dict[str, Any]
    version: dict[str, Any]
    versions: list[dict[str, Any]]
    manifest: Manifest
    summary: dict[str, Any]
    contents: Contents


def router(node: Node, renderer: Renderer, language: str) -> APIRouter:
    """Return the routes of one language."""
    routes = page_router(renderer, language)
    words = Words(language)

    def find(who: Principal, dataset_id: str, version: int | None) -> _Release:
        if not _UUID.fullmatch(dataset_id):
            raise not_found()
        with node.engine.connect() as connection:
            row = (
                connection.execute(select(datasets).where(datasets.c.id == dataset_id, Access.visible(who)))
                .mappings()
                .first()
            )
            if row is None:
                raise not_found()
            columns = [c for c in versions.c if c.name != "signature"]
            of = select(*columns).where(versions.c.dataset_id == dataset_id)
            found = [dict(r) for r in connection.execute(of.order_by(versions.c.version.desc())).mappings()]
            wanted = row["version"] if version is None else version
            one = next((v for v in found if v["version"] == wanted and not v["withdrawn"]), None)
            if one is None:
                raise not_found()
            summary = connection.execute(
                select(summaries.c.summary).where(
                    summaries.c.dataset_id == dataset_id, summaries.c.version == wanted
                )
            ).scalar()
        contents = _contents(node.publication.store, one["manifest"])
        manifest = contents.manifest
        known = _EMPTY | manifest.counts.model_dump() | (summary or {})
        return _Release(dict(row), one, found, manifest, known, contents)

    def base(release: _Release) -> str:
        return f"/{language}/datasets/{release.dataset['id']}/versions/{release.version['version']}"

    def site(request: Request) -> str:
        return node.settings.base_url or str(request.base_url).rstrip("/")

    def citation(request: Request, release: _Release) -> Citation:
        manifest = release.manifest
        names, doi, cstr = authors_of(node.publication.store, manifest)
        publisher = words.bilingual(node.settings.organisation.model_dump()) or manifest.node
        return Citation(
            dataset_id=manifest.dataset_id,
            version=manifest.version,
            title=manifest.title,
            created=manifest.created,
            publisher=publisher,
            url=f"{site(request)}{base(release)}",
            authors=tuple(n for n in names if n != manifest.node),
            doi=doi,
            cstr=cstr,
        )

    def show(request: Request, release: _Release) -> HTMLResponse:
        dataset, manifest = release.dataset, release.manifest
        numbers = [c for c in _numbers(release.contents) if c["name"] != "n_steps"]
        names = [c["name"] for c in numbers]
        files = sorted(manifest.files, key=lambda f: (_ROLES.get(f.role, 9), f.path))
        url = f"/datasets/{dataset['id']}/versions/{manifest.version}/files/"
        return renderer.page(
            request,
            language,
            "dataset.html",
            here="datasets",
            d=dataset | {"title": manifest.title, "licence": manifest.licence, "domain": manifest.domain},
            v=release.version,
            newest=manifest.version == dataset["version"],
            versions=release.versions,
            summary=release.summary,
            elements=release.summary["elements"],
            numbers=numbers,
            pair=_pair(names),
            systems=_systems(release.contents),
            files=files,
            size=release.version["size"],
            file_url=lambda path: url + quote(path),
            descriptions=[(f.path, f.media_type) for f in files if f.role == "metadata"],
            base=base(release),
            page_url=f"{site(request)}{base(release)}",
            node_url=site(request),
            citation=citation(request, release).to_text(),
        )

    @routes.get("/datasets/{dataset_id}")
    def newest(request: Request, who: Caller, dataset_id: str) -> HTMLResponse:
        return show(request, find(who, dataset_id, None))

    @routes.get("/datasets/{dataset_id}/versions/{version}")
    def one(request: Request, who: Caller, dataset_id: str, version: int) -> HTMLResponse:
        return show(request, find(who, dataset_id, version))

    @routes.get("/datasets/{dataset_id}/versions/{version}/cite.{ending}")
    def cite(request: Request, who: Caller, dataset_id: str, version: int, ending: str) -> Response:
        if ending not in FORMATS:
            raise not_found()
        text = citation(request, find(who, dataset_id, version)).render(ending)
        name = f'attachment; filename="{dataset_id}-v{version}.{ending}"'
        headers = SECURITY | {"Content-Disposition": name}
        return PlainTextResponse(text, headers=headers, media_type=FORMATS[ending])

    @routes.get("/datasets/{dataset_id}/versions/{version}/plots/{kind}")
    def plot(request: Request, who: Caller, dataset_id: str, version: int, kind: str) -> Response:
        release = find(who, dataset_id, version)
        params = request.query_params
        keys = {"histogram": ("property",), "pair": ("x", "y"), "hull": ("system",)}.get(kind)
        if keys is None:
            raise not_found()
        chosen = tuple(params.get(key, "")[:128] for key in keys)
        # A version never changes: its digest and the question are the answer's tag.
        tag = hashlib.sha256("\n".join([release.contents.sha256, language, kind, *chosen]).encode())
        headers = SECURITY | {"ETag": f'"{tag.hexdigest()[:32]}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        units = {c["name"]: c["units"] for c in _numbers(release.contents)}
        try:
            data = _plot(release.contents, kind, chosen)
        except UnknownNameError as error:
            raise not_found() from error
        column = release.contents.hull_column() or "" if kind == "hull" else ""
        shown = (*chosen, column) if kind == "hull" else chosen
        data["labels"] = [
            words.property(n) + (f" ({format_units(units[n])})" if format_units(units.get(n, "")) else "")
            for n in shown
        ]
        return JSONResponse(data, headers=headers)

    @routes.get("/datasets/{dataset_id}/versions/{version}/entries")
    def entries(request: Request, who: Caller, dataset_id: str, version: int) -> HTMLResponse:
        release = find(who, dataset_id, version)
        params = request.query_params
        numbers = _numbers(release.contents)
        where, problems = _filter(params, {c["name"] for c in numbers})
        text = params.get("after", "")
        after = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
        page = release.contents.page(after, _PAGE, where)
        kept = [(k, v) for k, v in params.multi_items() if k != "after" and v]
        return renderer.page(
            request,
            language,
            "entries.html",
            here="datasets",
            d=release.dataset | {"title": release.manifest.title},
            base=base(release),
            where=where,
            low_text=params.get("min", "")[:30],
            high_text=params.get("max", "")[:30],
            numbers=numbers,
            shown=release.contents.shown(),
            rows=page.rows,
            problems=[words(key, text=text) for key, text in problems],
            first_url="?" + urlencode(kept) if after >= 0 else "",
            next_url="?" + urlencode([*kept, ("after", str(page.next))]) if page.next is not None else "",
        )

    @routes.get("/datasets/{dataset_id}/versions/{version}/entries/{entry}/structure.json")
    def structure(who: Caller, dataset_id: str, version: int, entry: str) -> Response:
        found = _entry(find(who, dataset_id, version), entry)
        data = found["structure"] | {"species": species_of(found["structure"]["symbols"])}
        return JSONResponse(data, headers=SECURITY)

    @routes.get("/datasets/{dataset_id}/versions/{version}/entries/{entry}")
    def one_entry(request: Request, who: Caller, dataset_id: str, version: int, entry: str) -> HTMLResponse:
        release = find(who, dataset_id, version)
        found = _entry(release, entry)
        name = request.query_params.get("trace", "")[:128]
        steps: list[dict[str, Any]] = []
        if name:
            try:
                steps = release.contents.trace(entry, name)
            except UnknownNameError as error:
                raise not_found() from error
        return renderer.page(
            request,
            language,
            "entry.html",
            here="datasets",
            d=release.dataset | {"title": release.manifest.title},
            base=base(release),
            e=found,
            species=species_of(found["structure"]["symbols"]),
            traced=name,
            steps=steps,
        )

    return routes


_ROLES = {"data": 0, "summary": 1, "structures": 2, "provenance": 3, "metadata": 4}


def _entry(release: _Release, entry: str) -> dict[str, Any]:
    try:
        return release.contents.entry(entry)
    except DatasetError as error:
        raise not_found() from error


def _plot(contents: Contents, kind: str, chosen: tuple[str, ...]) -> dict[str, Any]:
    if kind == "histogram":
        return histogram(contents.values(chosen[0]))
    if kind == "pair":
        return contents.pair(chosen[0], chosen[1])
    found, unknown = parse_elements(chosen[0])
    if unknown or len(found) not in (2, 3):
        raise UnknownNameError("a system is two elements or three")
    return contents.hull(sorted(found))


def _filter(params: Any, known: set[str]) -> tuple[Filter, list[tuple[str, str]]]:
    symbols, unknown = parse_elements(params.get("elements", ""))
    problems = [("problem.element", text) for text in unknown]
    ends: list[float | None] = []
    for key in ("min", "max"):
        try:
            ends.append(parse_number(params.get(key, "")))
        except ValueError:
            problems.append(("problem.number", params[key][:30]))
            ends.append(None)
    column = params.get("property", "")[:128]
    if column and column not in known:
        problems.append(("problem.property", column))
        column = ""
    if not column and any(end is not None for end in ends):
        problems.append(("problem.range", ""))
    return Filter(params.get("q", "").strip()[:100], symbols, column, *ends), problems


def _pair(names: list[str]) -> tuple[int, int]:
    """Return the two columns that a plot of pairs shows first: what is usually looked at, else the first two."""
    bases = [n.rpartition("__")[2] for n in names]
    for x, y in (("volume_per_atom", "bulk_modulus"), ("equilibrium_volume", "bulk_modulus")):
        if x in bases and y in bases:
            return bases.index(x), bases.index(y)
    return (0, 1)


@lru_cache(maxsize=256)
def _contents(store: Store, manifest: bytes) -> Contents:
    return Contents(store, Manifest.from_bytes(manifest))


@lru_cache(maxsize=256)
def _systems_of(contents: Contents) -> list[tuple[str, int]]:
    return contents.systems() if contents.hull_column() else []


def _numbers(contents: Contents) -> list[dict[str, Any]]:
    try:
        return contents.numbers()
    except (PublishError, OSError):
        return []  # a release without its table: the page shows what else there is


def _systems(contents: Contents) -> list[tuple[str, int]]:
    try:
        return _systems_of(contents)
    except (PublishError, OSError):
        return []
