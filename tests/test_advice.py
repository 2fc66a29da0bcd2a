"""`compare` on frames whose answer is known, what it refuses, and the page it writes."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mmoe_lib.frames import Advice, FitSettings, MultiTaskModel, compare
from mmoe_lib.frames.advice import CLAIMS, TREES, sentence

FEW = FitSettings(epochs=2, runs=2, batch_size=64)
BAD = '<script>alert("&")</script>'


def frame_of_two(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["click"] = frame["a"] + rng.normal(size=rows) > 0
    frame["like"] = frame["b"] + rng.normal(size=rows) > 0
    return frame


def quick(frame: pd.DataFrame, targets: Any = ("click", "like"), **given: Any) -> Advice:
    return compare(frame, list(targets), **{"settings": FEW, "rates": [0.01], "progress": False, **given})


@pytest.fixture(scope="module", autouse=True)
def few_trees() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmoe_lib.frames.advice.TREE_RATES", (0.1,))
        patch.setattr("mmoe_lib.frames.trees.ROUNDS", 5)
        yield


@pytest.fixture(scope="module")
def shared() -> Advice:
    """One function of twenty inputs under two names, one of them with twenty labels: sharing must help it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1400, 20))
    signal = x @ rng.normal(size=20) / np.sqrt(20)
    frame = pd.DataFrame(x, columns=[f"x{place}" for place in range(20)])
    frame["plenty"] = signal + 0.1 * rng.normal(size=len(x))
    frame["scarce"] = signal + 0.1 * rng.normal(size=len(x))
    frame.loc[(frame.index < 300) & (frame.index % 15 > 0), "scarce"] = np.nan
    return compare(
        frame[:300],
        ["plenty", "scarce"],
        validation=frame[300:500],
        test=frame[500:],
        rates=[0.02],
        settings=FitSettings(epochs=20, runs=5, batch_size=100, patience=9),
        smallest=1.0,
        progress=False,
    )


@pytest.fixture(scope="module")
def noise() -> Advice:
    """Labels of two coins, under a name that is no good HTML."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"x": rng.normal(size=500), BAD: rng.random(500) < 0.5, "like": rng.random(500) < 0.5}
    )
    return quick(frame, [BAD, "like"], settings=FitSettings(epochs=2, runs=3))


def word(advice: Advice, target: str, claim: str) -> str:
    rows = advice.verdicts[(advice.verdicts["target"] == target) & (advice.verdicts["claim"] == claim)]
    return str(rows["verdict"].item())


def test_where_sharing_must_help_it_is_found_to(shared: Advice) -> None:
    assert word(shared, "scarce", "a shared bottom helps") == "supports"
    assert not shared.advice.startswith(("Open", "Keep"))
    assert "scarce" in shared.advice


def test_coins_are_open(noise: Advice) -> None:
    assert set(noise.verdicts["verdict"]) <= {"open", "contradicts"}
    assert noise.advice.startswith("Open: ")
    means = noise.table["mean"]
    assert means.between(30, 70).all()


def test_every_method_has_its_row_and_about_as_many_parameters(shared: Advice) -> None:
    table = shared.table[shared.table["target"] == "scarce"].set_index("method")
    assert len(table) == 5
    assert (table["low"] <= table["mean"]).all()
    size = table["parameters"].drop(TREES)
    size["a network a task"] *= 2
    assert size.max() / size.min() < 1.05
    assert list(shared.verdicts["claim"]) == [*CLAIMS] * 2
    assert len(shared.scores) == 2 * 5 * 5
    assert shared.gates["entropy"].between(0, 1).all()


def test_the_difference_is_that_of_pairs(shared: Advice) -> None:
    scores = shared.scores[shared.scores["target"] == "plenty"].pivot_table("value", "run", "method")
    difference = (scores["MMoE"] - scores["a network a task"]).mean()
    row = shared.verdicts.query("target == 'plenty' and claim == 'MMoE helps'").iloc[0]
    assert row["difference"] == pytest.approx(difference)
    assert row["low"] < difference < row["high"]


def test_test_rows_move_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the labels of the test rows turned round, every choice and every trained weight stays."""
    monkeypatch.setattr("mmoe_lib.frames.advice.importlib.util.find_spec", _without("sklearn"))
    train, test = frame_of_two(), frame_of_two(seed=2)
    turned = test.assign(click=~test["click"], like=~test["like"])
    first, second = (quick(train, rates=[0.01, 1e-9], test=part) for part in (test, turned))
    assert set(first.table["rate"].dropna()) == {0.01}  # with the other nothing is learned
    assert first.table["rate"].equals(second.table["rate"])
    both = first.table["mean"] + second.table["mean"]
    # the same predictions: AUC of labels turned round is 1 less the AUC, up to the blocks' own rows
    assert both.dropna().between(90, 110).all()
    assert first.pairs["gradient_cosine"].equals(second.pairs["gradient_cosine"])


