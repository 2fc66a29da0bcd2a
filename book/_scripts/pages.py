"""Turn executed chapters into pages with Jupyter Book, warnings as errors."""

import re
import shutil
import subprocess
import sys

from _scripts.execute import SUM_SUFFIX
from _scripts.fingerprints import files_under, fingerprint
from _scripts.layout import Book, BookError

NOT_COPIED = ("_scripts", "companion", "__pycache__")
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


def copy_pages(book: Book) -> None:
    """Lay everything but the notebooks beside the executed copies, and take out what left the book."""
    wanted = {chapter.name for chapter in book.notebooks()}
    copied = set()
    for file in files_under(book.source):
        relative = file.relative_to(book.source)
        if relative.parts[0] in NOT_COPIED or file.suffix == ".ipynb":
            continue
        copied.add(relative)
        target = book.executed / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_bytes() != file.read_bytes():
            shutil.copyfile(file, target)
    for file in files_under(book.executed):
        relative = file.relative_to(book.executed)
        chapter = relative.name.removesuffix(SUM_SUFFIX).removesuffix(".ipynb") + ".ipynb"
        if relative not in copied and not (len(relative.parts) == 1 and chapter in wanted):
            file.unlink()


def build_pages(book: Book) -> None:
    """Build `_build/html` when something changed; it appears whole or not at all.

    Every build is from nothing: Sphinx warns only about pages that it reads again, so that a second run on
    the same tree would hide the warnings of the first.

    Raises:
        BookError: Jupyter Book failed or warned.
    """
    copy_pages(book)
    # The docstrings of both packages are pages too, and scripts are extensions of Sphinx.
    code = [book.root / "mmoe_lib", book.source / "companion", book.source / "_scripts"]
    sources = [book.executed, book.config_file, *code]
    total = fingerprint(book.root, sources, {})
    stored = book.build / f"html{SUM_SUFFIX}"
    if book.html.is_dir() and stored.is_file() and stored.read_text(encoding="utf-8").strip() == total:
        print("pages: up to date", flush=True)
        return
    staging = book.build / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(book.executed)]
    command += ["--config", str(book.config_file), "--path-output", str(staging)]
    done = subprocess.run(
        [*command, "-W", "-n", "--keep-going"], capture_output=True, text=True, check=False, cwd=book.root
    )
    output = done.stdout + done.stderr
    (book.build / "html.log").write_text(output, encoding="utf-8")
    if done.returncode != 0 or not (staging / "_build" / "html" / "index.html").is_file():
        warnings = _warnings(output, book)
        summary = f"pages: Jupyter Book ended with {len(warnings) or 'no'} warnings, see _build/html.log"
        raise BookError(*warnings, summary)
    stored.unlink(missing_ok=True)
    shutil.rmtree(book.html, ignore_errors=True)
    (staging / "_build" / "html").rename(book.html)
    stored.write_text(total + "\n", encoding="utf-8")
    shutil.rmtree(staging)
    print("pages: built", flush=True)


def retire_pages(book: Book) -> bool:
    """Move the pages of an earlier build aside, so that nobody takes them for those of this tree.

    Returns:
        Whether there were any.
    """
    if not book.html.is_dir():
        return False
    shutil.rmtree(book.earlier_html, ignore_errors=True)
    book.html.rename(book.earlier_html)
    return True


def _warnings(output: str, book: Book) -> list[str]:
    """The lines of Sphinx that say what is wrong, with the paths of the tree rather than of the copy."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    found = [line for line in plain.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]
    return list(dict.fromkeys(line.replace(str(book.executed), "book").strip() for line in found))
