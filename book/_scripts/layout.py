"""Where the book's parts lie, and what `_toc.yml` and `_config.yml` say about them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

CHAPTER = re.compile(r"[a-z]?\d+[a-z]?_")
"""How the names of chapters begin: 03_synthetic, its second page 03b_universes, a1_open_choices."""
FURTHER_PAGE = re.compile(r"\d+[b-z]_")
"""And those of a chapter's pages after its first."""

ROOT = Path(__file__).resolve().parents[2]


class BookError(Exception):
    """Ends the build: each argument is one line that says what is wrong and what to do."""

    def lines(self) -> list[str]:
        """The lines to print."""
        return [str(line) for line in self.args]


@dataclass(frozen=True)
class Book:
    """A checkout of the book.

    Attributes:
        root: the folder that holds `_config.yml`, `book/`, `data/` and `mmoe_lib/`.
    """

    root: Path = ROOT

    @property
    def source(self) -> Path:
        """Chapters with stored outputs, pages, bibliography."""
        return self.root / "book"

    @property
    def build(self) -> Path:
        """Everything that is computed; `make clean` removes it."""
        return self.root / "_build"

    @property
    def executed(self) -> Path:
        """The chapters as run for this build, beside copies of the pages: what Jupyter Book reads."""
        return self.build / "executed"

    @property
    def failed(self) -> Path:
        """Half-run copies of chapters that failed, to look into; never read by Jupyter Book."""
        return self.build / "failed"

    @property
    def html(self) -> Path:
        """The pages of the last build that succeeded."""
        return self.build / "html"

    @property
    def earlier_html(self) -> Path:
        """Pages from before a build that failed."""
        return self.build / "html.earlier"

    @property
    def config_file(self) -> Path:
        """Settings of Jupyter Book, and the only place of the repository's address."""
        return self.root / "_config.yml"

    @property
    def repository_url(self) -> str:
        """The repository's address, without a slash at its end.

        Raises:
            BookError: `_config.yml` has none.
        """
        url = (_read_yaml(self.config_file).get("repository") or {}).get("url")
        if not isinstance(url, str) or len(urlsplit(url).path.strip("/").split("/")) != 2:
            raise BookError(f"_config.yml: repository.url is {url!r}, expected https://github.com/OWNER/NAME")
        return url.rstrip("/")

    @property
    def branch(self) -> str:
        """The branch that links point to."""
        return str(_read_yaml(self.config_file)["repository"]["branch"])

    def pages(self) -> list[Path]:
        """Every page of the table of contents, in its order.

        Raises:
            BookError: there is no table of contents, it names no page, or a page that does not exist.
        """
        toc = self.source / "_toc.yml"
        names = list(_names(_read_yaml(toc)))
        if not names:
            raise BookError("book/_toc.yml names no page: give it `root:` and `chapters:`")
        return [self._page(name) for name in names]

    def notebooks(self) -> list[Path]:
        """The pages that are notebooks: all of them are run.

        Raises:
            BookError: as `pages`, or no page is a notebook.
        """
        notebooks = [page for page in self.pages() if page.suffix == ".ipynb"]
        if not notebooks:
            raise BookError("book/_toc.yml names no notebook: there is no chapter to run")
        return notebooks

    def chapters(self) -> list[Path]:
        """The notebooks that a reader runs on their own, by their names: not the opening page, not the status page.

        Raises:
            BookError: as `notebooks`.
        """
        return [notebook for notebook in self.notebooks() if CHAPTER.match(notebook.name)]

    def _page(self, name: str) -> Path:
        stem = self.source / name.removesuffix(".ipynb").removesuffix(".md")
        for suffix in (".ipynb", ".md"):
            page = stem.with_name(stem.name + suffix)
            if page.is_file():
                return page
        raise BookError(
            f"book/_toc.yml names {name!r}, but there is neither book/{name}.ipynb nor book/{name}.md: "
            "write the page or take it out"
        )


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BookError(f"{path.name} is missing: expected at {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BookError(f"{path.name} is no YAML: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}


def _names(node: Any) -> Iterator[str]:
    """The names under `root:` and `file:`, in the order of the file."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("root", "file"):
                yield str(value)
            else:
                yield from _names(value)
    elif isinstance(node, list):
        for item in node:
            yield from _names(item)
