"""Who may do what: every principal × standing × endpoint × method."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from matcompute.dataset import GRADES, TIERS
from matcompute.publish import keys
from matcompute.publish.receipt import sign_receipt
from matcompute.server import tokens
from matcompute.server.access import ANONYMOUS, SCOPES, Access, Principal, Products
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.tables import datasets, domains, files, versions

from .conftest import Releaser

#: What may be public is of the lowest grade: the other standings cannot come about.
STANDINGS = [(t, g) for t, g in itertools.product(TIERS, GRADES) if t != "public" or g == "general"]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DOMAINS = ("advanced-nonferrous-metals", "frontier-materials")
#: Address → methods that it takes. Every route of the pull protocol is in one of the three tables.
OF_DATASET = {
    "/datasets/{id}": ("GET",),
    "/datasets/{id}/versions/1/manifest": ("GET",),
    "/datasets/{id}/versions/1/manifest.sig": ("GET",),
    "/datasets/{id}/versions/1/files/data/entries.h5": ("GET", "HEAD"),
    "/datasets/{id}/versions/1/files/summary.parquet": ("GET", "HEAD"),
    "/blobs/sha256/{blob}": ("GET", "HEAD"),
}
FOR_ALL = {"/node": ("GET",), "/changes": ("GET",), "/datasets": ("GET",)}
SCOPED = {"/receipts": ("GET", "POST")}


def everyone() -> list[Principal]:
    people = [ANONYMOUS]
    people += [Principal(f"{t} {g}", t, g) for t, g in itertools.product(TIERS, GRADES)]
    # The highest clearance is nothing without the scope to read.
    people += [Principal(f"only {s}", TIERS[-1], GRADES[-1], frozenset({s})) for s in SCOPES if s != "read"]
    people.append(Principal("all scopes", TIERS[1], GRADES[1], frozenset(SCOPES)))
    # Tokens that are for some products only, of the highest clearance and of a lower one.
    one, domain = frozenset({identity(5), identity(97)}), frozenset({DOMAINS[1]})
    for name, tier, grade, products in (
        ("one product", TIERS[-1], GRADES[-1], Products(datasets=one)),
        ("one domain", TIERS[-1], GRADES[-1], Products(domains=domain)),
        ("both kinds", TIERS[2], GRADES[1], Products(one, domain)),
        ("product below", TIERS[1], GRADES[0], Products(datasets=one)),
    ):
        people.append(Principal(name, tier, grade, frozenset({"read", "receipts"}), None, products))
    return people


def token_of(node: Node, who: Principal) -> str:
    """Make the token of a principal."""
    products = who.products or Products()
    return tokens.create(
        node.engine,
        who.name,
        tier=who.tier,
        grade=who.grade,
        scopes=sorted(who.scopes),
        datasets=sorted(products.datasets),
        domains=sorted(products.domains),
    )


def may_see(who: Principal, tier: str, grade: str, dataset_id: str) -> bool:
    """The rule, in other words than those of the code."""
    if tier == "public" and grade == "general":
        return True
    if "read" not in who.scopes:
        return False
    for_it = who.products is None or dataset_id in who.products.datasets
    if not (for_it or (who.products is not None and domain_of(dataset_id) in who.products.domains)):
        return False
    return TIERS.index(tier) <= TIERS.index(who.tier) and GRADES.index(grade) <= GRADES.index(who.grade)


def identity(k: int) -> str:
    return f"00000000-0000-4000-8000-0000000000{k:02d}"


def domain_of(dataset_id: str) -> str:
    """Every other dataset is of another domain."""
    return DOMAINS[int(dataset_id[-2:]) % 2]


def test_matrix(release: Releaser, node: Node, enter: Callable[[Any], Any]) -> None:
    events = {}
    for k, (tier, grade) in enumerate(STANDINGS):
        events[tier, grade] = release(identity(k), 4, tier=tier, grade=grade, domain=domain_of(identity(k)))
    withdrawn = identity(98)
    release(withdrawn, 4)
    node.publication.withdraw(withdrawn, "x")
    client = enter(TestClient(create_app(node, follow_seconds=0)))  # one event loop for all requests
    with node.engine.connect() as connection:
        rows = connection.execute(select(files).where(files.c.path == "data/entries.h5")).all()
    blobs = {row.dataset_id: row.sha256 for row in rows}
    key = keys.generate(release.scratch / "receiver")
    cells = 0
    for who in everyone():
        headers = {}
        if who is not ANONYMOUS:
            headers["Authorization"] = f"Bearer {token_of(node, who)}"

        def status(method: str, path: str, headers: dict[str, str] = headers, **options: Any) -> int:
            answer = client.request(method, path, headers=headers, **options)
            if answer.status_code == 405:
                allowed = answer.headers["allow"].split(", ")
                assert method not in allowed
                assert "GET" in allowed
            if answer.status_code >= 400 and method != "HEAD":
                assert answer.headers["content-type"] == "application/problem+json", path
            return answer.status_code

        seen = {identity(k) for k, s in enumerate(STANDINGS) if may_see(who, *s, identity(k))}
        listed = {d["id"] for d in client.get("/datasets", headers=headers).json()["datasets"]}
        assert listed == seen, who
        feed = client.get("/changes", headers=headers).json()["changes"]
        assert {c["dataset_id"] for c in feed} == seen | {withdrawn}, who
        checked = {"seen": False, "hidden": False}
        for k, (tier, grade) in enumerate([*STANDINGS, ("public", "general")]):
            dataset_id = withdrawn if k == len(STANDINGS) else identity(k)
            here = dataset_id in seen
            # Refused methods are asked for at one dataset of each kind.
            kind = "seen" if here else "hidden"
            every = not checked[kind]
            checked[kind] = True
            for path, methods in OF_DATASET.items():
                url = path.format(id=dataset_id, blob=blobs[dataset_id])
                for method in METHODS if every else methods:
                    expected = (200 if here else 404) if method in methods else 405
                    assert status(method, url) == expected, (who, tier, grade, method, path)
                    cells += 1
            if dataset_id != withdrawn:
                digest = events[tier, grade].manifest_sha256
                facts = {"manifest_sha256": digest, "verdict": "accept", "receiver": who.name}
                receipt = sign_receipt(key, dataset_id=dataset_id, version=1, **facts).to_bytes()
                if who is ANONYMOUS:
                    expected = 401
                elif "receipts" not in who.scopes:
                    expected = 403
                else:
                    expected = 201 if here else 404
                # A body of another type is no receipt, whoever sends it.
                sent = {**headers, "Content-Type": "application/json"}
                assert status("POST", "/receipts", sent, content=receipt) == expected, (who, tier, grade)
                cells += 1
        for path, methods in FOR_ALL.items():
            for method in METHODS:
                assert status(method, path) == (200 if method in methods else 405), (who, method, path)
                cells += 1
        for method in METHODS:
            if method == "GET":
                expected = 401 if who is ANONYMOUS else 200 if "admin" in who.scopes else 403
            elif method == "POST":
                continue  # above
            else:
                expected = 405
            assert status(method, "/receipts") == expected, (who, method)
            cells += 1
    assert cells > 1500


def test_the_matrix_knows_every_route(node: Node) -> None:
    described = create_app(node, follow_seconds=0).openapi()["paths"]
    ours = {
        path: {method.upper() for method in operations}
        for path, operations in described.items()
        if any({"pull", "files", "receipts"} & set(o.get("tags", ())) for o in operations.values())
    }
    known: dict[str, set[str]] = {}
    for path, methods in {**OF_DATASET, **FOR_ALL, **SCOPED}.items():
        template = (
            path.replace("{id}", "{dataset_id}").replace("/1/", "/{version}/").replace("{blob}", "{digest}")
        )
        known[re.sub("files/.*", "files/{path}", template)] = set(methods)
    assert ours == known


@pytest.mark.parametrize("who", everyone(), ids=lambda p: p.name)
def test_sql_and_python_agree(node: Node, who: Principal) -> None:
    node.create_tables()
    standings = list(itertools.product(TIERS, GRADES, (False, True)))
    with node.engine.connect() as connection:
        for k, (tier, grade, withdrawn) in enumerate(standings):
            texts = dict.fromkeys(("title", "description", "node_class", "licence"), "x")
            texts["domain"] = domain_of(identity(k))
            connection.execute(domains.insert().values(dataset_id=identity(k), domain=texts["domain"]))
            numbers = {"version": 1, "seq": k, "entries": 0}
            connection.execute(
                datasets.insert().values(
                    id=identity(k),
                    tier=tier,
                    grade=grade,
                    withdrawn=withdrawn,
                    first_at="",
                    changed_at="",
                    summary={},
                    **texts,
                    **numbers,
                )
            )
        rows = connection.execute(select(datasets)).all()
        visible = set(connection.execute(select(datasets.c.id).where(Access.visible(who))).scalars())
        connection.rollback()
    assert visible == {row.id for row in rows if Access.allowed(who, row)}
    assert visible == {
        identity(k)
        for k, (tier, grade, withdrawn) in enumerate(standings)
        if not withdrawn and may_see(who, tier, grade, identity(k))
    }
    assert versions is not None
