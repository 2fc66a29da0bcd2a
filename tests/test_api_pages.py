"""The API pages leave nothing of the two packages out, and docstrings reach them as they were meant."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from _scripts.docstrings import as_prose, short_arrays
from _scripts.layout import ROOT, Book

API = ROOT / "book" / "api"
FOLDERS = {"mmoe_lib": ROOT, "companion": ROOT / "book"}  # where each package lies
PAGES = sorted(API.rglob("*.md"))
DIRECTIVE = re.compile(r"^```\{eval-rst\}\n\.\. automodule:: (\S+)\n((?:   :[\w-]+:.*\n)*)```$", re.MULTILINE)


def name_of(file: Path, folder: Path) -> str:
    """The import name of a file below the folder of its package."""
    parts = file.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files() -> dict[str, Path]:
    """Every module that somebody may import, by name."""
    found = {
        name_of(file, folder): file
        for package, folder in FOLDERS.items()
        for file in sorted((folder / package).rglob("*.py"))
        if file.stem != "__main__"
    }
    return {name: file for name, file in found.items() if not name.rsplit(".", 1)[-1].startswith("_")}


def shown() -> dict[str, list[str]]:
    """The pages on which each module stands."""
    pages: dict[str, list[str]] = {}
    for page in PAGES:
        for module, _ in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            pages.setdefault(module, []).append(page.relative_to(API).as_posix())
    return pages


def documented(file: Path) -> set[str]:
    """Names of a module that Sphinx takes up: what is defined there and has a docstring."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    names = set()
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            text = following.value if isinstance(following, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names


def packages() -> list[str]:
    return [
        name
        for name, file in files().items()
        if file.stem == "__init__" and hasattr(import_module(name), "__all__")
    ]


def test_every_module_stands_on_one_page() -> None:
    pages = shown()
    for module in files():
        if module in FOLDERS:
            continue
        assert module in pages, f"{module} is on no page: add `.. automodule:: {module}` to one in book/api/"
        part = "companion" if module.startswith("companion.") else "."
        assert {Path(page).parent.as_posix() for page in pages[module]} == {part}, f"{module}: the other part"
        if len(pages[module]) == 1:
            continue
        pytest.fail(f"{module} is on the pages {pages[module]}, expected one")
    assert set(pages) <= set(files()), "a page names a module that is not there"


@pytest.mark.parametrize("package", packages())
def test_every_public_name_has_an_entry(package: str) -> None:
    """What a package gives is defined in one of the modules, all of which are shown, with a docstring there."""
    entries = {
        name for module, file in files().items() if module.startswith(package) for name in documented(file)
    }
    entries |= {module.rsplit(".", 1)[1] for module in shown() if module.startswith(f"{package}.")}
    missing = set(import_module(package).__all__) - entries
    assert not missing, f"{sorted(missing)} of {package} have no docstring and so no entry on the API pages"


def test_every_page_is_in_the_table_of_contents_and_on_the_first_one_of_its_part() -> None:
    listed = [page for page in Book().pages() if API in page.parents]
    assert sorted(listed) == PAGES
    for folder in (API, API / "companion"):
        first, *others = [page for page in listed if page.parent == folder]
        assert first == folder / "index.md"
        named = re.findall(r"^\| \[[^]]+\]\((\w+)\.md\)", first.read_text(encoding="utf-8"), re.MULTILINE)
        assert [f"{name}.md" for name in named] == [page.name for page in others]


def test_directives_are_written_in_one_form() -> None:
    """So that the tests above see all of them."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("automodule") == len(DIRECTIVE.findall(text)), page.name


# Docstrings as prose


@pytest.mark.parametrize(
    ("what", "text", "expected"),
    [
        # No sentence is a type.
        ("function", "Returns:\n    One row a run: the loss.", "Returns:\n    : One row a run: the loss."),
        ("function", "Args:\n    rows: One row a run.", "Args:\n    rows: One row a run."),
        ("data", "What a model sees: ids.", ": What a model sees: ids."),
        ("function", "What a model sees: ids.", "What a model sees: ids."),
        ("data", "No colon.", "No colon."),
        ("function", "Returns:", "Returns:"),
        # No sign is markup, unless in code.
        ("function", "2 * 3, |x|, low_ and low_0", r"2 \* 3, \|x\|, low\_ and low_0"),
        ("function", "`2 * low_` and f(**sizes)", r"`2 * low_` and f(\*\*sizes)"),
        ("class", "Do:\n\n    >>> 2 * 3\n    6\n\n2 * 3", "Do:\n\n    >>> 2 * 3\n    6\n\n2 \\* 3"),
        # A letter with a full stop begins no list.
        ("class", "Args:\n    num_tasks: K.\n    seed: One.", "Args:\n    num_tasks: \\K.\n    seed: One."),
    ],
)
def test_docstrings_are_prose(what: str, text: str, expected: str) -> None:
    assert as_prose(what, text.split("\n")) == expected.split("\n")


def test_arrays_are_shown_as_they_are_written() -> None:
    assert short_arrays("(x: ndarray[tuple[Any, ...], dtype[float64]])") == "(x: NDArray[float64])"
    assert short_arrays("ndarray[Any, dtype[int64]] | None") == "NDArray[int64] | None"
    assert short_arrays("(x: Tensor)") == "(x: Tensor)"
