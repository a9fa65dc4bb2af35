"""Who may do what at the doors beside the pull protocol: every principal × standing × endpoint × method.

The pull protocol's own routes are in `test_access`; the last tests here see to it that every route of the application
is in a table of one of the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from matcompute.server.access import ANONYMOUS, Principal
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.optimade.routes import _VERSIONS
from matcompute.server.portal.rendering import STATIC, STATIC_URL
from matcompute.server.portal.words import LANGUAGES
from matcompute.server.settings import NodeSettings

from . import test_access
from .conftest import FREE, Releaser
from .test_access import METHODS, STANDINGS, domain_of, everyone, identity, may_see, token_of

GET, PAGE = ("GET",), ("GET", "HEAD")
OPTIMADE = tuple(f"/optimade{version}" for version in _VERSIONS)
ENTRIES = 4
HIDDEN = identity(98)  # withdrawn

#: Template of a route → addresses that stand for it, for a dataset that is asked for by name: 200 or 404.
PAGES_OF_DATASET = {
    "/datasets/{dataset_id}": ("/datasets/{id}",),
    "/datasets/{dataset_id}/versions/{version}": ("/datasets/{id}/versions/1",),
    "/datasets/{dataset_id}/versions/{version}/cite.{ending}": (
        "/datasets/{id}/versions/1/cite.bib",
        "/datasets/{id}/versions/1/cite.ris",
        "/datasets/{id}/versions/1/cite.txt",
    ),
    "/datasets/{dataset_id}/versions/{version}/plots/{kind}": (
        "/datasets/{id}/versions/1/plots/histogram?property=energy",
        "/datasets/{id}/versions/1/plots/pair?x=energy&y=energy",
    ),
    "/datasets/{dataset_id}/versions/{version}/entries": ("/datasets/{id}/versions/1/entries",),
    "/datasets/{dataset_id}/versions/{version}/entries/{entry}": (
        "/datasets/{id}/versions/1/entries/{entry}",
    ),
    "/datasets/{dataset_id}/versions/{version}/entries/{entry}/structure.json": (
        "/datasets/{id}/versions/1/entries/{entry}/structure.json",
    ),
}
#: Pages for all; what they list is looked at besides.
PAGES_FOR_ALL = {
    "/": (PAGE, 200),
    "/datasets": (PAGE, 200),
    "/campaigns": (PAGE, 200),
    "/sign-in": ((*PAGE, "POST"), 200),
    "/sign-out": (("POST",), 303),
    "/{rest}": (PAGE, 404),
}
#: Routes of OPTIMADE below each of its versions, with their answer to everybody.
OPTIMADE_FOR_ALL = {"/info": 200, "/info/{entry}": 200, "/links": 200, "/structures": 200}
#: Template → address, methods, answer: the same for everybody.
FIXED = {
    "/healthz": ("/healthz", GET, 200),
    "/openapi.json": ("/openapi.json", PAGE, 200),
    "/": ("/", GET, 302),
    "/optimade/versions": ("/optimade/versions", GET, 200),
    "/optimade/{rest}": ("/optimade/nothing", GET, 404),
    f"{STATIC_URL}/{{path}}": (f"{STATIC_URL}/portal.css", PAGE, 200),
}
LISTS = {"/oai": ("GET", "POST")}
SCOPED = {"/metrics": "metrics"}


@dataclass
class World:
    """One dataset of each standing and a withdrawn one, served."""

    node: Node
    client: TestClient
    entries: dict[str, str] = field(default_factory=dict)  # id of one entry of each dataset

    def datasets(self) -> Iterator[tuple[str, str, str]]:
        for k, (tier, grade) in enumerate(STANDINGS):
            yield identity(k), tier, grade

    def headers(self, who: Principal) -> dict[str, str]:
        if who is ANONYMOUS:
            return {}
        return {"Authorization": f"Bearer {token_of(self.node, who)}"}

    def seen(self, who: Principal) -> set[str]:
        return {name for name, tier, grade in self.datasets() if may_see(who, tier, grade, name)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("doors")
    release = Releaser(folder / "publication", folder / "scratch")
    for k, (tier, grade) in enumerate(STANDINGS):
        name = identity(k)
        release(name, ENTRIES, tier=tier, grade=grade, title=f"Set {name}", domain=domain_of(name))
    release(HIDDEN, ENTRIES, title=f"Set {HIDDEN}")
    node = Node(release.publication, NodeSettings(id="test-node", limits=FREE))
    # Entered: one event loop for all requests, not one for each.
    with TestClient(create_app(node, follow_seconds=0), follow_redirects=False) as client:
        made = World(node, client)
        made.entries[HIDDEN] = _entry_of(made, HIDDEN, {})
        highest = made.headers(Principal("all", "member-3", "core"))
        for name, _, _ in made.datasets():
            made.entries[name] = _entry_of(made, name, highest)
        # Seen once by everybody, and gone.
        release.publication.withdraw(HIDDEN, "x")
        yield made


def _entry_of(world: World, dataset_id: str, headers: dict[str, str]) -> str:
    page = world.client.get(f"/en/datasets/{dataset_id}/versions/1/entries", headers=headers).text
    found = re.search(r'/entries/([^"]+)"', page)
    assert found is not None
    return found[1]


def check(
    world: World, method: str, path: str, headers: dict[str, str], expected: int, **options: Any
) -> str:
    """Assert the status of one cell; return the answer's text."""
    answer = world.client.request(method, path, headers=headers, **options)
    assert answer.status_code == expected, (method, path, answer.text[:300])
    if expected == 405:
        assert method not in answer.headers["allow"].split(", "), path
    return answer.text


