"""Everything that holds the repository's address, made from the one in `_config.yml`."""

from pathlib import Path

from nbformat import NotebookNode

from _scripts.layout import FURTHER_PAGE, Book, BookError
from _scripts.notebooks import has_tag, read_notebook

COLAB_TAG = "colab"
README_START = "<!-- links: written by `make outputs` from the address in _config.yml -->"
README_END = "<!-- end of links -->"

# The first code cell of every chapter. Colab has every other package that the library needs.
COLAB_CELL = """\
# On Google Colab this cell fetches the repository. Elsewhere it does nothing.
import os
import subprocess
import sys

if "google.colab" in sys.modules:
    address = "{url}"
    folder = "/content/{name}"
    if not os.path.isdir(folder):
        clone = ["git", "clone", "--quiet", "--depth", "1", address, folder]
        subprocess.run(clone, check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "pooch"]
    subprocess.run(pip, check=True)
    os.chdir(f"{{folder}}/book")
    sys.path[:0] = [f"{{folder}}/book", folder]"""


def colab_cell(book: Book) -> str:
    """The source of the cell tagged `colab`."""
    url = book.repository_url
    return COLAB_CELL.format(url=url, name=url.rsplit("/", 1)[1])


def set_colab_cell(book: Book, notebook: NotebookNode, path: Path) -> None:
    """Write the cell's text, in place, into the cell tagged `colab`, which only a page that is no chapter may lack.

    Raises:
        BookError: there is no such cell, or more than one.
    """
    cells = [cell for cell in notebook.cells if has_tag(cell, COLAB_TAG)]
    if not cells and path not in book.chapters():
        return
    if len(cells) != 1 or cells[0].cell_type != "code":
        raise BookError(f"{path.name}: {len(cells)} cells are tagged `colab`, expected one code cell")
    cells[0].source = colab_cell(book)


def colab_link(book: Book, chapter: Path) -> str:
    """The address that opens a chapter on Colab."""
    owner_and_name = book.repository_url.removeprefix("https://github.com/")
    path = f"blob/{book.branch}/book/{chapter.name}"
    return f"https://colab.research.google.com/github/{owner_and_name}/{path}"


def pages_link(book: Book) -> str:
    """The address of the published book on GitHub Pages."""
    owner, name = book.repository_url.removeprefix("https://github.com/").split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def readme_block(book: Book) -> str:
    """Badges and a table of the chapters without their further pages, with the markers around them."""
    url = book.repository_url
    badges = " ".join(
        f"[![{name}]({url}/actions/workflows/{name}.yml/badge.svg)]({url}/actions/workflows/{name}.yml)"
        for name in ("tests", "pages")
    )
    rows = [
        f"| [{_title(chapter)}](book/{chapter.name}) | [open on Colab]({colab_link(book, chapter)}) |"
        for chapter in book.chapters()
        if not FURTHER_PAGE.match(chapter.name)
    ]
    table = ["| Chapter | Run it without installing |", "|---|---|", *rows]
    read = f"The published book: <{pages_link(book)}>"
    return "\n".join([README_START, badges, "", read, "", *table, README_END])


def with_links(book: Book, readme: str) -> str:
    """The README with its block of links renewed.

    Raises:
        BookError: the markers are missing.
    """
    before, start, rest = readme.partition(README_START)
    _, end, after = rest.partition(README_END)
    if not start or not end:
        raise BookError(f"README.md: the lines {README_START!r} and {README_END!r} are missing")
    return before + readme_block(book) + after


def _title(chapter: Path) -> str:
    for cell in read_notebook(chapter).cells:
        for line in cell.source.splitlines():
            if cell.cell_type == "markdown" and line.startswith("# "):
                return str(line[2:].strip())
    raise BookError(f"{chapter.name} has no title: start its first cell with a line `# ...`")
