"""`make book`: execute the chapters and build the pages."""

import os
import shutil
import sys
from collections.abc import Mapping

from _scripts.execute import asked_data, execute_chapters
from _scripts.layout import Book, BookError
from _scripts.pages import build_pages, retire_pages
from _scripts.settings import read_settings


def build(book: Book, environment: Mapping[str, str]) -> int:
    """Build the book; messages go to the console, errors to stderr.

    Returns:
        The exit code: 0, or 1 after an error. Then there is no `_build/html`, unless the error lies in the
        settings and nothing was tried.
    """
    try:
        book.pages()
        asked = asked_data(book)
        settings = read_settings(environment, asked=asked)
    except BookError as error:
        return _fail(error)
    chosen = settings.parameters()
    data = "".join(f", {name.replace('_', ' ')} {chosen[name]}" for name in asked)
    print(f"preset {settings.preset}, device {settings.device}{data}", flush=True)
    try:
        execute_chapters(book, settings)
        build_pages(book)
    except BookError as error:
        code = _fail(error)
        if retire_pages(book):
            print("the pages of the last good build are now in _build/html.earlier", flush=True)
        return code
    shutil.rmtree(book.earlier_html, ignore_errors=True)
    shutil.rmtree(book.failed, ignore_errors=True)
    print(f"open {(book.html / 'index.html').as_uri()}", flush=True)
    return 0


def _fail(error: BookError) -> int:
    sys.stdout.flush()
    for line in error.lines():
        print(f"error: {line}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(build(Book(), os.environ))
