"""The pages as a reader sees them: every one opened from file:// in Chromium, in light, in dark, as wide as a phone.

The pages are built once, from the notebooks' stored outputs. `pages_in_browser.js` looks at the open page.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from _scripts.layout import ROOT, Book, BookError
from _scripts.pages import build_pages
from chromium import give_up

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, ViewportSize

# Values of `data-figure` of the figures that a reader can move.
EXPECTED_INTERACTIVE = {
    "slide-p",
    "census-person",
    "census-runs",
    "universes",
    "lab",
    "atlas",
    "own-runs",
    "costs",
}

PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
}
MEASURE = Path(__file__).with_name("pages_in_browser.js").read_text(encoding="utf-8")
OWN_ADDRESSES = ("file", "data", "blob")
MOST_BYTES_OF_A_PAGE = 3_000_000
MOST_BYTES_OF_A_FIGURE = 300_000
MOST_MILLISECONDS = 5_000

BOOK = Book()
REPOSITORY = urlsplit(BOOK.repository_url).path
BRANCH = BOOK.branch


@dataclass(frozen=True)
class Visit:
    """One look at one page.

    Attributes:
        page: its path below the folder of the pages.
        look: a name of LOOKS.
        errors: what the console, a script or a file that could not be read complained about.
        requests: the addresses that were asked for.
        facts: what `pages_in_browser.js` saw.
    """

    page: str
    look: str
    errors: list[str]
    requests: list[str]
    facts: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.page} ({self.look})"


Visits = list[Visit]


# The browser and the pages


@pytest.fixture(scope="module")
def html(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the pages; asks for the browser first, so that nothing is built without one."""
    source, book = BOOK, Book(tmp_path_factory.mktemp("book"))
    shutil.copytree(source.source, book.source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(source.config_file, book.config_file)
    book.executed.mkdir(parents=True)
    problems: list[str] = []
    try:
        for notebook in book.notebooks():
            shutil.copyfile(notebook, book.executed / notebook.name)
        build_pages(book)
    except BookError as error:
        problems = error.lines()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
    return book.html


def page_files(html: Path) -> list[Path]:
    """Every page, the search and the index with them."""
    files = sorted(html.rglob("*.html"))
    return [file for file in files if file.relative_to(html).parts[0] not in ("_static", "_sources")]


@pytest.fixture(scope="module")
def visits(browser: Browser, html: Path) -> Visits:
    """Every page loaded once; dark mode and the phone's width then come as a change, for the sake of time."""
    seen = []
    page = browser.new_page(reduced_motion="reduce")
    errors, requests = listen(page)
    for file in page_files(html):
        errors.clear()
        requests.clear()
        for look, settings in LOOKS.items():
            page.set_viewport_size(settings["viewport"])
            page.emulate_media(color_scheme=settings["color_scheme"])
            if look == "light":
                page.goto(file.as_uri())
            facts = page.evaluate(MEASURE)
            seen.append(Visit(file.relative_to(html).as_posix(), look, errors[:], requests[:], facts))
    page.close()
    return seen


def listen(page: Page) -> tuple[list[str], list[str]]:
    """Two lists that fill while the page is used: what goes wrong, and what is asked for."""
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.on("requestfailed", lambda request: errors.append(f"{request.url}: {request.failure}"))
    return errors, requests


def test_without_a_browser_a_reader_skips_and_a_check_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        give_up("no browser")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no browser, and CI is set"):
        give_up("no browser")


# What the measurements see

WRONG = """<!doctype html><html data-theme="light"><meta charset="utf-8"><body style="background: #fff"><article>
<p id="here" style="color: #999">pale</p> <p style="color: #999; font-size: 30px">large</p>
<p style="opacity: 0.5; color: #555">faint</p> <p style="color: #767676">just dark enough</p>
<div style="background: rgb(0 0 0 / 50%)"><div style="background: rgb(0 0 0 / 50%); color: #fff">white</div></div>
<details><summary>folded</summary><p style="color: #aaa">pale and folded</p></details>
<svg width="90" height="20"><text y="15" fill="#aaa">pale in a picture</text></svg>
<a href="#here">here</a> <a href="#gone">gone</a> <a href="gone.html">gone page</a>
<img src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="> <img src="http://127.0.0.1:49151/x.png" alt="words">
<svg role="img" id="silent" width="9" height="9"></svg>
<svg role="img" aria-label="words" width="9" height="9"></svg>
<figure id="bare"></figure> <figure>one <figcaption>with a caption</figcaption></figure>
<div style="overflow-x: auto"><p style="width: 2000px">wide in a box</p></div>
<p id="wide" style="width: 2000px">wide</p>
<script>console.error("an error"); missing()</script>
<script type="application/json">{"é": 1}</script>
<figure class="mmoe-interactive" data-figure="one">x <figcaption>one</figcaption></figure>
</article></body></html>"""


def test_measurements_see_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "wrong.html"
    file.write_text(WRONG, encoding="utf-8")
    page = browser.new_page(viewport=PHONE)
    errors, requests = listen(page)
    page.goto(file.as_uri())
    facts = page.evaluate(MEASURE)
    page.close()
    assert {"an error", "missing is not defined"} < set(errors)
    assert any(error.startswith("http://127.0.0.1:49151/x.png: ") for error in errors)
    assert [address for address in requests if urlsplit(address).scheme == "http"] == [
        "http://127.0.0.1:49151/x.png"
    ]
    pale = [re.findall('"(.*)": (.*) to 1', text)[0] for text in facts["pale"]]
    assert pale == [
        ("pale", "2.85"),
        ("faint", "2.32"),
        ("pale and folded", "2.32"),
        ("pale in a picture", "2.32"),
    ]
    assert [element.split()[0] for element in facts["wordless"]] == ["<img>", "<svg#silent>"]
    assert facts["broken"] == ["http://127.0.0.1:49151/x.png"]
    assert [element.split()[0] for element in facts["uncaptioned"]] == ["<figure#bare>"]
    assert (facts["width"] > 2000, facts["tooWide"]) == (True, ['<p#wide> "wide"'])
    assert facts["interactive"] == ["one"]
    assert facts["data"] == [len('{"é": 1}'.encode())]
    ids = {"wrong.html": set(facts["ids"])}
    missing = [what_is_missing(address, tmp_path, ids) for address, _ in facts["links"]]
    assert missing == ["", "nothing bears the id 'gone'", "there is no file"]


# Every page


def complain(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def test_every_page_of_the_contents_is_opened_in_every_look(visits: Visits) -> None:
    names = {page.relative_to(BOOK.source).with_suffix(".html").as_posix() for page in BOOK.pages()}
    for look in LOOKS:
        assert names | {"search.html", "genindex.html"} <= {
            visit.page for visit in visits if visit.look == look
        }
    assert {(visit.look, visit.facts["theme"]) for visit in visits} == {
        ("light", "light"),
        ("dark", "dark"),
        ("phone", "light"),
    }
    complain([f"{visit}: no text was measured" for visit in visits if visit.facts["texts"] == 0])


def test_no_page_has_an_error(visits: Visits) -> None:
    complain([f"{visit}: {error}" for visit in visits for error in visit.errors])


def test_no_page_asks_the_network(visits: Visits) -> None:
    complain(
        [
            f"{visit} asks for {address}"
            for visit in visits
            for address in visit.requests
            if urlsplit(address).scheme not in OWN_ADDRESSES
        ]
    )


def test_links_lead_somewhere(visits: Visits, html: Path) -> None:
    ids = {visit.page: set(visit.facts["ids"]) for visit in visits}
    problems = [
        f"{visit}: {element} leads to {address}, where {problem}"
        for visit in visits
        for address, element in visit.facts["links"]
        if (problem := what_is_missing(address, html, ids))
    ]
    complain(problems)
    linked = [[address.startswith("file:") for address, _ in visit.facts["links"]] for visit in visits]
    assert all(any(of_page) for of_page in linked)


def what_is_missing(address: str, html: Path, ids: dict[str, set[str]]) -> str:
    """What is not there, of the pages or of this repository on GitHub; "" when nothing is, or elsewhere."""
    parts = urlsplit(address)
    if parts.scheme != "file":
        return what_is_missing_in_repository(parts.path)
    file = Path(unquote(parts.path))
    if not file.is_file():
        return "there is no file"
    if not file.is_relative_to(html):
        return "no page of the book lies"
    page = file.relative_to(html).as_posix()
    anchor = unquote(parts.fragment)
    if anchor and anchor not in ids.get(page, set()):
        return f"nothing bears the id {anchor!r}"
    return ""


def what_is_missing_in_repository(path: str) -> str:
    """The same for the path of an address such as .../OWNER/NAME/blob/main/data/README.md, Colab's with them."""
    for kind in ("blob", "tree", "edit", "raw"):
        _, own, rest = unquote(path).partition(f"{REPOSITORY}/{kind}/{BRANCH}/")
        if own and not (ROOT / rest).exists():
            return f"the repository has no {rest}"
    return ""


def test_missing_files_anchors_and_pages_are_seen(html: Path) -> None:
    ids = {"index.html": {"there"}}
    index = (html / "index.html").as_uri()
    repository = f"{BOOK.repository_url}/blob/{BRANCH}"
    assert what_is_missing(index, html, ids) == what_is_missing(f"{index}#there", html, ids) == ""
    assert what_is_missing(f"{index}#gone", html, ids) == "nothing bears the id 'gone'"
    assert what_is_missing((html / "gone.html").as_uri(), html, ids) == "there is no file"
    assert what_is_missing(Path(__file__).as_uri(), html, ids) == "no page of the book lies"
    assert what_is_missing(f"{repository}/LICENSE", html, ids) == ""
    assert what_is_missing(f"{repository}/gone.md", html, ids) == "the repository has no gone.md"
    assert what_is_missing("https://example.org/gone", html, ids) == ""


def test_search_finds_pages_that_are_there(browser: Browser, html: Path, visits: Visits) -> None:
    page = browser.new_page()
    errors, requests = listen(page)
    page.goto(f"{(html / 'search.html').as_uri()}?q=gate")
    page.wait_for_selector("#search-results li a", timeout=MOST_MILLISECONDS)
    results = page.locator("#search-results li a").evaluate_all("links => links.map(link => link.href)")
    assert len(results) > 3
    ids = {visit.page: set(visit.facts["ids"]) for visit in visits}
    complain([f"{result}: {what}" for result in results if (what := what_is_missing(result, html, ids))])
    assert errors == []
    assert all(address.startswith("file:") for address in requests)
    page.close()


def test_every_picture_has_words_and_every_figure_a_caption(visits: Visits) -> None:
    what = {
        "wordless": "has no text for those who do not see it",
        "broken": "is not a picture that can be shown",
        "uncaptioned": "is a figure without a caption",
    }
    complain(
        [
            f"{visit}: {element} {what[kind]}"
            for visit in visits
            for kind in what
            for element in visit.facts[kind]
        ]
    )


def test_no_page_scrolls_sideways(visits: Visits) -> None:
    problems = []
    for visit in visits:
        width = LOOKS[visit.look]["viewport"]["width"]
        if visit.facts["width"] > width:
            problems.append(f"{visit} is {visit.facts['width']} px wide, more than {width}")
        problems += [f"{visit}: {element} sticks out" for element in visit.facts["tooWide"]]
    complain(problems)


@pytest.mark.parametrize("look", LOOKS)
def test_text_stands_out_from_what_is_behind_it(visits: Visits, look: str) -> None:
    complain(
        [f"{visit.page}: {text}" for visit in visits if visit.look == look for text in visit.facts["pale"]]
    )


@pytest.mark.parametrize("look", ["light", "dark"])
def test_text_that_comes_with_the_pointer_and_the_scroll_stands_out(
    browser: Browser, html: Path, look: str
) -> None:
    page = browser.new_page(**LOOKS[look], reduced_motion="reduce")
    page.goto((html / "index.html").as_uri())
    rows = page.locator("article tbody tr", has=page.locator("a"))
    for row in rows.all()[:2]:
        row.hover()
        complain(page.evaluate(MEASURE)["pale"])
        row.locator("a").first.hover()
        complain(page.evaluate(MEASURE)["pale"])
    assert rows.count() >= 2
    page.set_viewport_size(PHONE)  # the button back to the top comes on small windows, on the way up
    for top in (2000, 1000):
        page.evaluate("top => window.scrollTo({top, behavior: 'instant'})", top)
        page.wait_for_function("top => window.oldScroll === top", arg=top, timeout=MOST_MILLISECONDS)
    page.locator("#pst-back-to-top").wait_for(state="visible", timeout=MOST_MILLISECONDS)
    complain(page.evaluate(MEASURE)["pale"])
    page.close()


def test_pages_are_light(visits: Visits, html: Path) -> None:
    """Prints what each weighs (see it with `pytest -rP`); MathJax, the same file for all pages, apart."""
    print(f"{'kB':26}  page  pictures  scripts and styles  figures' data")
    problems = []
    for visit in visits:
        if visit.look != "light":
            continue
        files = {Path(unquote(urlsplit(address).path)) for address in visit.requests}
        files = {file for file in files if file.is_file() and "mathjax" not in file.parts}
        page = (html / visit.page).stat().st_size
        pictures = sum(file.stat().st_size for file in files if "_images" in file.parts)
        rest = sum(file.stat().st_size for file in files if "_static" in file.parts)
        data = visit.facts["data"]
        kilobytes = [size / 1000 for size in (page, pictures, rest, sum(data))]
        print("{:26} {:5.0f} {:9.0f} {:19.0f} {:14.0f}".format(visit.page, *kilobytes))
        if page > MOST_BYTES_OF_A_PAGE:
            problems.append(f"{visit.page} has {page} bytes, more than {MOST_BYTES_OF_A_PAGE}")
        problems += [
            f"{visit.page}: a figure's data have {size} bytes, more than {MOST_BYTES_OF_A_FIGURE}"
            for size in data
            if size > MOST_BYTES_OF_A_FIGURE
        ]
    complain(problems)


# Figures that a reader can move


def test_the_interactive_figures_are_there(visits: Visits) -> None:
    found = [name for visit in visits if visit.look == "light" for name in visit.facts["interactive"]]
    assert sorted(found) == sorted(EXPECTED_INTERACTIVE)


@pytest.mark.parametrize("look", ["light", "phone"])
def test_interactive_figures_answer_the_keyboard_and_keep_their_place(
    browser: Browser, html: Path, visits: Visits, look: str
) -> None:
    pages = [visit.page for visit in visits if visit.look == look and visit.facts["interactive"]]
    page = browser.new_page(**LOOKS[look], reduced_motion="reduce")
    errors, requests = listen(page)
    for name in pages:
        page.goto((html / name).as_uri())
        page.evaluate(MEASURE)
        for figure in page.locator("figure.mmoe-interactive").all():
            try_figure(page, figure, f"{name}, {figure.get_attribute('data-figure')}")
    assert errors == []
    assert all(urlsplit(address).scheme in OWN_ADDRESSES for address in requests)
    page.close()


FIGURE = """<!doctype html><meta charset="utf-8"><figure class="mmoe-interactive" data-figure="sample">
<script type="application/json">[1]</script>
<label>p <input type="range" id="p" min="0" max="1" step="0.5" value="1"></label>
<label>model <select id="model"><option>first<option>last</select></label>
<label>all <input type="checkbox" id="all"></label>
<svg role="img" aria-label="words" width="99" height="99"><circle r="9"/></svg><output>0</output>
<figcaption>caption</figcaption></figure>
<script>
document.querySelectorAll("input, select").forEach((control) => control.addEventListener("input", () => {
  if (control.id === "DEAD") return;
  document.querySelector("output").append("1");
  if (control.id === "JUMPS") document.querySelector("figure").style.paddingTop = "9px";
}));
</script>"""


@pytest.mark.parametrize(
    ("changed", "to", "problem"),
    [
        ("", "", None),
        ("DEAD", "model", "sample: model changes neither the picture nor the text"),
        ("JUMPS", "all", "sample: all moves the page"),
        ("<label>p ", "<label>", "sample: p has no label"),
        ('id="p"', 'id="p" tabindex="-1"', "sample: p cannot be reached"),
        (' aria-label="words"', "", "sample: no svg with"),
        ("output", "div", "sample: no output"),
    ],
)
def test_a_figure_that_does_not_answer_is_seen(
    browser: Browser, tmp_path: Path, changed: str, to: str, problem: str | None
) -> None:
    file = tmp_path / "figure.html"
    file.write_text(FIGURE.replace(changed, to) if changed else FIGURE, encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    figure = page.locator("figure.mmoe-interactive")
    if problem is None:
        try_figure(page, figure, "sample")
        assert page.locator("output").text_content() == "0111111"
    else:
        with pytest.raises(AssertionError, match=problem):
            try_figure(page, figure, "sample", milliseconds=300)
    page.close()


def try_figure(page: Page, figure: Locator, name: str, milliseconds: int = MOST_MILLISECONDS) -> None:
    """Move every control by its keys and back: both must change what is shown and leave the figure's height alone."""
    assert figure.locator("svg[role=img][aria-label]").count(), f"{name}: no svg with role=img and aria-label"
    assert figure.locator('script[type="application/json"]').count() == 1, f"{name}: not one script of data"
    assert figure.locator("output, [aria-live]").count(), f"{name}: no output that is read out"
    controls = figure.locator("input:enabled, select:enabled").all()
    assert controls, f"{name}: no control"
    for control in controls:
        what = control.evaluate("it => it.id || it.name || it.outerHTML.slice(0, 60)")
        label = control.evaluate(
            "it => it.getAttribute('aria-label') || [...it.labels].map(label => label.textContent).join('').trim()"
        )
        assert label, f"{name}: {what} has no label"
        control.focus()
        assert control.evaluate("it => it === document.activeElement && it.tabIndex >= 0"), (
            f"{name}: {what} cannot be reached by the keyboard"
        )
        height = height_of(figure)
        for key in keys_for(control):
            before = content(figure)
            page.keyboard.press(key)
            assert changes(page, figure, before, milliseconds), (
                f"{name}: {what} changes neither the picture nor the text"
            )
            assert height_of(figure) == pytest.approx(height, abs=0.5), f"{name}: {what} moves the page"


def keys_for(control: Locator) -> tuple[str, str]:
    """The keys that change a control of the browser's own, wherever it stands now, and that bring it back."""
    kind, at_end = control.evaluate(
        "it => [it.type, it.tagName === 'SELECT' ? !it.options[it.selectedIndex + 1] : +it.value >= +it.max]"
    )
    if kind == "checkbox":
        return "Space", "Space"
    there, back = ("ArrowRight", "ArrowLeft") if kind == "range" else ("ArrowDown", "ArrowUp")
    return (back, there) if at_end else (there, back)


def content(figure: Locator) -> str:
    """What a figure shows: its pictures and the text that is read out."""
    return str(
        figure.evaluate(
            "it => [...it.querySelectorAll('svg, output, [aria-live]')].map(e => e.outerHTML).join()"
        )
    )


def changes(page: Page, figure: Locator, before: str, milliseconds: int) -> bool:
    """Whether a figure comes to show something else; a script may draw at the next frame, or later."""
    for _ in range(milliseconds // 50):
        page.wait_for_timeout(50)
        if content(figure) != before:
            return True
    return False


def height_of(figure: Locator) -> float:
    return float(figure.evaluate("it => it.getBoundingClientRect().height"))


# Tables that sort

SORTABLE = """<table id="plain"><thead>
<tr><th></th><th>AUC</th><th>change</th><th>rows</th></tr><tr><th>model</th><th></th><th></th><th></th></tr>
</thead><tbody>
{rows}
</tbody></table>
<table id="markdown"><thead><tr><th><p>letter</p></th></tr></thead><tbody>{letters}</tbody></table>
<table id="grouped"><thead><tr><th>group</th><th>value</th></tr></thead><tbody>
<tr><th rowspan="2">1</th><td>2</td></tr><tr><td>1</td></tr>{more}</tbody></table>
<table id="short"><thead><tr><th>value</th></tr></thead><tbody><tr><td>2</td></tr><tr><td>1</td></tr></tbody></table>
"""
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
ROWS = [
    ("model 10", "0.945 (0.944 to 0.946)", f"{MINUS}0.1 [{MINUS}0.2, 0.0]", "1,234"),
    ("model 9", "0.94", "+0.3", "999"),
    ("Model 1", "", DASH, "10,000"),
    ("model 2", "<0.5", "0", "7"),
    ("model 3", "1", f"{MINUS}0.02", "8"),
    ("model 4", "0.10", "5e-3", "9"),
    ("model 5", "diverged", "nan", "12 of 20"),
    ("model 6", "0.2", "-3", "13"),
    ("model 7", ".3", "2 %", "1,000,000"),
]
SORTED = {
    # Rows by their number in ROWS; those without a value come last.
    "model": [2, 3, 4, 5, 6, 7, 8, 1, 0],
    "AUC": [5, 7, 8, 3, 1, 0, 4, 2, 6],
    "change": [7, 0, 4, 3, 5, 1, 8, 2, 6],
    "rows": [3, 4, 5, 6, 7, 1, 0, 2, 8],
}
WITHOUT_VALUE = {"model": 0, "AUC": 2, "change": 2, "rows": 0}


@pytest.fixture
def tables(browser: Browser, html: Path, tmp_path: Path) -> Iterator[Page]:
    """A page of three tables, with the script and the style of the book."""
    rows = "\n".join(
        f"<tr><th>{cells[0]}</th>{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>".replace(
            "<0", "&lt;0"
        )
        for cells in ROWS
    )
    letters = "".join(f"<tr><td><p>{letter}</p></td></tr>" for letter in "ihgfedcba")
    static = (html / "_static").as_uri()
    body = SORTABLE.format(rows=rows, letters=letters, more="<tr><th>3</th><td>4</td></tr>" * 9)
    file = tmp_path / "tables.html"
    file.write_text(
        f'<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="{static}/book.css">'
        f'<script src="{static}/sortable.js"></script><article class="bd-article">{body}</article>',
        encoding="utf-8",
    )
    page = browser.new_page()
    page.goto(file.as_uri())
    yield page
    page.close()


def order(page: Page) -> list[int]:
    names = page.locator("#plain tbody tr th").all_text_contents()
    return [[row[0] for row in ROWS].index(name) for name in names]


@pytest.mark.parametrize("column", SORTED)
def test_table_sorts_up_down_and_back(tables: Page, column: str) -> None:
    button = tables.get_by_role("button", name=column)
    heading = tables.locator("#plain th", has=button)
    box = tables.locator("#plain").bounding_box()
    button.click()
    assert order(tables) == SORTED[column]
    assert heading.get_attribute("aria-sort") == "ascending"
    button.click()
    filled = len(ROWS) - WITHOUT_VALUE[column]
    assert order(tables) == SORTED[column][:filled][::-1] + SORTED[column][filled:]
    assert heading.get_attribute("aria-sort") == "descending"
    assert tables.locator("#plain").bounding_box() == box
    button.click()
    assert order(tables) == list(range(len(ROWS)))
    assert tables.locator("[aria-sort]").count() == 0


def test_table_sorts_by_the_keyboard(tables: Page) -> None:
    tables.keyboard.press("Tab")
    assert tables.evaluate("document.activeElement.textContent") == "AUC"
    tables.keyboard.press("Enter")
    assert order(tables) == SORTED["AUC"]
    tables.keyboard.press("Tab")
    tables.keyboard.press("Space")
    assert order(tables) == SORTED["change"]
    assert tables.locator("[aria-sort]").all_text_contents() == ["change"]


def test_names_in_paragraphs_sort_too(tables: Page) -> None:
    tables.locator("#markdown th > p > button").click()
    assert tables.locator("#markdown tbody").text_content() == "abcdefghi"


def test_short_tables_and_tables_of_groups_stay_as_they_are(tables: Page) -> None:
    assert tables.locator("#plain button").all_text_contents() == ["AUC", "change", "rows", "model"]
    assert tables.locator("#grouped button, #short button").count() == 0


def test_a_long_table_of_the_book_sorts_and_keeps_its_place(browser: Browser, html: Path) -> None:
    page = browser.new_page(viewport=DESKTOP)
    page.goto((html / "notation.html").as_uri())
    table = page.locator("table", has=page.locator("button.sort-column")).first
    before, box = table.locator("tbody tr td:nth-child(2)").all_text_contents(), table.bounding_box()
    assert len(before) > 8
    table.locator("button.sort-column").nth(1).press("Enter")
    after = table.locator("tbody tr td:nth-child(2)").all_text_contents()
    assert after == sorted(before, key=str.lower) != before
    assert table.bounding_box() == box
    page.close()
