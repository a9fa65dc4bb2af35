"""The portal's pages: what they show, to whom, in which language, and that they are safe."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.portal import rendering
from matcompute.server.portal.session import COOKIE
from matcompute.server.portal.words import texts

from .conftest import IDS, Releaser

TEMPLATES = Path(rendering.__file__).parent / "templates"


class Page(HTMLParser):
    """What the tests look at in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """Return the attributes of all elements with a tag and some attributes."""
        return [a for t, a in self.tags if t == tag and wanted.items() <= a.items()]


@pytest.fixture
def client(node: Node) -> Callable[..., TestClient]:
    """``client()`` → client of the node's application as it stands; ``client(token)`` → with that token."""

    def make(token: str | None = None) -> TestClient:
        made = TestClient(create_app(node, follow_seconds=0), base_url="http://node.example")
        if token is not None:
            made.headers["authorization"] = f"Bearer {token}"
        return made

    return make


def member(node: Node, **terms: Any) -> str:
    node.create_tables()
    return tokens.create(node.engine, "member", **({"tier": "member-3"} | terms))


def test_languages_say_the_same() -> None:
    zh, en = texts("zh"), texts("en")
    assert zh.keys() == en.keys()
    place = re.compile(r"\{(\w+)\}")
    for key in zh:
        assert zh[key].strip(), key
        assert en[key].strip(), key
        assert set(place.findall(zh[key])) == set(place.findall(en[key])), key
        assert not re.search(r"[\u4e00-\u9fff]", en[key]), key
    used = {k for path in TEMPLATES.glob("*.html") for k in re.findall(r"\bt\('([\w.-]+)'", path.read_text())}
    assert used - {k for k in used if k.endswith(".")} <= zh.keys()


def test_the_language_follows_the_browser(client: Callable[..., TestClient]) -> None:
    for accept, path in (
        ("en-GB,en;q=0.9", "/en/"),
        ("zh-CN,en;q=0.5", "/zh/"),
        ("fr", "/zh/"),
        ("", "/zh/"),
    ):
        answer = client().get("/", headers={"accept-language": accept}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (302, path)
        assert "Accept-Language" in answer.headers["vary"]


def test_pages_are_whole_and_safe(release: Any, client: Callable[..., TestClient]) -> None:
    release(IDS[0])
    release(IDS[0])
    browser = client()
    base = f"datasets/{IDS[0]}/versions/2"
    first = re.search(r'/entries/([^"]+)"', browser.get(f"/en/{base}/entries").text)
    assert first is not None
    paths = ["", "datasets", "campaigns", "sign-in", f"datasets/{IDS[0]}", base, f"{base}/entries"]
    paths += [f"{base}/entries/{first[1]}?trace=energy", "nowhere"]
    for path in paths:
        for language, tag in (("zh", "zh-Hans"), ("en", "en")):
            answer = browser.get(f"/{language}/{path}")
            assert answer.status_code == (404 if path == "nowhere" else 200), path
            head = browser.head(f"/{language}/{path}")
            assert (head.status_code, head.content) == (answer.status_code, b"")
            page = Page(answer.text)
            assert page.all("html") == [{"lang": tag}]
            alternates = {a["hreflang"]: a["href"] for a in page.all("link", rel="alternate")}
            assert alternates == {
                "zh-Hans": f"/zh/{path}",
                "en": f"/en/{path}",
                "x-default": f"/zh/{path}",
            }
            assert page.all("a", **{"class": "skip", "href": "#main"})
            assert len(page.all("main", id="main")) == len(page.all("h1")) == 1
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "private, no-cache"
            # No script, style or handler inside the page, nothing from elsewhere.
            assert all(a.get("src", "").startswith("/portal/static/") for a in page.all("script"))
            assert not page.all("style")
            for _, attributes in page.tags:
                assert not any(name == "style" or name.startswith("on") for name in attributes)
                for name in ("src", "href", "action"):
                    where = attributes.get(name, "/")
                    assert not where.startswith("//")
                    assert "://" not in where or where.startswith("http://node.example/")
            labels = {a["for"] for a in page.all("label") if "for" in a}
            for field in page.all("input"):
                assert "id" not in field or field["id"] in labels
    for sheet in page.all("link", rel="stylesheet"):
        answer = browser.get(sheet["href"])
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]