def _without(name: str) -> Any:
    real = __import__("importlib.util").util.find_spec
    return lambda wanted: None if wanted == name else real(wanted)


def test_without_scikit_learn_the_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmoe_lib.frames.advice.importlib.util.find_spec", _without("sklearn"))
    imported = builtins.__import__

    def refuse(name: str, *rest: Any, **given: Any) -> Any:
        assert not name.startswith("sklearn")
        return imported(name, *rest, **given)

    monkeypatch.setattr(builtins, "__import__", refuse)
    found = quick(frame_of_two())
    rows = found.table[found.table["method"] == TREES]
    assert list(rows["note"]) == ["needs scikit-learn"] * 2
    assert rows["mean"].isna().all()
    assert TREES not in set(found.verdicts["first"])
    assert any("pip install scikit-learn" in note for note in found.notes)


def test_classes_weights_missing_labels_ids_and_text(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = frame_of_two(240)
    frame["like"] = frame["like"].astype("boolean").where(frame["click"])
    frame["kind"] = np.where(frame["a"] > 0.5, "much", np.where(frame["a"] < -0.5, "little", "some"))
    frame["user"], frame["w"] = rng.integers(0, 20, 240), rng.integers(0, 3, 240)
    frame["tags"] = [["x", "y"][: place % 3] for place in range(240)]
    found = quick(frame, ["click", "like", "kind"], weights="w", embeddings=["user"])
    assert list(found.table.groupby("target", sort=False)["metric"].first()) == ["AUC", "AUC", "accuracy"]
    assert found.table["mean"].notna().all()
    assert len(found.pairs) == 3
    found.to_html(tmp_path / "page.html")


def test_the_atlas_says_where_a_pair_lies() -> None:
    pairs = np.arange(12)
    rows = pd.DataFrame({"pair": pairs, "test_auc_1": 0.7, "test_auc_2": 0.8, "gradient_cosine": np.nan})
    atlas = pd.concat(
        [
            rows.assign(model="Single-Task"),
            rows.assign(model="Shared-Bottom", gradient_cosine=-2.0 - pairs),
            rows.assign(model="MMoE", test_auc_1=0.7 + 0.01 * pairs),
        ]
    )
    found = quick(frame_of_two(), atlas=atlas).pairs.iloc[0]
    assert found["atlas_below"] == 1.0  # no cosine lies below -2
    # the ten nearest are pairs 0 to 9, whose mean AUC rises by half of 0 to 9 points
    assert found[["atlas_gain", "atlas_least", "atlas_most"]].tolist() == pytest.approx([2.25, 0.0, 4.5])
    with pytest.raises(ValueError, match="no column 'gradient_cosine', expected the book's"):
        quick(frame_of_two(), atlas=rows.drop(columns="gradient_cosine").assign(model="MMoE"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"settings": FitSettings(runs=1)}, "runs is 1, expected .* 2 or more: one seed advises nothing"),
        ({"settings": FitSettings(runs=2, balancer="uncertainty")}, "a balancer or task weights"),
        ({"settings": FitSettings(runs=2, task_weights={"like": 2.0})}, "a balancer or task weights"),
        ({"settings": 3}, "settings: int, expected FitSettings"),
        ({"targets": []}, "targets is empty"),
        ({"targets": ["click"]}, "'click' alone, expected two or more"),
        ({"targets": ["click", "love"]}, "'love'"),
        ({"rates": []}, "rates is empty"),
        ({"rates": [-1]}, "a learning rate"),
        ({"smallest": {"love": 1.0}}, "smallest names 'love'"),
        ({"smallest": -1}, "smallest of 'click'"),
        ({"test": None}, "test is None, expected a share"),
        ({"test": 1.5}, "test is 1.5 of 300 rows"),
        ({"validation": None}, "validation is None, expected a share"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        quick(frame_of_two(), **given)
    assert "\n" not in str(raised.value)


def test_one_class_in_a_part_is_refused_before_anything_is_trained() -> None:
    frame = frame_of_two()
    lone = frame[~frame["click"]]
    with pytest.raises(
        ValueError, match=r"'click' has one value or none in the \d+ test rows, expected each value in"
    ):
        quick(frame, test=lone)
    few = pd.concat([lone, frame[frame["click"]][:1]])
    with pytest.raises(ValueError, match=r"'click' has 1 of its rarest value in the \d+ test rows"):
        quick(frame, test=few)
    with pytest.raises(ValueError, match="target 'click' holds 1 distinct value"):
        quick(lone, test=frame, validation=frame)
    unlabelled = frame.assign(like=frame["like"].astype("boolean").where(frame["a"] > 99))
    with pytest.raises(ValueError, match="'like' has no label in the 300 validation rows"):
        quick(frame, test=frame, validation=unlabelled)


def test_a_rate_at_which_all_runs_diverge_is_not_chosen_and_none_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmoe_lib.frames.advice.importlib.util.find_spec", _without("sklearn"))
    frame = frame_of_two()
    frame["like"] = frame["a"] * 3  # a squared error that can blow up
    found = quick(frame, rates=[1e18, 0.01])
    assert set(found.table["rate"].dropna()) == {0.01}
    assert set(found.table["note"]) == {"rate at the edge", "needs scikit-learn"}
    dead = quick(frame, rates=[1e18])
    assert set(dead.verdicts["verdict"]) == {"open"}
    assert dead.advice.startswith("Open: ")
    assert "no run ended well" in set(dead.table["note"])
    assert "no run" in repr(dead)


@pytest.mark.filterwarnings("ignore:.*not predicted better")  # two passes learn little
def test_own_orders_are_those_of_runs_trained_alone() -> None:
    frame = frame_of_two()
    settings = {"epochs": 2, "batch_size": 32}
    train, held = frame[:200], frame[200:]
    given: dict[str, Any] = {"targets": ["click", "like"], "validation": held, "progress": False}
    together = MultiTaskModel.fit(train, settings=FitSettings(runs=2, own_orders=True, **settings), **given)  # type: ignore[arg-type]
    alone = MultiTaskModel.fit(train, settings=FitSettings(seed=1, **settings), **given)  # type: ignore[arg-type]
    x = together.encoder.encode(held)
    torch.testing.assert_close(
        together.ensemble.predict(x)[1], alone.ensemble.predict(x)[0], rtol=1e-4, atol=1e-5
    )


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_escapes_everything(noise: Advice, tmp_path: Path) -> None:
    noise.to_html(tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(content)
    assert "script" not in page.tags
    assert page.addresses == []
    assert not re.search(r"https?:|@import|url\(", content)
    assert "light dark" in content
    assert page.text.count(BAD) >= 10  # in advice, claims, figure and tables, as text
    assert noise.advice in page.text
    assert page.tags.count("circle") == len(noise.verdicts)
    assert list(tmp_path.iterdir()) == [tmp_path / "page.html"]


def verdicts(**words: str) -> pd.DataFrame:
    """Words by claim, on one target or, separated by commas, on several."""
    short = dict(zip(("shared", "mmoe", "gates", "trees"), CLAIMS, strict=True))
    rows = [
        {"target": f"t{place}", "claim": short[name], "word": word, "runs_needed": 60.0}
        for name, given in words.items()
        for place, word in enumerate(given.split(","))
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"shared": "open", "mmoe": "open", "gates": "larger", "trees": "larger"}, "Open: .*about 10 times"),
        (
            {"shared": "larger", "mmoe": "larger", "gates": "larger", "trees": "larger"},
            "Take MMoE: .*two layers",
        ),
        (
            {"shared": "larger", "mmoe": "larger", "gates": "open", "trees": "open"},
            "Share the network: .* is open",
        ),
        (
            {"shared": "open", "mmoe": "larger", "gates": "smaller", "trees": "open"},
            "Share the network: .*simpler",
        ),
        ({"shared": "larger", "mmoe": "open", "gates": "open", "trees": "open"}, "Share a bottom"),
        ({"shared": "smaller", "mmoe": "smaller", "gates": "open", "trees": "open"}, "Keep a network a task"),
        ({"shared": "open", "mmoe": "larger", "gates": "larger", "trees": "smaller"}, "Take boosted trees"),
        (
            {"shared": "open,open", "mmoe": "larger,smaller", "gates": "open,open", "trees": "open,smaller"},
            "Weigh it: MMoE leads .* on t0 and trails it on t1.*; on t1 boosted trees lead it",
        ),
    ],
)
def test_the_sentence_follows_from_the_verdicts(words: dict[str, str], told: str) -> None:
    text = sentence(verdicts(**words), pd.DataFrame({"run": range(6)}))
    assert re.match(told, text), text
    assert text.count(".") == 1


def test_scipy_is_asked_for_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmoe_lib.frames.advice.importlib.util.find_spec", _without("scipy"))
    with pytest.raises(ImportError, match="compare needs scipy"):
        quick(frame_of_two())