def _ids(text: str) -> set[str]:
    known = {identity(k) for k in range(len(STANDINGS))} | {HIDDEN}
    return known & set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text))


WHO = pytest.mark.parametrize("who", everyone(), ids=lambda p: p.name)


@WHO
def test_pages_of_datasets(world: World, who: Principal) -> None:
    headers, seen = world.headers(who), world.seen(who)
    every = {True: True, False: True}  # refused methods: at one dataset of each kind
    for dataset_id in world.entries:
        here = dataset_id in seen
        for language in LANGUAGES:
            for addresses in PAGES_OF_DATASET.values():
                for address in addresses:
                    path = f"/{language}" + address.format(id=dataset_id, entry=world.entries[dataset_id])
                    for method in METHODS if every[here] else PAGE:
                        if method == "HEAD" and language != "en" and not every[here]:
                            continue  # HEAD is GET without its body: shown in one language
                        expected = (200 if here else 404) if method in PAGE else 405
                        text = check(world, method, path, headers, expected)
                        # A page about what is out of sight says no more than the address itself.
                        assert here or f"Set {dataset_id}" not in text
        every[here] = False


@WHO
def test_pages_that_list(world: World, who: Principal) -> None:
    headers, seen = world.headers(who), world.seen(who)
    for language in LANGUAGES:
        for template, (methods, expected) in PAGES_FOR_ALL.items():
            path = f"/{language}" + template.replace("{rest}", "nothing")
            for method in METHODS:
                wanted = expected if method in methods else 405
                if template == "/sign-in" and method == "POST":
                    wanted = 401  # without a token in the form
                elif template == "/sign-out" and method in PAGE:
                    wanted = 404  # the route of every other address
                text = check(world, method, path, headers, wanted)
                if template == "/datasets" and method == "GET":
                    assert _ids(text) == seen
                elif method == "GET":
                    assert _ids(text) <= seen


@WHO
def test_optimade(world: World, who: Principal) -> None:
    headers, seen = world.headers(who), world.seen(who)
    for base in OPTIMADE:
        for template, expected in OPTIMADE_FOR_ALL.items():
            path = base + template.replace("{entry}", "structures")
            for method in METHODS:
                check(world, method, path, headers, expected if method in GET else 405)
        page = world.client.get(f"{base}/structures?page_limit=1000", headers=headers).json()
        assert {entry["id"].partition("/")[0] for entry in page["data"]} == seen
        assert len(page["data"]) == page["meta"]["data_returned"] == ENTRIES * len(seen)
        assert page["meta"]["data_available"] == ENTRIES * len(seen)
        assert not (_ids(str(page)) - seen)
    every = {True: True, False: True}
    for dataset_id, entry in world.entries.items():
        here = dataset_id in seen
        for base in OPTIMADE if every[here] else OPTIMADE[:1]:
            for method in METHODS if every[here] else GET:
                expected = (200 if here else 404) if method in GET else 405
                check(world, method, f"{base}/structures/{dataset_id}/{entry}", headers, expected)
        every[here] = False
        for said in (f'_matcompute_dataset_id="{dataset_id}"', f'id STARTS WITH "{dataset_id}"'):
            url = f"{OPTIMADE[0]}/structures"
            answer = world.client.get(url, params={"filter": said}, headers=headers).json()
            assert answer["meta"]["data_returned"] == (ENTRIES if here else 0), said
        # Not even by its absence.
        said = f'NOT _matcompute_dataset_id="{dataset_id}"'
        answer = world.client.get(url, params={"filter": said}, headers=headers).json()
        assert answer["meta"]["data_returned"] == ENTRIES * len(seen - {dataset_id})