def test_every_link_inside_a_page_leads_somewhere(release: Any, client: Callable[..., TestClient]) -> None:
    release(IDS[0])
    browser, seen = client(), set()
    todo = ["/en/", "/zh/"]
    while todo:
        path = todo.pop()
        if path in seen or len(seen) > 120:
            continue
        seen.add(path)
        answer = browser.get(path)
        assert answer.status_code == 200, path
        if "html" in answer.headers["content-type"]:
            links = [a["href"] for t, a in Page(answer.text).tags if t in ("a", "link") and "href" in a]
            links = [link.removeprefix("http://node.example") for link in links]
            # OPTIMADE and OAI-PMH have tests of their own.
            todo += [
                str(answer.url.copy_with(fragment=None).join(link).raw_path, "ascii")
                for link in links
                if not link.startswith(("#", "/optimade", "/oai"))
            ]
    assert f"/datasets/{IDS[0]}/versions/1/files/data/entries.h5" in seen


def test_only_what_one_may_see(release: Any, node: Node, client: Callable[..., TestClient]) -> None:
    release(IDS[0], title="Open alloys")
    release(IDS[1], title="Member alloys", tier="member-2")
    release(IDS[2], title="Important alloys", tier="member-1", grade="important")
    secret = {
        "public": None,
        "member": member(node),
        "low": member(node, tier="member-1"),
        "graded": member(node, tier="member-1", grade="important"),
    }
    sees = {
        "public": {"Open"},
        "member": {"Open", "Member"},
        "low": {"Open"},
        "graded": {"Open", "Important"},
    }
    for who, token in secret.items():
        browser = client(token)
        for path in ("/en/", "/en/datasets", "/en/datasets?q=alloys", "/en/datasets?elements=Ni"):
            text = browser.get(path).text
            found = {word for word in ("Open", "Member", "Important") if f">{word} alloys<" in text}
            assert found == sees[who], (who, path)
        for dataset, word in zip(IDS, ("Open", "Member", "Important")):
            wanted = 200 if word in sees[who] else 404
            base = f"/en/datasets/{dataset}/versions/1"
            for path in (f"/en/datasets/{dataset}", base, f"{base}/entries", f"{base}/cite.bib"):
                answer = browser.get(path)
                assert answer.status_code == wanted, (who, path)
                assert wanted == 200 or f"{word} alloys" not in answer.text
            assert browser.get(f"{base}/plots/histogram?property=energy").status_code == wanted
        assert browser.get("/en/").text.count("<dd>1</dd>") >= (1 if len(sees[who]) == 1 else 0)


def test_a_regrade_holds_at_once(release: Any, node: Node, client: Callable[..., TestClient]) -> None:
    release(IDS[0], title="Was open")
    browser = client()
    base = f"/en/datasets/{IDS[0]}/versions/1"
    answer = browser.get(f"{base}/plots/histogram?property=energy")
    tag = {"if-none-match": answer.headers["etag"]}
    assert browser.get(f"{base}/plots/histogram?property=energy", headers=tag).status_code == 304
    node.publication.regrade(IDS[0], "now for members", tier="member-1")
    assert browser.get(f"{base}/plots/histogram?property=energy", headers=tag).status_code == 404
    assert browser.get(base).status_code == 404
    assert "Was open" not in browser.get("/en/datasets").text


def test_a_withdrawn_version_is_gone(release: Any, node: Node, client: Callable[..., TestClient]) -> None:
    release(IDS[0])
    release(IDS[0])
    node.publication.withdraw(IDS[0], "wrong units", version=2)
    browser = client()
    assert browser.get(f"/en/datasets/{IDS[0]}/versions/2").status_code == 404
    page = browser.get(f"/en/datasets/{IDS[0]}").text
    assert "Version 2 · withdrawn" in page
    assert f"/en/datasets/{IDS[0]}/versions/1/entries" in page


def test_sign_in_opens_pages_and_downloads(
    release: Any, node: Node, client: Callable[..., TestClient]
) -> None:
    release(IDS[0], title="Member alloys", tier="member-1")
    token = member(node)
    browser = client()
    wrong = browser.post("/en/sign-in", data={"token": token[:-2]})
    assert wrong.status_code == 401
    assert 'role="alert"' in wrong.text
    assert "set-cookie" not in wrong.headers
    other = {"sec-fetch-site": "cross-site"}
    assert browser.post("/en/sign-in", data={"token": token}, headers=other).status_code == 403
    for body in ("token=" + "x" * 100_000, "&".join(f"a{k}=1" for k in range(100)), "%ff%00", ""):
        kind = {"content-type": "application/x-www-form-urlencoded"}
        assert browser.post("/en/sign-in", content=body, headers=kind).status_code == 401
    done = browser.post("/en/sign-in", data={"token": token}, follow_redirects=False)
    assert done.status_code == 303
    for part in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert part in done.headers["set-cookie"]
    assert "Member alloys" in browser.get("/en/datasets").text
    file = f"/datasets/{IDS[0]}/versions/1/files/summary.parquet"
    assert browser.get(file).content[:4] == b"PAR1"
    # The cookie is for reading only.
    assert browser.post("/receipts", json={}).status_code == 401
    tokens.revoke(node.engine, token.split("_")[1])
    assert "Member alloys" not in browser.get("/en/datasets").text
    assert browser.get(file).status_code == 404
    browser.post("/en/sign-out", follow_redirects=False)
    assert COOKIE not in browser.cookies


