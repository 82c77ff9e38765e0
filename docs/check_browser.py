"""Looks at the built book as readers do, in Chromium: `make book-check`, after `make book`.

Every page, at the width of a desk and of a phone, light and dark: nothing fails to load, formulas
have size, nothing sticks out at the side, the rules of accessibility hold (axe: contrast, names,
order of headings, alternative texts). And the search finds what a reader looks for.
"""

import functools
import http.server
import threading
from pathlib import Path

import headless
import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: make book-check installs it"
)
axe_module = pytest.importorskip(
    "axe_playwright_python.sync_playwright",
    reason="axe-playwright-python is not installed: make book-check installs it",
)

BOOK = Path(__file__).parent.parent / "_docs" / "html"
CHROMIUM = headless.chromium()
PAGES = sorted(p.relative_to(BOOK).as_posix() for p in BOOK.rglob("*.html"))
PAGES = [page for page in PAGES if not page.startswith("tab/")]  # JupyterLite has tests of its own
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def browser():
    with sync_api.sync_playwright() as playwright:
        if CHROMIUM is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium was found: install one, or name it in CHROMIUM")
        with playwright.chromium.launch(executable_path=CHROMIUM, args=headless.FLAGS) as browser:
            yield browser


@pytest.fixture(scope="session")
def address():
    "The book on a server of its own: the search does not work from files."

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(BOOK))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


@pytest.fixture
def page(browser):
    "A page of the browser, with the faults that it has reported so far as `page.faults`."
    page = browser.new_page(viewport=DESK)
    page.faults = []
    page.on(
        "console",
        lambda message: message.type in ("error", "warning") and page.faults.append(message.text),
    )
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("requestfailed", lambda request: page.faults.append(f"not loaded: {request.url}"))
    page.on(
        "response",
        lambda response: (
            response.status >= 400 and page.faults.append(f"{response.status}: {response.url}")
        ),
    )
    yield page
    page.close()


STICKS_OUT = """() => {
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide <= 0) return [];
  const out = [...document.querySelectorAll('article *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1);
  return [`the page is ${wide} px too wide`, ...out.slice(0, 3).map(e => e.outerHTML.slice(0, 120))];
}"""
FORMULAS = """() => [...document.querySelectorAll('article math')]
  .filter(m => m.checkVisibility())
  .map(m => [m, m.getBoundingClientRect()])
  .map(([m, box]) => [m.getAttribute('alttext'), box.width, box.height])"""
PICTURES = """() => [...document.querySelectorAll('img')]
  .filter(i => !i.complete || !i.naturalWidth || !i.alt.trim())
  .map(i => i.src)"""
RAW = r"""() => {
  const t = document.body.cloneNode(true);
  t.querySelectorAll('pre, code, math, script, style').forEach(e => e.remove());
  return t.textContent.match(/\$[^\s$][^$\n]{0,80}\$|\\frac|\\mathbb|\\text\{/g) || [];
}"""


@pytest.mark.parametrize(
    "name",
    PAGES or [pytest.param("", marks=pytest.mark.skip(reason="the book is not built: make book"))],
)
def test_a_page_can_be_read(name, page, address):
    page.goto(address + name, wait_until="load")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for size in (DESK, PHONE):
            page.set_viewport_size(size)
            assert page.evaluate(STICKS_OUT) == [], f"{scheme}, {size['width']} px"
        assert accessibility(page, *(["color-contrast"] if scheme == "dark" else [])) == [], scheme
    assert page.evaluate(PICTURES) == [], "pictures that are not there, or have no alternative text"
    assert page.evaluate(RAW) == [], "LaTeX that nobody has set"
    formulas = page.evaluate(FORMULAS)
    assert [f for f in formulas if not (f[1] > 2 and f[2] > 2)] == [], "formulas without size"
    if name in ("paper.html", "02_stdp.html", "03_variational.html", "06_inference.html"):
        assert len(formulas) > 10
    assert page.faults == []


def accessibility(page, *rules):
    """What axe has to say about the page as it is shown, in lines; only by some `rules` if they are
    given. Formulas are left out: they have the colours of the text around them, and axe, which
    takes half a minute for a page full of them, does not know that they can be read aloud.
    """
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found = (
        axe_module.Axe()
        .run(page, context={"exclude": [["math"]]}, options=options)
        .response["violations"]
    )
    return [
        f"{v['id']}: {node['html'][:140]} {node['failureSummary'][:300]}"
        for v in found
        for node in v["nodes"][:3]
        if not (v["id"] == "empty-table-header" and "<math" in node["html"])
    ]