@WHO
def test_oai(world: World, who: Principal) -> None:
    headers, seen = world.headers(who), world.seen(who)
    for method in METHODS:
        if method in LISTS["/oai"]:
            assert "badVerb" in check(world, method, "/oai", headers, 200)
        else:
            check(world, method, "/oai", headers, 405)

    def ask(method: str, **arguments: str) -> str:
        sent = {"params": arguments} if method == "GET" else {"data": arguments}
        return check(world, method, "/oai", headers, 200, **sent)

    for method in LISTS["/oai"]:
        for prefix in ("oai_dc", "datacite"):
            for verb in ("ListRecords", "ListIdentifiers"):
                text = ask(method, verb=verb, metadataPrefix=prefix)
                headers_of = re.findall(
                    r"<header( status=.deleted.)?>\s*<identifier>oai:test-node:(.*?)<", text
                )
                assert {i for deleted, i in headers_of if not deleted} == seen
                assert {i for deleted, i in headers_of if deleted} == {HIDDEN}
                assert _ids(text) == seen | {HIDDEN}
                assert f"Set {HIDDEN}" not in text
            for dataset_id in world.entries:
                asked = {"metadataPrefix": prefix, "identifier": f"oai:test-node:{dataset_id}"}
                text = ask(method, verb="GetRecord", **asked)
                if dataset_id in seen:
                    assert f"Set {dataset_id}" in text
                else:
                    assert f"Set {dataset_id}" not in text
                    wanted = 'status="deleted"' if dataset_id == HIDDEN else "idDoesNotExist"
                    assert wanted in text
        for dataset_id in world.entries:
            text = ask(method, verb="ListMetadataFormats", identifier=f"oai:test-node:{dataset_id}")
            assert ("idDoesNotExist" in text) == (dataset_id not in seen | {HIDDEN})
        assert "<repositoryName>" in ask(method, verb="Identify")
        assert "domain:advanced-nonferrous-metals" in ask(method, verb="ListSets")


@WHO
def test_fixed_and_scoped(world: World, who: Principal) -> None:
    headers = world.headers(who)
    for path, methods, expected in FIXED.values():
        for method in METHODS:
            check(world, method, path, headers, expected if method in methods else 405)
    for path, scope in SCOPED.items():
        for method in METHODS:
            expected = 405
            if method == "GET":
                expected = 401 if who is ANONYMOUS else 200 if scope in who.scopes else 403
            text = check(world, method, path, headers, expected)
            assert ("matcompute_datasets" in text) == (expected == 200)


@pytest.mark.parametrize("wrong", ["Bearer mct_0000000000000000_x", "Bearer ", "Basic eDp5", "x"])
def test_a_wrong_token_opens_nothing(world: World, wrong: str) -> None:
    """Nobody gets the public's answer by mistake."""
    dataset_id = identity(0)
    paths = [f"{base}/structures" for base in OPTIMADE] + ["/oai?verb=Identify", "/metrics", "/datasets"]
    for language in LANGUAGES:
        paths += [f"/{language}/datasets", f"/{language}/datasets/{dataset_id}/versions/1/entries"]
    for path in paths:
        check(world, "GET", path, {"Authorization": wrong}, 401)
    check(world, "POST", "/oai", {"Authorization": wrong}, 401, data={"verb": "Identify"})


# -- no door is forgotten -----------------------------------------------------------------------------------------


def routes_of(app: FastAPI) -> dict[str, set[str]]:
    """Return template → methods of all routes, those of nested routers and mounted applications included."""
    found: dict[str, set[str]] = {}
    for route in app.router.routes:
        nested = getattr(route, "effective_route_contexts", None)
        for one in nested() if nested is not None else [route]:
            template: Any = getattr(one, "path_format", None) or one.path
            assert isinstance(template, str)
            methods = getattr(one, "methods", None)
            # A mounted application takes what it likes: its table says what that is.
            found.setdefault(template, set()).update({"MOUNT"} if methods is None else methods)
    return found


def known() -> dict[str, set[str]]:
    """Return the same from the tables of the two matrices."""
    found: dict[str, set[str]] = {"/oai": set(LISTS["/oai"]), **{path: {"GET"} for path in SCOPED}}
    for path, methods in {**test_access.OF_DATASET, **test_access.FOR_ALL, **test_access.SCOPED}.items():
        template = path.replace("{id}", "{dataset_id}").replace("/1/", "/{version}/")
        template = template.replace("{blob}", "{digest}")
        found[re.sub("files/.*", "files/{path}", template)] = set(methods)
    for template, (_, fixed, _) in FIXED.items():
        found[template] = {"MOUNT"} if template.startswith(STATIC_URL) else set(fixed)
    for base in OPTIMADE:
        found |= {base + template: set(GET) for template in (*OPTIMADE_FOR_ALL, "/structures/{entry_id}")}
    for language in LANGUAGES:
        found |= {f"/{language}{template}": set(PAGE) for template in PAGES_OF_DATASET}
        found |= {f"/{language}{t}": set(methods) for t, (methods, _) in PAGES_FOR_ALL.items()}
    return found


def test_every_route_is_in_a_table(world: World) -> None:
    app = world.client.app
    assert isinstance(app, FastAPI)
    assert routes_of(app) == known()


def test_a_new_door_is_seen(world: World) -> None:
    """The test above can fail: a route at the top, in a nested router, or in a mounted application."""
    from fastapi import APIRouter
    from starlette.routing import Route

    app = create_app(world.node, follow_seconds=0)
    outer, inner = APIRouter(prefix="/outer"), APIRouter(prefix="/inner")
    inner.add_api_route("/new", lambda: None, methods=["DELETE"])
    outer.include_router(inner)
    app.include_router(outer)
    app.router.routes.append(Route("/plain", lambda request: None))
    app.mount("/other", FastAPI())
    new = routes_of(app).keys() - known().keys()
    assert new == {"/outer/inner/new", "/plain", "/other/{path}"}
    assert (STATIC / "portal.css").is_file()
    assert isinstance(STATIC, Path)