def test_the_cookie_is_secure_behind_https(node: Node, client: Callable[..., TestClient]) -> None:
    token = member(node)
    browser = client()
    browser.base_url = "https://node.example"
    done = browser.post("/en/sign-in", data={"token": token}, follow_redirects=False)
    assert "Secure" in done.headers["set-cookie"]


def test_facets_narrow(release: Any, client: Callable[..., TestClient]) -> None:
    release(IDS[0], title="First set", domain="advanced-steel")
    release(IDS[1], title="Second set", domain="frontier-materials")
    browser = client()

    def found(query: str) -> set[str]:
        text = browser.get(f"/en/datasets?{query}").text
        return {word for word in ("First", "Second") if f">{word} set<" in text}

    assert found("") == {"First", "Second"}
    assert found("q=FIRST") == {"First"}
    assert found("q=%25") == set()  # not a wildcard
    assert found("domain=advanced-steel") == {"First"}
    assert found("domain=advanced-steel&domain=frontier-materials") == {"First", "Second"}
    assert found("elements=Ni+Al") == {"First", "Second"}
    assert found("elements=Au") == set()
    assert found("property=n_steps&min=0&max=99") == {"First", "Second"}
    assert found("property=n_steps&min=1000") == set()
    assert found("property=nothing") == set()
    wrong = browser.get("/en/datasets?elements=Xy&min=abc").text
    assert "“Xy” is not an element" in wrong
    assert "“abc” is not a number" in wrong
    assert "Remove filter: Advanced steel" in browser.get("/en/datasets?domain=advanced-steel").text