def test_search_finds_target_propagation(page, address):
    if not PAGES:
        pytest.skip("the book is not built: make book")
    page.goto(address + "index.html")
    page.fill("input[name=q]", "target propagation")
    page.press("input[name=q]", "Enter")
    page.wait_for_selector("ul.search li a", timeout=20_000)
    page.wait_for_function(
        "() => /found/.test(document.querySelector('.search-summary, #search-results p')?.textContent || '')",
        timeout=20_000,
    )
    found = page.eval_on_selector_all("ul.search li > a", "links => links.map(a => a.textContent)")
    assert any("layer pair" in f for f in found) and any(
        "paper's equations" in f.replace("’", "'") for f in found
    ), found
    page.click("ul.search li a")
    page.wait_for_load_state("load")
    assert "search.html" not in page.url and page.faults == []


def test_an_equation_leads_to_its_code_and_back(page, address):
    page.goto(address + "api/core.layers.html")
    page.click("a.paper-link:has-text('Eq. 12')")
    assert page.url.endswith("paper.html#eq-12")
    page.click("#eq-12 .paper-places a:has-text('target_step')")
    assert page.url.endswith("api/core.layers.html#biolearn.core.layers.target_step")
    page.click("#biolearn\\.core\\.layers\\.target_step >> text=[source]")
    assert page.url.endswith("04_layers.html#code-target_step")
    page.click("#code-target_step + .in-reference a:has-text('target_step')")
    assert page.url.endswith("api/core.layers.html#biolearn.core.layers.target_step")
    assert page.faults == []


@pytest.fixture
def play(page, address):
    "The page on which a network runs, when every part of it shows its first result; with `requests`."
    if "play/index.html" not in PAGES:
        pytest.skip("the book is not built: make book")
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address + "play/index.html")
    page.wait_for_selector("#draw[data-seconds]", timeout=30_000)
    page.wait_for_selector("#dream[data-seconds]", timeout=30_000)
    page.wait_for_function("() => document.getElementById('explain-status').textContent")
    return page


def test_play_needs_no_other_server_and_is_quick(play, address):
    foreign = [url for url in play.requests if not url.startswith((address, "blob:"))]
    assert foreign == [] and play.faults == []
    first = play.evaluate("Number(document.documentElement.dataset.firstPicture)")
    whole, dream = (play.evaluate(f"Number({part}.dataset.seconds)") for part in ("draw", "dream"))
    print(f"first picture {first:.2f} s, completion {whole:.2f} s, GENERATE {dream:.2f} s")
    assert first < 2 and whole < 3 and dream < 0.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_play_can_be_read_once_it_shows_results(play, scheme):
    play.emulate_media(color_scheme=scheme)
    for size in (DESK, PHONE):
        play.set_viewport_size(size)
        assert play.evaluate(STICKS_OUT) == [], f"{size['width']} px"
        assert accessibility(play) == [], f"{size['width']} px"


def test_play_can_be_used_with_the_keyboard_alone(play):
    "Every control can be reached by the Tab key; the pen, the sliders and the choices obey."
    reached = set()
    for _ in range(60):
        play.keyboard.press("Tab")
        reached.add(play.evaluate("document.activeElement.id || document.activeElement.name"))
    wanted = play.evaluate(
        "[...document.querySelectorAll('button, select, canvas[tabindex], input')]"
        ".filter(e => e.checkVisibility()).map(e => e.type === 'radio' ? e.name : e.id)"
    )
    assert set(wanted) <= reached
    play.focus("#draw-input")
    before = play.text_content("#draw-status")
    play.keyboard.press("Shift+ArrowLeft")
    changed = "before => document.getElementById('draw-status').textContent !== before"
    play.wait_for_function(changed, arg=before)
    play.focus("#dream-step")
    play.keyboard.press("Home")
    assert play.text_content("#dream-step-shown") == "0"
    play.keyboard.press("ArrowRight")
    assert play.text_content("#dream-step-shown") == "1"
    assert play.faults == []


def test_play_shows_results_at_once_to_who_wants_no_motion(browser, address):
    if "play/index.html" not in PAGES:
        pytest.skip("the book is not built: make book")
    page = browser.new_page(viewport=PHONE, reduced_motion="reduce")
    page.goto(address + "play/index.html")
    page.wait_for_selector("#dream[data-seconds]", timeout=30_000)
    assert page.text_content("#dream-step-shown") == "45"
    page.close()
