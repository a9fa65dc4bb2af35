"""Pages, fields, times and who sees what, on the OPTIMADE door."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from optimade.models import EntryInfoResponse, InfoResponse, StructureResponseMany
from sqlalchemy import select
from starlette.testclient import TestClient

from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.errors import ServerError
from matcompute.server.node import Node
from matcompute.server.optimade import listing
from matcompute.server.optimade.tables import bodies, properties, sets, structures
from matcompute.server.settings import NodeSettings

from .conftest import FREE, IDS, Releaser, Served

BASE = "/optimade/v1"
URL = f"{BASE}/structures"


class Door:
    """A client of a node's OPTIMADE door."""

    def __init__(self, node: Node, token: str | None = None) -> None:
        self.client = TestClient(create_app(node, follow_seconds=0))
        self.token: str | None = token

    def get(self, path: str = URL, **params: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return self.client.get(path, params=params or None, headers=headers)

    def page(self, **params: Any) -> dict[str, Any]:
        answer = self.get(**params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ids(self, **params: Any) -> list[str]:
        return [entry["id"] for entry in self.page(**{"page_limit": 1000} | params)["data"]]

    def count(self, **params: Any) -> int:
        return len(self.ids(**params))

    def walk(self, **params: Any) -> list[str]:
        """Follow links.next from the first page to the last."""
        found, answer = [], self.page(**params)
        while True:
            found += [entry["id"] for entry in answer["data"]]
            following = answer["links"]["next"]
            assert answer["meta"]["more_data_available"] == (following is not None)
            if following is None:
                return found
            parts = urlsplit(following)
            assert parts.path == URL
            answer = self.page(**{k: v[0] for k, v in parse_qs(parts.query).items()})


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    """A door over two public datasets, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("pages")
    release = Releaser(folder / "publication", folder / "scratch")
    release(IDS[0], 20)
    release(IDS[1], 15)
    return Door(Node(release.publication, NodeSettings(id="test-node", limits=FREE)))


def test_pages_hold_every_entry_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = door.page(page_limit=1000)["data"]
    every = [e["id"] for e in entries]
    assert len(set(every)) == 35
    for runs in (16, 0):  # range after range, and in one query
        monkeypatch.setattr(listing, "_RUNS", runs)
        for limit in (1, 7, 35, 36):
            assert door.walk(page_limit=limit) == every
        some = door.walk(page_limit=3, filter="nelements > 3", response_fields="nelements")
        assert some == [e["id"] for e in entries if e["attributes"]["nelements"] > 3]
    assert door.ids(page_limit=5, page_offset=30) == every[30:]
    assert [e["id"] for e in door.page(page_limit=10, page_number=3)["data"]] == every[20:30]
    cursor = parse_qs(urlsplit(door.page(page_limit=10)["links"]["next"]).query)["page_cursor"][0]
    assert door.ids(page_after=cursor) == every[10:]


@pytest.mark.parametrize(
    "order",
    [
        "nsites",
        "-nsites,chemical_formula_reduced",
        "_matcompute_energy",
        "-_matcompute_energy",
        "last_modified",
        "_matcompute_energy_status,-nelements",
        "-last_modified,nsites",
    ],
)
def test_pages_in_an_order(door: Door, order: str) -> None:
    entries = door.page(page_limit=1000)["data"]
    expected = list(entries)
    for name in reversed(order.split(",")):
        down, name = name.startswith("-"), name.removeprefix("-")
        known = [e for e in expected if e["attributes"][name] is not None]
        unknown = [e for e in expected if e["attributes"][name] is None]
        # Python's sort keeps the order of equals, reversed or not; what is unknown comes last.
        known.sort(key=lambda e: e["attributes"][name], reverse=down)
        expected = known + unknown
    assert door.walk(sort=order, page_limit=4) == [e["id"] for e in expected]
    assert door.walk(sort=order, page_limit=4, filter="nsites<9") == [
        e["id"] for e in expected if e["attributes"]["nsites"] < 9
    ]


def test_counts(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = door.page(page_limit=3)["meta"]
    assert (meta["data_available"], meta["data_returned"], meta["more_data_available"]) == (35, 35, True)
    few = door.page(page_limit=3, filter="nsites >= 1")
    assert few["meta"]["data_returned"] == 35
    monkeypatch.setattr(listing, "COUNTED", 20)
    # A number that would take a search of everything is not said; a wrong one neither.
    assert "data_returned" not in door.page(page_limit=3, filter="nsites >= 1")["meta"]


def test_response_fields(door: Door) -> None:
    (entry,) = door.page(page_limit=1, response_fields="nsites,_matcompute_energy,chemical_formula_hill")[
        "data"
    ]
    assert set(entry["attributes"]) == {"nsites", "_matcompute_energy", "chemical_formula_hill"}
    assert entry["attributes"]["chemical_formula_hill"] is None
    (entry,) = door.page(page_limit=1, response_fields="last_modified")["data"]
    assert set(entry["attributes"]) == {"last_modified"}
    answer = door.page(page_limit=1, response_fields="_matcompute_nothing,_other_x")
    assert len(answer["meta"]["warnings"]) == 2
    assert door.get(response_fields="nothing").status_code == 400


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"page_limit": "1001"}, 403),
        ({"page_limit": "0"}, 400),
        ({"page_limit": "x"}, 400),
        ({"page_offset": "-1"}, 400),
        ({"page_above": "x"}, 400),
        ({"page_cursor": "x"}, 400),
        ({"page_cursor": base64.b64encode(b'["",["x"],null]').decode()}, 400),
        ({"page_cursor": base64.b64encode(b'["",[1.5],null]').decode()}, 400),
        ({"page_cursor": base64.b64encode(b'["nsites",[1,2],null]').decode()}, 400),
        ({"page_cursor": base64.b64encode(json.dumps(["", [1 << 70], None]).encode()).decode()}, 400),
        ({"page_cursor": base64.b64encode(b'["",[1],-5]').decode()}, 400),
        ({"page_cursor": base64.b64encode(b"[" * 5000).decode()}, 400),
        ({"sort": "elements"}, 400),
        ({"sort": "nothing"}, 400),
        ({"sort": "nsites;DROP TABLE structures"}, 400),
        ({"sort": "_other_x"}, 200),
        ({"response_format": "xml"}, 400),
        ({"api_hint": "v2"}, 553),
        ({"api_hint": "x"}, 400),
        ({"api_hint": "v1.2"}, 200),
        ({"nothing": "x"}, 400),
        ({"_matcompute_x": "x"}, 400),
        ({"_other_x": "x"}, 200),
        ({"include": "references"}, 200),
        ({"include": "x"}, 400),
        ({"filter": 'id="\ud83d\ude00"'.encode("utf-16", "surrogatepass").decode("utf-16")}, 200),
    ],
)  # fmt: skip
def test_parameters(door: Door, params: dict[str, str], status: int) -> None:
    assert door.get(**params).status_code == status


def test_other_paths(door: Door) -> None:
    assert door.get("/optimade/versions").text == "version\n1\n"
    assert door.get(f"{BASE}/versions").status_code == 404
    assert door.get("/optimade/v2/structures").status_code == 553
    assert door.get("/optimade/x").status_code == 404
    assert door.get(f"{BASE}/info/references").status_code == 404
    for version in ("/v1", "/v1.2", "/v1.2.0", ""):
        assert door.get(f"/optimade{version}/info").status_code == 200
    InfoResponse.model_validate(door.get(f"{BASE}/info").json())
    EntryInfoResponse.model_validate(door.get(f"{BASE}/info/structures").json())
    StructureResponseMany.model_validate(door.get(URL).json())


def test_definitions_of_provider_properties(door: Door) -> None:
    found = door.get(f"{BASE}/info/structures").json()["data"]["properties"]
    assert found["_matcompute_energy"]["type"] == "float"
    assert found["_matcompute_energy"]["unit"] == "eV"
    assert found["_matcompute_energy"]["sortable"]
    assert found["_matcompute_stress"]["type"] == "list"
    assert not found["_matcompute_stress"]["sortable"]
    shown = door.page(page_limit=1)["data"][0]["attributes"]
    assert {name for name in shown if name.startswith("_")} == {
        name for name in found if name.startswith("_")
    }


# -- times ----------------------------------------------------------------------------------------------------


def test_whoever_asks_for_what_changed_misses_nothing(release: Releaser, node: Node) -> None:
    release(IDS[0], 10, seed=1)
    door = Door(node)
    first = {e["id"]: e["attributes"]["last_modified"] for e in door.page()["data"]}
    newest = max(first.values())
    assert door.count(filter=f'last_modified > "{newest}"') == 0
    assert door.count(filter=f'last_modified >= "{newest}"') == 10
    # The entries were computed before the first visit; they are new to the visitor all the same.
    release(IDS[1], 5)
    assert door.count(filter=f'last_modified > "{newest}"') == 0  # not loaded yet
    node.sync()
    found = door.ids(filter=f'last_modified > "{newest}"')
    assert len(found) == 5
    assert all(name.startswith(IDS[1]) for name in found)
    # A version that repeats entries and adds others: only the others have changed.
    newest = max(e["attributes"]["last_modified"] for e in door.page()["data"])
    release(IDS[0], 12, seed=1)
    node.sync()
    entries = {e["id"]: e["attributes"] for e in door.page()["data"] if e["id"].startswith(IDS[0])}
    changed = set(door.ids(filter=f'last_modified > "{newest}"'))
    assert len(entries) == 12
    same = {name for name in entries if name in first and name not in changed}
    assert all(entries[name]["last_modified"] == first[name] for name in same)
    assert entries.keys() - first.keys() <= changed
    assert {a["_matcompute_dataset_version"] for a in entries.values()} == {2}


def test_a_dataset_that_comes_into_sight_is_new(release: Releaser, node: Node) -> None:
    release(IDS[0], 4)
    release(IDS[1], 6, tier="member-1")
    door = Door(node)
    member = tokens.create(node.engine, "member", tier="member-1")
    before = max(e["attributes"]["last_modified"] for e in door.page()["data"])
    release.publication.events.regrade(IDS[1], "free", grade=None, tier="public")
    later = door.page(filter=f'last_modified > "{before}"', sort="last_modified", page_limit=4)
    assert later["meta"]["data_returned"] == 6
    assert all(e["attributes"]["last_modified"] > before for e in later["data"])
    # The member knew them all along.
    door.token = member
    assert door.count() == 10


# -- versions -------------------------------------------------------------------------------------------------


def test_the_newest_version_is_served_and_its_withdrawal_brings_the_one_before(
    release: Releaser, node: Node
) -> None:
    release(IDS[0], 3)
    door = Door(node)
    release(IDS[0], 5)
    assert door.count() == 3  # until the second is loaded
    node.sync()
    assert door.count() == 5
    release(IDS[0], 7)
    node.sync()
    release.publication.events.withdraw(IDS[0], 3, "wrong")
    assert door.count() == 5
    assert {e["attributes"]["_matcompute_dataset_version"] for e in door.page()["data"]} == {2}
    release.publication.events.withdraw(IDS[0], None, "wrong")
    assert door.count() == 0
    node.sync()
    with node.engine.connect() as connection:
        assert len(connection.execute(select(sets)).all()) == 2


def test_an_interrupted_load_is_done_again(
    release: Releaser, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matcompute.server.optimade import load

    release(IDS[0], 9)
    door = Door(node)
    monkeypatch.setattr(load, "_BATCH", 4)
    release(IDS[0], 13)
    node.refresh()
    with node.engine.connect() as connection:
        steps = load.load_structures(connection, node, IDS[0], 2)
        for _ in range(2):
            with connection.begin():
                next(steps)
    assert door.count() == 9
    node.sync()
    assert door.count() == 13
    with node.engine.connect() as connection:
        keys = connection.execute(select(structures.c.key)).scalars().all()
        assert len(keys) == 22
        assert sorted(connection.execute(select(bodies.c.key)).scalars()) == sorted(keys)
        assert connection.execute(select(sets.c.settled)).scalars().all() == [True, True]
        assert not connection.execute(select(structures).where(structures.c.last_modified.is_(None))).all()


def test_two_processes_that_load_the_same_do_not_mix(
    release: Releaser, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matcompute.server.optimade import load

    monkeypatch.setattr(load, "_BATCH", 4)
    door = Door(node)
    release(IDS[0], 13)
    node.refresh()
    with node.engine.connect() as connection:
        steps = load.load_structures(connection, node, IDS[0], 1)
        with connection.begin():
            next(steps)
        node.sync()
        with connection.begin(), pytest.raises(ServerError, match="another process"):
            next(steps)
    assert door.count() == 13
    with node.engine.connect() as connection:
        assert len(connection.execute(select(structures.c.key)).all()) == 13


def test_rebuild(release: Releaser, node: Node) -> None:
    release(IDS[0], 9)
    door = Door(node)
    node.rebuild()
    assert door.count() == 9
    with node.engine.connect() as connection:
        assert len(connection.execute(select(structures.c.key)).all()) == 9
        assert len({row.no for row in connection.execute(select(properties))}) == 1


# -- who sees what --------------------------------------------------------------------------------------------

CLEARANCES = [("public", "general"), ("member-1", "general"), ("member-1", "important"), ("member-3", "core")]
#: Dataset number → tier, grade.
HELD = {
    0: ("public", "general"),
    1: ("member-1", "general"),
    2: ("member-2", "important"),
    3: ("member-3", "core"),
}
SEEN = {CLEARANCES[0]: {0}, CLEARANCES[1]: {0, 1}, CLEARANCES[2]: {0, 1}, CLEARANCES[3]: {0, 1, 2, 3}}


def test_every_question_is_answered_from_what_one_may_see(release: Releaser, node: Node) -> None:
    for k, (tier, grade) in HELD.items():
        release(IDS[k], 4, tier=tier, grade=grade)
    door = Door(node)
    every = tokens.create(node.engine, "all", tier="member-3", grade="core")
    door.token = every
    entries = {k: [i for i in door.ids() if i.startswith(IDS[k])] for k in HELD}
    assert all(len(ids) == 4 for ids in entries.values())
    for clearance in CLEARANCES:
        seen = SEEN[clearance]
        door.token = tokens.create(node.engine, "x", tier=clearance[0], grade=clearance[1])
        if clearance == CLEARANCES[0]:
            door.token = None
        shown = sorted(i for k in seen for i in entries[k])
        assert sorted(door.ids()) == shown
        assert sorted(door.walk(page_limit=3)) == shown
        assert sorted(door.walk(page_limit=3, sort="-nsites")) == shown
        assert sorted(door.ids(filter="NOT nsites = 0")) == shown
        assert sorted(door.ids(filter='elements HAS "Al" OR NOT elements HAS "Al"')) == shown
        assert sorted(door.ids(filter='immutable_id CONTAINS "/1/"')) == shown
        assert door.page()["meta"]["data_available"] == len(shown)
        for k in HELD:
            answer = door.get(f"{URL}/{entries[k][0]}")
            assert answer.status_code == (200 if k in seen else 404)
            assert door.count(filter=f'id = "{entries[k][0]}"') == (k in seen)
            assert door.count(filter=f'_matcompute_dataset_id = "{IDS[k]}"') == (4 if k in seen else 0)
            if k not in seen:
                nothing = door.get(f"{URL}/{IDS[8]}/x")
                errors = [a.json()["errors"] for a in (answer, nothing)]
                assert errors[0] == errors[1]


def test_names_of_hidden_properties_are_unknown(release: Releaser, node: Node) -> None:
    release(IDS[0], 4, tier="member-1")
    door = Door(node)
    assert "_matcompute_energy" not in door.get(f"{BASE}/info/structures").json()["data"]["properties"]
    assert door.get(filter="_matcompute_energy < 0").status_code == 400
    assert door.get(filter="_matcompute_nothing < 0").status_code == 400


def test_a_regrade_holds_at_once_for_pages_that_are_open(release: Releaser, node: Node) -> None:
    release(IDS[0], 20)
    release(IDS[1], 15)
    door = Door(node)
    answer = door.page(page_limit=10)
    cursor = parse_qs(urlsplit(answer["links"]["next"]).query)["page_cursor"][0]
    release.publication.events.regrade(IDS[0], "secret", grade="core", tier=None)
    rest = door.ids(page_cursor=cursor)
    assert len(rest) == 15
    assert all(i.startswith(IDS[1]) for i in rest)
    assert door.get(f"{URL}/{answer['data'][0]['id']}").status_code == 404


def test_wrong_tokens_are_told(door: Door) -> None:
    door.token = "nothing"
    assert door.get().status_code == 401


def test_over_http(release: Releaser, node: Node, serve: Callable[..., Served]) -> None:
    """Through everything that stands around the door: a page, its next link, an error."""
    import httpx

    release(IDS[0], 5)
    served = serve(node)
    answer = httpx.get(f"{served.url}{URL}?page_limit=3")
    assert answer.headers["content-type"] == "application/vnd.api+json"
    assert answer.headers["vary"].lower().startswith("authorization")
    following = httpx.get(answer.json()["links"]["next"]).json()
    assert len(following["data"]) == 2
    assert httpx.get(f"{served.url}{URL}?filter=x").status_code == 400