def test_pages_of_the_catalogue_lose_nothing(
    release: Any, client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matcompute.server.portal.pages._PAGE", 2)
    for k in range(5):
        release(IDS[k], 5, title=f"Set {k}")
    browser, path, seen = client(), "/en/datasets?domain=advanced-nonferrous-metals", []
    for _ in range(3):
        text = browser.get(path).text
        seen += re.findall(r">Set (\d)<", text)
        following = Page(text).all("a", rel="next")
        path = "/en/datasets" + following[0]["href"] if following else ""
    assert seen == ["4", "3", "2", "1", "0"]
    assert not path


def test_what_is_sent_is_never_markup(release: Any, client: Callable[..., TestClient]) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    release(IDS[0], title=evil, description=evil)
    browser = client()
    base = f"/en/datasets/{IDS[0]}/versions/1"
    for path in ("/en/", "/en/datasets", f"{base}", f"{base}/entries", f"{base}/cite.txt"):
        answer = browser.get(path)
        if "html" in answer.headers["content-type"]:
            page = Page(answer.text)
            assert not [a for a in page.all("script") if "src" not in a]
            assert not page.all("img", src="x")
    for path in ("datasets", f"datasets/{IDS[0]}/versions/1/entries"):
        for name in ("q", "elements", "property", "min", "max", "before", "after", "domain"):
            assert browser.get(f"/en/{path}", params={name: "\x00\ud7ff' OR 1=1 --"}).status_code == 200
            answer = browser.get(f"/en/{path}", params={name: evil})
            assert answer.status_code == 200
            assert "<img src=x" not in answer.text
    for path in (
        "/en/%2e%2e/%2e%2e/etc/passwd",
        "/portal/static/../pages.py",
        "/portal/static/%2e%2e/pages.py",
    ):
        assert browser.get(path).status_code == 404


def test_entries_are_found(release: Any, client: Callable[..., TestClient]) -> None:
    release(IDS[0], 120)
    browser, base = client(), f"/en/datasets/{IDS[0]}/versions/1/entries"
    ids, path = [], base
    while path:
        text = browser.get(path).text
        ids += re.findall(r"<code>([^<]+)</code></td>", text)
        following = Page(text).all("a", rel="next")
        path = base + following[0]["href"] if following else ""
    assert len(ids) == len(set(ids)) == 120
    one = browser.get(base, params={"q": ids[77]}).text
    assert re.findall(r"<code>([^<]+)</code></td>", one) == [ids[77]]
    some = browser.get(base, params={"property": "n_steps", "min": "50", "elements": "Ni"}).text
    shown = re.findall(r'<th scope="row"><a [^>]*>(.*?)</a>', some)
    assert shown
    assert all("Ni" in formula for formula in shown)


def test_a_value_is_traced(release: Any, client: Callable[..., TestClient]) -> None:
    release(IDS[0], 10)
    browser, base = client(), f"/zh/datasets/{IDS[0]}/versions/1/entries"
    entry = re.findall(r"<code>([^<]+)</code></td>", browser.get(base).text)[0]
    text = browser.get(f"{base}/{entry}?trace=energy").text
    kinds = re.findall(r'<p class="kind">(.*?)</p>', text)
    assert kinds[0] == "数值"
    assert kinds[-1] == "来源"
    assert "structures.extxyz" in text
    structure = browser.get(f"{base}/{entry}/structure.json").json()
    assert len(structure["symbols"]) == len(structure["positions"])
    assert {s["symbol"] for s in structure["species"]} == set(structure["symbols"])
    assert browser.get(f"{base}/{entry}?trace=nothing").status_code == 404
    assert browser.get(f"{base}/nobody").status_code == 404


def test_citations(release: Any, client: Callable[..., TestClient]) -> None:
    release(IDS[0], title="Alloys & {oxides}")
    browser, base = client(), f"/en/datasets/{IDS[0]}/versions/1/cite."
    bib, ris, txt = (browser.get(base + ending) for ending in ("bib", "ris", "txt"))
    assert r"title = {{Alloys \& \{oxides\}}}" in bib.text
    assert ris.text.splitlines()[0] == "TY  - DATA"
    assert ris.text.endswith("ER  - \r\n")
    assert "Alloys & {oxides} (version 1) [Data set]" in txt.text
    assert "attachment" in bib.headers["content-disposition"]
    assert browser.get(base + "exe").status_code == 404


def test_campaigns_are_shown_to_those_who_may_read_their_data(
    node: Node, client: Callable[..., TestClient]
) -> None:
    stage = {
        "name": "relax",
        "is_gate": False,
        "state": "open",
        "n_total": 4,
        "n_done": 3,
        "n_ok": 2,
        "n_failed": 1,
    }
    common = {
        "state": "running",
        "n_materials": 4,
        "core_hours": 0.5,
        "started": 1.7e9,
        "finished": None,
        "stages": [stage],
    }
    found = [
        {**common, "name": "a", "title": "Open <b>", "grade": "general", "tier": "public"},
        {**common, "name": "b", "title": "Members", "grade": "general", "tier": "member-1"},
        {**common, "name": "c", "title": "Unsaid"},
    ]
    public, other = client(), client(member(node))
    for browser in (public, other):
        browser.app.state.campaigns = lambda: found  # type: ignore[attr-defined]
    text = public.get("/en/campaigns").text
    assert "Open &lt;b&gt;" in text
    assert "Members" not in text
    assert "Unsaid" not in text
    text = other.get("/en/campaigns?part=list").text
    assert "Members" in text
    assert "Unsaid" not in text
    assert Page(text).all("progress", max="4", value="3")


def test_plots_are_the_numbers_of_the_files(
    release: Any, node: Node, client: Callable[..., TestClient]
) -> None:
    from matcompute.dataset import Dataset

    release(IDS[0], 60)
    browser, base = client(), f"/en/datasets/{IDS[0]}/versions/1/plots"
    path = node.publication.store.path(IDS[0], 1, "data/entries.h5")
    with Dataset(Path(path)) as dataset:
        energy, status = dataset.column("energy"), dataset.status("energy")
        steps, ids = dataset.column("n_steps"), dataset.ids
    kept = (status == 1) | (status == 2)
    bars = browser.get(f"{base}/histogram?property=energy").json()
    assert bars["count"] == sum(bars["counts"]) == kept.sum()
    assert bars["min"] == energy[kept].min()
    pair = browser.get(f"{base}/pair?x=energy&y=n_steps").json()
    assert pair["x"] == energy[kept].tolist()
    assert pair["y"] == steps[kept].tolist()
    assert pair["id"] == ids[kept].tolist()
    for query in ("histogram?property=id", "histogram", "pair?x=energy&y=x", "hull?system=Al-Ni", "pie?x=1"):
        assert browser.get(f"{base}/{query}").status_code == 404
    json.dumps(bars, allow_nan=False)


def test_a_store_that_is_no_disk(tmp_path: Path) -> None:
    release = Releaser(tmp_path / "publication", tmp_path / "scratch", f"memory://{tmp_path.name}")
    release(IDS[0], 30)
    browser = TestClient(create_app(Node(release.publication), follow_seconds=0))
    text = browser.get("/en/datasets?elements=Ni&property=n_steps&min=0").text
    assert ">Dataset 1<" in text
    base = f"/en/datasets/{IDS[0]}/versions/1"
    for path in (base, f"{base}/entries", f"{base}/plots/histogram?property=energy"):
        assert browser.get(path).status_code == 200, path
