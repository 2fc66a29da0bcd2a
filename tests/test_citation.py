"""How to cite: one version, one address, one paper, wherever it is said."""

import re
import sys
from importlib import import_module
from typing import Any

import pytest
import yaml
from _scripts.layout import ROOT, Book
from _scripts.links import pages_link

PAGES = ("book/cite.md",)


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    content: dict[str, Any] = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return content


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    return content


def entries(path: str) -> dict[str, dict[str, str]]:
    """The BibTeX entries of a file: by key, their fields."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return {
        key: dict(re.findall(r"^ +(\w+) += \{(.+)\},?$", body, re.MULTILINE))
        for key, body in re.findall(r"^@\w+\{(\w+),\n(.+?)\n\}", text, re.MULTILINE | re.DOTALL)
    }


def test_citation_file_has_what_its_format_asks_for(citation: dict[str, Any]) -> None:
    assert citation["cff-version"] == "1.2.0"
    for key in ("message", "title", "authors"):
        assert citation[key], key
    for person in citation["authors"] + citation["references"][0]["authors"]:
        assert set(person) in ({"name"}, {"family-names", "given-names"})
    assert set(citation) <= {
        *("abstract", "authors", "cff-version", "keywords", "license", "message", "references"),
        *("repository-code", "title", "type", "url", "version"),
    }, "look up the key in the format's schema, then name it here"


def test_citation_file_says_what_the_tree_says(
    citation: dict[str, Any], project: dict[str, Any], config: dict[str, Any]
) -> None:
    book = Book()
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["title"] == config["title"]
    assert citation["authors"] == [{"name": config["author"]}]
    assert citation["repository-code"] == book.repository_url
    assert citation["url"] == pages_link(book)


def test_citation_file_names_the_paper_as_the_bibliography_does(citation: dict[str, Any]) -> None:
    (paper,) = citation["references"]
    printed = entries("book/references.bib")["ma2018modeling"]
    assert paper["title"] == printed["title"]
    assert paper["doi"] == printed["doi"]
    assert str(paper["year"]) == printed["year"]
    assert f"{paper['start']}--{paper['end']}" == printed["pages"]
    assert paper["collection-title"] == printed["booktitle"]
    names = [f"{person['family-names']}, {person['given-names']}" for person in paper["authors"]]
    assert " and ".join(names) == printed["author"]


@pytest.mark.parametrize("path", PAGES)
def test_pages_give_both_entries(path: str, citation: dict[str, Any], config: dict[str, Any]) -> None:
    found = entries(path)
    assert set(found) == {"mmoe_rerun", "ma2018modeling"}
    assert found["ma2018modeling"] == entries("book/references.bib")["ma2018modeling"]
    book = found["mmoe_rerun"]
    assert re.sub(r"[{}]", "", book["title"]) == config["title"]
    assert book["author"] == "{" + config["author"] + "}"
    assert book["year"] == config["copyright"]
    assert book["version"] == citation["version"]
    assert book["howpublished"] == rf"\url{{{citation['repository-code']}}}"


def test_bibliography_entries_are_complete_and_their_keys_unique() -> None:
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{(.+),$", text, re.MULTILINE)
    assert len(keys) == len(set(keys))
    parsed = entries("book/references.bib")
    assert set(parsed) == set(keys)
    for key, fields in parsed.items():
        assert {"title", "author", "year"} <= set(fields), key
        assert {"booktitle", "journal", "howpublished", "eprint"} & set(fields), (
            f"{key}: where did it appear?"
        )
        assert fields["year"] in key, key
