"""The portal in a real browser: plots, structure viewer, keyboard, both schemes, no word to anybody else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from matcompute.publish.build import build
from matcompute.publish.terms import terms_of
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.settings import NodeSettings

from .conftest import IDS, LIMITS, Releaser, Served
from .portal_data import write_alloys

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

#: Seconds for anything in the browser: far more than it takes, so that a busy machine does not matter.
PATIENCE = 60
NPM = Path(__file__).parent / "npm"
#: Bytes that h5wasm asks for at once.
_PART = 1 << 20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a dataset of alloys, and one of many random structures."""
    folder = tmp_path_factory.mktemp("portal")
    release = Releaser(folder / "publication", folder / "scratch")
    made = folder / "alloys"
    made.mkdir()
    write_alloys(made / "alloys.h5", ("Al", "Cu", "Ni"), dataset_id=IDS[0])
    build([made / "alloys.h5"], terms_of([made / "alloys.h5"], "node-1"), made / "out")
    release.publication.release(made / "out", limits=LIMITS)
    release(IDS[1], 2800, title="Many structures")
    node = Node(release.publication, NodeSettings(id="test-node"))
    served = Served(node, create_app(node, follow_seconds=0))
    served.start()
    yield served
    served.stop()


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Callable[..., Chrome]]:
    """``chromium(dark=…, script=…)``: a headless Chromium with an empty profile."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("chromium and chromium-driver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    opened = []

    def start(*, dark: bool = False, script: bool = True, width: int = 1280) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-dev-shm-usage",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            f"user-data-dir={tmp_path / f'profile{len(opened)}'}",
            f"window-size={width},1000",
        ):
            options.add_argument(f"--{flag}")
        if not script:
            options.add_experimental_option(
                "prefs", {"profile.managed_default_content_settings.javascript": 2}
            )
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        opened.append(driver)
        driver.set_page_load_timeout(PATIENCE)
        driver.set_script_timeout(PATIENCE)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        return driver

    yield start
    for driver in opened:
        driver.quit()


def until(driver: Chrome, expression: str) -> Any:
    """Wait for a JavaScript expression to become true and return its value."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, PATIENCE, 0.1).until(lambda d: d.execute_script(f"return {expression}"))


