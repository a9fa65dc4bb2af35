"""Filters: the grammar, and the database's answers against plain Python, on SQLite and PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from optimade.filterparser import LarkParser
from starlette.testclient import TestClient

from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.optimade.grammar import parse
from matcompute.server.optimade.problems import BadRequest
from matcompute.server.settings import NodeSettings

from .conftest import FREE, IDS, Releaser, load
from .optimade_oracle import decide

URL = "/optimade/v1/structures"


# -- the grammar ----------------------------------------------------------------------------------------------

RIGHT = [
    "a=1", "a != 1", "3<=x", "x.y.z STARTS WITH \"a\\\"b\"", 'a STARTS "x"', "a ENDS WITH b", 'a CONTAINS "\\\\"',
    "x=TRUE", "x = -1.5e3", "a=1.", "a>.2E7", "a>+.1e8", "a HAS < 3", "a HAS ONLY <1,>2", "a LENGTH >= 3",
    "a LENGTH 3", "l:l HAS >=2:<=5", "l:m HAS ANY 1:2,3:4", "l:m:n HAS ONLY 1:\"x\":<2",
    'elements HAS ALL "Al","Ni" AND NOT (x<3 OR y IS KNOWN)', 'NOT a>b OR c=100 AND f="C2 H6"', "5<7",
    "((NOT (_exmpl_a>_exmpl_b)) AND _exmpl_x>0)", "a IS UNKNOWN",
]  # fmt: skip
WRONG = [
    "a = ", "a HAS", "(a=1", "a IS", "NOT NOT a=1", "a=1 AND", "A=1", "a==1", "a<>1", "a LENGTH 3.5",
    '"x" CONTAINS a', "a='x'", 'a="x', "a=1;DROP TABLE structures", "a=1 --", "a=0x10", "a HAS ALL", "a:b HAS",
    "1e3", "AND", "a..b=1", "a OR",
]  # fmt: skip


@pytest.mark.parametrize("text", RIGHT + WRONG)
def test_the_grammar_agrees_with_that_of_the_consortium(text: str) -> None:
    reads = True
    try:
        LarkParser().parse(text)
    except Exception:
        reads = False
    if text == "a OR":
        assert not reads
    try:
        parse(text)
    except BadRequest:
        assert not reads
    else:
        assert reads


def test_properties_alone_are_booleans() -> None:
    assert (
        str(parse("a AND NOT b"))
        == "And(parts=(Bare(name=Name(path='a')), Not(part=Bare(name=Name(path='b')))))"
    )


@pytest.mark.parametrize(
    "text",
    [
        "(" * 51 + "a=1" + ")" * 51,
        " OR ".join(["a=1"] * 401),
        "a HAS ANY " + ",".join(["1"] * 401),
        "a=" + "1" * 20_000,
        "a=" + "1" * 5000,
        'a="\x00"',
        "a:b HAS 1:2:3",
        "",
    ],
)
def test_what_is_too_much_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse(text)


# -- the answers ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """URL of a database of a PostgreSQL of its own."""
    server = load("benchmarks_postgres", Path(__file__).parents[2] / "benchmarks" / "_postgres.py")
    if why := server.missing():
        pytest.skip(why)
    with server.running(durable=False) as url:
        yield url


class Asked:
    """A server, and all that it holds."""

    def __init__(self, node: Node) -> None:
        self.client = TestClient(create_app(node, follow_seconds=0))
        self.entries: list[dict[str, Any]] = self.get(page_limit="1000")["data"]

    def get(self, **params: str) -> dict[str, Any]:
        answer = self.client.get(URL, params=params)
        assert answer.status_code == 200, (params, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    def ids(self, **params: str) -> list[str]:
        answer = self.get(page_limit="1000", **params)
        assert not answer["meta"]["more_data_available"]
        assert answer["meta"]["data_returned"] == len(answer["data"])
        return [entry["id"] for entry in answer["data"]]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    database = request.getfixturevalue("postgres") if request.param == "postgresql" else ""
    folder = tmp_path_factory.mktemp("filters")
    release = Releaser(folder / "publication", folder / "scratch")
    release(IDS[0], 25)
    release(IDS[1], 15, license="CC0-1.0")
    found = Asked(Node(release.publication, NodeSettings(id="test-node", limits=FREE, database=database)))
    assert len(found.entries) == 40
    return found


FILTERS = [
    "nelements=3", "nelements != 3", "3 < nelements", "nsites >= 5 AND nsites <= 8", "nsites > 2.5",
    "nsites = 1e999",
    "NOT nsites < 5", "nsites < 99999999999999999999999", "nelements = nsites", "nelements < nsites", "5 < 7",
    'elements HAS "Al"', 'NOT elements HAS "Al"', 'elements HAS ALL "Al","Ni"', 'elements HAS ANY "Cu","O"',
    'elements HAS ONLY "Al","Ni","Cu","Ti"', 'elements HAS "Xx"', 'elements HAS ALL "Al","Xx"',
    'elements HAS < "C"',
    'elements HAS ALL >"N",<"C"', 'elements HAS ONLY >"B"', "elements LENGTH 3", "elements LENGTH >= 4",
    'species.name HAS "Ti"', 'species.chemical_symbols HAS ALL "Ti","O"', "species LENGTH < 3",
    'species_at_sites HAS "O"', 'species_at_sites HAS ONLY "O","Al","Ni","Cu"', "species_at_sites LENGTH 4",
    "elements_ratios HAS 0.5", "elements_ratios HAS ALL >0.4,<0.2", "elements_ratios HAS ONLY <=0.5",
    "NOT elements_ratios HAS ANY >0.5,<0.1", 'elements:elements_ratios HAS "Al":>0.3',
    'elements:elements_ratios HAS ALL "Al":>0.2,"Ni":<0.3',
    'elements:elements_ratios HAS ANY "Al":>0.5,"O":>0.5',
    'elements:elements_ratios HAS ONLY "Al":>0,"Ni":>0,"Cu":<0.4',
    "elements_ratios:elements_ratios HAS >=0.2:<=0.3",
    'elements:elements_ratios HAS !="Al":>0.4', "dimension_types HAS 1", "dimension_types HAS ONLY 1",
    "dimension_types HAS 0", "dimension_types LENGTH 3", "lattice_vectors LENGTH 3",
    "lattice_vectors LENGTH 2",
    "cartesian_site_positions LENGTH > 6", "lattice_vectors IS KNOWN", "structure_features LENGTH 0",
    'structure_features HAS "disorder"', 'NOT structure_features HAS "disorder"',
    'chemical_formula_reduced STARTS "Al"',
    'chemical_formula_reduced ENDS WITH "Ti"', 'chemical_formula_reduced CONTAINS "Ni"',
    'chemical_formula_reduced CONTAINS "ni"', 'chemical_formula_reduced CONTAINS "%"',
    'chemical_formula_reduced CONTAINS ""',
    'chemical_formula_reduced ENDS ""', 'chemical_formula_anonymous = "ABC"',
    'chemical_formula_anonymous > "A2"',
    "chemical_formula_descriptive = chemical_formula_reduced",
    "chemical_formula_descriptive CONTAINS chemical_formula_reduced",
    'chemical_formula_descriptive >= "Al" AND NOT chemical_formula_reduced < "B"', 'type = "structures"',
    'type != "structures"', 'type STARTS "struct"', "chemical_formula_hill IS KNOWN",
    'chemical_formula_hill IS UNKNOWN AND NOT chemical_formula_hill = "X"',
    'NOT chemical_formula_hill CONTAINS "a"',
    "_matcompute_energy < 0", "NOT _matcompute_energy < 0", "_matcompute_energy IS KNOWN",
    "_matcompute_energy IS UNKNOWN", "_matcompute_energy > 0.5 OR _matcompute_energy < -0.5",
    "0 > _matcompute_energy",
    "_matcompute_n_steps >= 50", "_matcompute_n_steps = 50 OR _matcompute_n_steps != 50",
    "_matcompute_stress HAS < -1",
    "_matcompute_stress HAS ONLY > -1.5", "_matcompute_stress HAS ALL >1,<-1", "_matcompute_stress LENGTH 6",
    "_matcompute_stress IS UNKNOWN", "NOT _matcompute_stress HAS > 0", "NOT _matcompute_stress LENGTH 6",
    "_matcompute_stress:_matcompute_stress HAS >0:<0.5", '_matcompute_energy_status = "ok"',
    '_matcompute_energy_status != "ok"', '_matcompute_energy_status CONTAINS "conv"',
    '_matcompute_licence = "CC0-1.0"',
    "_matcompute_dataset_version = 1", f'_matcompute_dataset_id = "{IDS[0]}"',
    f'NOT _matcompute_dataset_id = "{IDS[0]}"',
    f'_matcompute_dataset_id STARTS "{IDS[1][:8]}"', f'id STARTS WITH "{IDS[1]}/"',
    f'NOT id STARTS WITH "{IDS[1]}/"',
    f'immutable_id STARTS "{IDS[0]}/1/"', 'immutable_id CONTAINS "/2/"', 'immutable_id < "2"',
    'last_modified > "2020-01-01T00:00:00Z"', 'last_modified < "2020-01-01T00:00:00Z"',
    "last_modified IS KNOWN",
    '"2020-01-01T00:00:00+08:00" <= last_modified', "_other_thing = 3", 'NOT _other_thing = "x"',
    "_other_thing IS UNKNOWN",
    "_other_thing LENGTH 3 OR nelements=2", "_other_thing HAS 3", '_other_a.b CONTAINS "x"',
    "_matcompute_energy < _matcompute_n_steps",
    'chemical_formula_reduced = "x\' OR 1=1 --"',
    'chemical_formula_reduced CONTAINS "\\"; DROP TABLE structures; --"',
]  # fmt: skip


@pytest.mark.parametrize("text", FILTERS)
def test_answers_are_those_of_plain_python(asked: Asked, text: str) -> None:
    tree = parse(text)
    assert asked.ids(filter=text) == [e["id"] for e in asked.entries if decide(tree, e) is True]


def test_filters_put_together_at_random(asked: Asked) -> None:
    rng = random.Random(5)

    def some(depth: int) -> str:
        if depth == 0:
            return rng.choice(FILTERS)
        parts = [f"({some(depth - 1)})" for _ in range(rng.randint(1, 3))]
        return rng.choice(["", "NOT "]) + rng.choice([" AND ", " OR ", " AND NOT "]).join(parts)

    seen = 0
    for _ in range(120):
        text = some(2)
        tree = parse(text)
        found = asked.ids(filter=text)
        assert found == [e["id"] for e in asked.entries if decide(tree, e) is True], text
        seen += 0 < len(found) < 40
    assert seen > 20


def test_single_entries_by_their_ids(asked: Asked) -> None:
    for entry in asked.entries[::13]:
        assert asked.ids(filter=f'id="{entry["id"]}"') == [entry["id"]]
        immutable = entry["attributes"]["immutable_id"]
        assert asked.ids(filter=f'immutable_id="{immutable}"') == [entry["id"]]
        assert asked.ids(filter=f'immutable_id="{immutable.replace("/1/", "/2/")}"') == []
        assert len(asked.ids(filter=f'id != "{entry["id"]}"')) == 39
        one = asked.client.get(f"{URL}/{entry['id']}")
        assert one.json()["data"] == entry
    for name in ("none", "%00", "%ff", "..%2f..%2fx", "x' OR '1'='1"):
        assert asked.client.get(f"{URL}/{IDS[0]}/{name}").status_code == 404
    many = " OR ".join(f'id="{e["id"]}"' for e in asked.entries for _ in range(3))
    assert len(asked.ids(filter=many)) == 40


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("crazyfield = 2", 400),
        ("_matcompute_none = 2", 400),
        ("nelements = ", 400),
        ('last_modified > "yesterday"', 400),
        ('last_modified > "2026-13-01T00:00:00Z"', 400),
        ('last_modified > "0001-01-01T00:00:00+23:59"', 200),
        ('last_modified > "2016-12-31T23:59:60Z"', 200),
        ('nelements = "3"', 501),
        ("chemical_formula_reduced = 3", 501),
        ("elements = 3", 501),
        ("nelements = TRUE", 501),
        ("nelements", 501),
        ('nelements HAS "x"', 501),
        ("nelements LENGTH 2", 501),
        ("elements HAS 3", 501),
        ("elements_ratios HAS nelements", 501),
        ("lattice_vectors HAS 3", 501),
        ('"a" = "b"', 501),
        ("nelements CONTAINS 3", 501),
        ("nelements < elements", 501),
        ("_matcompute_energy HAS 3", 501),
    ],
)
def test_wrong_filters_say_why(asked: Asked, text: str, status: int) -> None:
    answer = asked.client.get(URL, params={"filter": text})
    assert answer.status_code == status
    if status != 200:
        (error,) = answer.json()["errors"]
        assert error["status"] == str(status)
        assert error["detail"]
        assert answer.json()["meta"]["api_version"]


def test_pages_in_an_order_and_records(asked: Asked) -> None:
    for order in (
        "nsites,-_matcompute_energy",
        "-last_modified,chemical_formula_reduced",
        "_matcompute_energy_status",
    ):
        found, more = [], {"sort": order, "page_limit": "7"}
        while True:
            answer = asked.get(**more)
            found += [entry["id"] for entry in answer["data"]]
            if answer["links"]["next"] is None:
                break
            more["page_cursor"] = parse_qs(urlsplit(answer["links"]["next"]).query)["page_cursor"][0]
        assert found == asked.ids(sort=order)
        assert sorted(found) == sorted(e["id"] for e in asked.entries)
    for verb in ("ListRecords", "ListIdentifiers"):
        answer = asked.client.get(f"/oai?verb={verb}&metadataPrefix=oai_dc&from=2020-01-01&set=domain")
        assert answer.text.count("<header>") == 2
    assert asked.client.get("/oai?verb=ListSets").text.count("<setSpec>") == 1
    assert "earliestDatestamp" in asked.client.get("/oai?verb=Identify").text