def quiet(driver: Chrome, url: str) -> None:
    """The pages raised no error, broke no rule of the policy, and asked nobody else for anything."""
    assert [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"] == []
    asked = set()
    for line in driver.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    assert asked
    assert {a for a in asked if not a.startswith((url, "data:", "chrome:", "about:"))} == set()


def press(driver: Chrome, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


@pytest.mark.apt
def test_plots_by_mouse_and_keyboard(site: Served, chromium: Callable[..., Chrome]) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    driver = chromium()
    driver.get(f"{site.url}/en/datasets/{IDS[0]}")
    for figure in driver.find_elements(By.CSS_SELECTOR, "figure.plot"):
        driver.execute_script("arguments[0].scrollIntoView()", figure)
    until(driver, "document.querySelectorAll('figure.plot[data-ready]').length === 3")
    hull = "document.querySelector('[data-plot=hull]')"
    systems = Select(driver.find_element(By.NAME, "system"))
    assert {o.get_attribute("value") for o in systems.options} == {"Al-Cu", "Al-Ni", "Cu-Ni", "Al-Cu-Ni"}
    # Three elements: the elements, twelve binaries and three ternaries in a triangle; the most stable one first.
    systems.select_by_value("Al-Cu-Ni")
    until(driver, f"{hull}.dataset.ready === '2'")
    assert driver.execute_script(f"return {hull}.querySelectorAll('tbody tr').length") == 18
    corners = driver.execute_script(
        f"return [...{hull}.querySelectorAll('.u-over span')].map((e) => e.textContent)"
    )
    assert corners == ["Al", "Cu", "Ni"]
    driver.execute_script(f"{hull}.querySelector('.canvas').focus()")
    press(driver, Keys.HOME)
    said = driver.execute_script(f"return {hull}.querySelector('.readout').textContent")
    assert said.endswith("Energy above the hull (eV/atom): 0")
    press(driver, Keys.END)
    said = driver.execute_script(f"return {hull}.querySelector('.readout').textContent")
    assert not said.endswith(": 0")
    systems.select_by_value("Cu-Ni")
    until(driver, f"{hull}.dataset.ready === '3'")
    assert "on the hull" in driver.execute_script(f"return {hull}.querySelector('.readout').textContent")
    # The table behind the plot: two elements and four compounds.
    assert driver.execute_script(f"return {hull}.querySelectorAll('tbody tr').length") == 6
    # Something is painted: some pixels have the colour of the points.
    painted = driver.execute_script(
        f"const c = {hull}.querySelector('canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let n = 0; for (let k = 0; k < d.length; k += 4) if (d[k+3] > 200 && d[k+1] > d[k] + 40) n++; return n"
    )
    assert painted > 100
    # Keyboard: from point to point, each said in words; Enter opens the entry.
    driver.execute_script(f"{hull}.querySelector('.canvas').focus()")
    press(driver, Keys.HOME)
    first = driver.execute_script(f"return {hull}.querySelector('.readout').textContent")
    assert first.startswith("Cu ·")
    press(driver, Keys.ARROW_RIGHT)
    second = driver.execute_script(f"return {hull}.querySelector('.readout').textContent")
    assert second.startswith("Cu₃Ni ·")
    press(driver, Keys.ENTER)
    until(driver, "document.querySelector('.viewer') !== null")
    assert "/entries/Cu3Ni-" in driver.current_url
    quiet(driver, site.url)


@pytest.mark.apt
def test_structure_viewer(site: Served, chromium: Callable[..., Chrome]) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    driver = chromium(dark=True)
    driver.get(f"{site.url}/zh/datasets/{IDS[0]}/versions/1/entries?q=AlNi3")
    driver.find_element(By.CSS_SELECTOR, "tbody th a").click()
    until(driver, "document.querySelector('.viewer')?.dataset.ready")
    # L1_2: the corner atom is shown eight times, each of the three others on two faces.
    assert driver.execute_script("return document.querySelector('.viewer').dataset.atoms") == "14"
    picture = "document.querySelector('.viewer canvas').toDataURL()"
    before = driver.execute_script(f"return {picture}")
    driver.execute_script("document.querySelector('.viewer canvas').focus()")
    press(driver, Keys.ARROW_LEFT)
    turned = driver.execute_script(f"return {picture}")
    assert turned != before
    press(driver, "0")
    assert driver.execute_script(f"return {picture}") == before
    driver.find_element(By.CSS_SELECTOR, "[data-act=cells]").click()
    assert int(driver.execute_script("return document.querySelector('.viewer').dataset.atoms")) == 63
    assert driver.find_element(By.CSS_SELECTOR, "[data-act=cells]").get_attribute("aria-pressed") == "true"
    quiet(driver, site.url)


@pytest.mark.apt
def test_keyboard_alone(site: Served, chromium: Callable[..., Chrome]) -> None:
    from selenium.webdriver.common.keys import Keys

    driver = chromium(width=420)
    driver.get(f"{site.url}/zh/datasets")
    focus = "document.activeElement"
    press(driver, Keys.TAB)
    assert driver.execute_script(f"return {focus}.className") == "skip"
    assert driver.execute_script(f"return {focus}.getBoundingClientRect().top >= 0")
    press(driver, Keys.ENTER)
    assert driver.execute_script(f"return {focus}.id") == "main"
    press(driver, Keys.TAB)
    assert driver.execute_script(f"return {focus}.name") == "q"
    # On a narrow screen nothing is wider than the screen.
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    press(driver, "Many", Keys.ENTER)
    until(driver, "document.querySelectorAll('article.card').length === 1")
    # Every place that takes the focus shows it, and has a name.
    names = driver.execute_script(
        """const all = [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')];
        return all.filter(e => e.offsetParent && !(e.textContent.trim() || e.labels?.length ||
          e.getAttribute('aria-label') || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML)"""
    )
    assert names == []
    quiet(driver, site.url)


CONTRAST = """
const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((s, v, k) => s + v * [0.2126, 0.7152, 0.0722][k], 0);
const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
  if (c.length === 3 || c[3] > 0.99) return c; } return [255, 255, 255]; };
const bad = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.offsetParent || e.closest('[aria-hidden=true], .visually-hidden, option')) continue;
  const style = getComputedStyle(e), a = light(parse(style.color)), b = light(behind(e));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const large = parseFloat(style.fontSize) >= 24;
  if (ratio < (large ? 3 : 4.5)) bad.push([e.tagName, e.className, e.textContent.trim().slice(0, 30), ratio]);
}
return bad;
"""


@pytest.mark.apt
@pytest.mark.parametrize("dark", [False, True])
def test_contrast(site: Served, chromium: Callable[..., Chrome], dark: bool) -> None:
    driver = chromium(dark=dark)
    base = f"/en/datasets/{IDS[0]}"
    paths = [
        "/en/",
        "/zh/datasets?elements=Al&q=x",
        base,
        f"{base}/versions/1/entries",
        "/en/sign-in",
        "/en/gone",
    ]
    for path in paths:
        driver.get(site.url + path)
        assert driver.execute_script(CONTRAST) == [], path


@pytest.mark.apt
def test_without_scripts(site: Served, chromium: Callable[..., Chrome]) -> None:
    from selenium.webdriver.common.by import By

    driver = chromium(script=False)
    driver.get(f"{site.url}/en/datasets/{IDS[0]}")
    assert "need JavaScript" in driver.find_element(By.CSS_SELECTOR, "noscript").get_attribute("textContent")
    assert driver.find_elements(By.CSS_SELECTOR, "#properties tbody tr")
    driver.find_element(By.LINK_TEXT, "Browse entries").click()
    driver.find_element(By.NAME, "elements").send_keys("Ni Al\n")
    found = driver.find_elements(By.CSS_SELECTOR, "tbody th a")
    assert len(found) == 7  # four binaries and three ternaries
    assert all("Al" in a.text and "Ni" in a.text for a in found)


WORKER = """
importScripts('/h5wasm/dist/iife/h5wasm.js');
(async () => {
  try {
    const { FS } = await h5wasm.ready;
    // A file whose parts are fetched by Range when they are read (possible in workers only).
    FS.createLazyFile('/', 'a.h5', new URL(location.search.slice(1), location.origin).href, true, false);
    const file = new h5wasm.File('/a.h5', 'r'), ids = file.get('entries/id'), energy = file.get('results/energy');
    postMessage({ keys: file.keys(), shape: ids.shape, version: file.attrs.format_version.value,
      first: ids.slice([[0, 3]]), last: Array.from(energy.slice([[ids.shape[0] - 2, ids.shape[0]]])) });
  } catch (error) { postMessage({ error: String(error) }); }
})();
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """h5wasm (5 MB) and axe-core: installed for the test by their lock file, not kept in the repository."""
    if not shutil.which("npm") or not shutil.which("node") or not shutil.which("chromium"):
        pytest.skip("npm, node or chromium is not installed")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NPM / name, folder)
    for _ in range(3):
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode == 0:
            return folder / "node_modules"
    said = f"npm is there, but 'npm ci' failed three times: {done.stderr[-500:]}"
    if os.environ.get("MATCOMPUTE_NO_SKIP"):  # CI must notice that the two tests did not run
        pytest.fail(said)
    pytest.skip(said)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_axe_finds_nothing(
    site: Served, chromium: Callable[..., Chrome], packages: Path, language: str
) -> None:
    """axe-core, an independent checker, with its rules for WCAG 2.2 AA and its best practices."""
    script = (packages / "axe-core" / "axe.min.js").read_text()
    driver = chromium()
    base = f"/{language}/datasets/{IDS[0]}"
    driver.get(f"{site.url}{base}/versions/1/entries")
    entry = driver.execute_script("return document.querySelector('tbody th a').getAttribute('href')")
    problems: list[tuple[str, ...]] = []
    paths = [f"/{language}/", f"/{language}/datasets?elements=Al&min=x", base, f"{base}/versions/1/entries"]
    for path in [*paths, f"{entry}?trace=bulk_modulus", f"/{language}/campaigns", f"/{language}/sign-in"]:
        driver.get(site.url + path)
        driver.execute_script(script)
        found = driver.execute_async_script(
            "axe.run().then(r => arguments[0](r.violations.map(v => [v.id, v.nodes.map(n => n.html)])))"
        )
        problems += [(path, *problem) for problem in found]
    assert problems == []


def test_h5wasm_reads_a_file_in_ranges(site: Served, chromium: Callable[..., Chrome], packages: Path) -> None:
    from matcompute.dataset import Dataset

    node = site.node
    path = Path(node.publication.store.path(IDS[1], 1, "data/entries.h5"))
    size = path.stat().st_size
    assert size > _PART
    asked: list[tuple[int, int]] = []
    app = create_app(node, follow_seconds=0)

    @app.middleware("http")
    async def note(request: Any, go: Any) -> Response:
        answer: Response = await go(request)
        if request.headers.get("range"):
            asked.append((answer.status_code, int(answer.headers["content-length"])))
        return answer

    # In front of the portal's routes; these two are the test's own and have no policy against WebAssembly.
    app.mount("/h5wasm", StaticFiles(directory=packages / "h5wasm"))
    app.add_route("/worker.js", lambda _: Response(WORKER, media_type="text/javascript"))
    app.add_route("/reader", lambda _: HTMLResponse("<!doctype html><title>reader</title>"))
    served = Served(node, app)
    served.start()
    try:
        driver = chromium()
        driver.get(f"{served.url}/reader")
        found = driver.execute_async_script(
            "const done = arguments[1], worker = new Worker('/worker.js?' + arguments[0]);"
            "worker.onmessage = (m) => done(m.data); worker.onerror = (e) => done({ error: e.message });",
            f"/datasets/{IDS[1]}/versions/1/files/data/entries.h5",
        )
    finally:
        served.stop()
    assert "error" not in found, found
    with Dataset(path) as dataset:
        assert found["shape"] == [len(dataset)]
        assert found["version"] == dataset.format_version
        assert found["first"] == dataset.ids[:3].tolist()
        values = dataset.column("energy")[-2:].tolist()
        assert [v for v in found["last"] if v is not None] == [v for v in values if v == v]
    # The file came in parts, each as the answer to a Range.
    assert len(asked) > 1
    assert {status for status, _ in asked} == {206}
    assert max(n for _, n in asked) <= _PART
