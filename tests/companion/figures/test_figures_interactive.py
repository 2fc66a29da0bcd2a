"""Figures that a reader can move: their numbers are those of the results, their pages need nothing else."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import generated_atlas
import numpy as np
import pandas as pd
import pytest
import torch

from companion import results
from companion.figures import interactive
from companion.figures.interactive import Interactive
from companion.figures.interactive import fragment as fragments
from companion.figures.interactive.universes import INITIALISERS, KINDS
from companion.results import atlas as atlas_results
from companion.results.universes import universe_differences
from companion.study.initialisers import INITIALISERS as OF_STUDY
from companion.study.universe_labels import OTHER_KINDS
from companion.study.universes import FIGURE_2, label_of
from companion.synthetic_labels import label_correlation
from mmoe_lib.tasks.synthetic import noiseless_labels

pytestmark = pytest.mark.usefixtures("headless")

ROOM = Path(fragments.__file__).parent
NAMES = ("slide-p", "census-person", "census-runs", "universes", "lab", "atlas", "own-runs", "costs")
MOST_BYTES = 300_000
MODELS = ("Shared-Bottom", "OMoE", "MMoE")
SURVEYED = ("Single-Task", "Shared-Bottom", "Shared-Bottom-96-32", "OMoE", "MMoE")
SURVEY = (*range(120), *range(1_000, 1_010), *range(2_000, 2_010), *range(3_000, 3_010))
"""The numbers of as many universes as the survey of the paper's preset has."""


@pytest.fixture(scope="module")
def slide() -> pd.DataFrame:
    return results.read_results("synthetic_slide", preset="paper")


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return results.balanced(results.read_results("census", preset="paper"))


@pytest.fixture(scope="module")
def person() -> dict[str, Any]:
    return results.read_census_person()


def survey_rows(numbers: Sequence[int], runs: int = 12) -> pd.DataFrame:
    """Made-up runs of five models in universes; the loss of Shared-Bottom rises with the universe's number."""
    random = np.random.default_rng(0)
    rows = []
    for universe, model, p in product(numbers, SURVEYED, (0.5, 1.0)):
        rise = 0.05 * (universe % 10) if model == "Shared-Bottom" else 0.0
        losses = random.gamma(2, 0.05, (runs, 2)) + rise
        rows += [
            (universe, model, p, 1_000 * (universe + 1) + run, 0, *pair.round(5))
            for run, pair in enumerate(losses)
        ]
    names = ["universe", "model", "task_correlation", "seed", "diverged_step", "loss_1", "loss_2"]
    return pd.DataFrame(rows, columns=names)


def universe_rows(numbers: Sequence[int]) -> pd.DataFrame:
    """Made-up labels of four to seven sines, ten for those of PLE's kind."""
    kinds = ("figure 2", "PLE", "smoother", "rougher")
    random = np.random.default_rng(1)
    rows = []
    for number in numbers:
        sines = 10 if kinds[number // 1_000] == "PLE" else 4 + number % 4
        row: dict[str, float | str] = {
            "seed": number,
            "kind": kinds[number // 1_000],
            "c": random.uniform(0.03, 1.5),
        }
        for place in range(1, 11):
            row[f"alpha_{place}"] = random.uniform(0.3, 9) / float(row["c"]) if place <= sines else np.nan
            row[f"beta_{place}"] = random.uniform(0, 6.28) if place <= sines else np.nan
        rows.append(row | {"own_batch_size": 32, "own_initialiser": "glorot", "own_rate": 0.00058})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def histogram() -> pd.DataFrame:
    return results.read_paper("figure5_final_loss_histogram")


def atlas_tables() -> tuple[dict[str, pd.DataFrame], pd.DataFrame, pd.DataFrame]:
    """Effects, features and pairs of a made atlas."""
    facts = generated_atlas.pairs(12)
    rows = generated_atlas.runs(facts)
    effects = {effect: atlas_results.pair_effects(rows, effect) for effect in atlas_results.EFFECTS}
    return effects, atlas_results.pair_features(rows, facts), facts


def make(slide: pd.DataFrame, runs: pd.DataFrame, person: dict[str, Any]) -> dict[str, Interactive]:
    histogram = results.read_paper("figure5_final_loss_histogram")
    made = (
        interactive.slide_p(slide, "fig-slide"),
        interactive.census_person(person, "fig-person"),
        interactive.census_runs(runs),
        interactive.universes(survey_rows(SURVEY), universe_rows(SURVEY), histogram, "fig-universe"),
        interactive.lab("fig-lab"),
        interactive.atlas(*atlas_tables(), 0.1, "fig-atlas"),
        interactive.costs("Measured.", "fig-costs"),
        interactive.own_runs({"one": [0.1, 0.2], "other": [0.3, 0.5]}, 0.1, "fig-own"),
    )
    return {figure.name: figure for figure in made}


@pytest.fixture(scope="module")
def figures(slide: pd.DataFrame, runs: pd.DataFrame, person: dict[str, Any]) -> dict[str, Interactive]:
    return make(slide, runs, person)


class Tags(HTMLParser):
    """The tags of a page with their attributes, and the text of every script; unclosed tags are an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data))


def data_of(figure: Interactive) -> dict[str, Any]:
    data, _ = (text for tag, text in Tags(figure.html).texts if tag == "script")
    content: dict[str, Any] = json.loads(data)
    return content


# Pages


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_one_piece_of_html_that_asks_for_nothing(
    name: str, figures: dict[str, Interactive]
) -> None:
    page = Tags(figures[name].html)
    assert [tag for tag, _ in page.found] == ["figure", "style", "figcaption", "script", "script"]
    root = page.found[0][1]
    assert root["class"] == "mmoe-interactive"
    assert root["data-figure"] == name
    assert page.found[3][1] == {"type": "application/json"}
    assert not any({"src", "href"} & set(attributes) for _, attributes in page.found)
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'`]*", figures[name].html))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the name of SVG, which nothing is fetched from"
    assert not re.search(r"\bfetch\(|XMLHttpRequest|@import|url\(|\bimport\b *[({'\"]", figures[name].html)


@pytest.mark.parametrize("name", NAMES)
def test_data_are_small(name: str, figures: dict[str, Interactive]) -> None:
    data = next(text for tag, text in Tags(figures[name].html).texts if tag == "script")
    assert len(data.encode()) < MOST_BYTES


def test_the_same_rows_give_the_same_bytes(
    figures: dict[str, Interactive], slide: pd.DataFrame, runs: pd.DataFrame, person: dict[str, Any]
) -> None:
    again = make(slide.copy(), runs.copy(), json.loads(json.dumps(person)))
    assert {name: figure.html for name, figure in again.items()} == {
        name: figure.html for name, figure in figures.items()
    }
    for figure in figures.values():
        assert figure._repr_html_() == figure.html
        assert repr(figure) == f"<interactive figure {figure.name}>"
        assert not re.search(r"\d\.\d{7}", data_text := json.dumps(data_of(figure)["controls"])), data_text


@pytest.mark.parametrize("name", NAMES)
def test_every_control_has_a_name_a_label_and_a_place_to_start(
    name: str, figures: dict[str, Interactive]
) -> None:
    data = data_of(figures[name])
    controls = data["controls"]
    assert controls
    assert len({control["name"] for control in controls}) == len(controls)
    for control in controls:
        assert control["label"].strip()
        known = rf"^(  {control['kind']}|KINDS\.{control['kind']} = )\(control, id\)"
        assert re.search(known, figures[name].html, re.MULTILINE), control["kind"]
        if control["kind"] in ("range", "choice"):
            assert 0 <= control["start"] < len(control["texts"])
        assert all(text.strip() for text in control.get("texts", ["."]))
    assert len(data["caption"]) > 60


@pytest.mark.parametrize("name", NAMES)
def test_where_no_script_runs_a_sentence_leads_to_the_picture(
    name: str, figures: dict[str, Interactive]
) -> None:
    shown = [text for tag, text in Tags(figures[name].html).texts if tag not in ("style", "script")]
    assert len(shown) == 1
    assert "above" in shown[0]
    assert re.search(r"pictures? above", shown[0])


def test_text_in_data_cannot_end_the_script() -> None:
    figure = fragments.fragment(
        "x", ("slide_p.js",), {"text": "</script><b>"}, [], "A < B", elsewhere="A < B & C", picture='a"b'
    )
    assert data_of(figure)["text"] == "</script><b>"
    assert Tags(figure.html).found[0][1]["data-picture"] == 'a"b'


def test_scripts_and_style_are_part_of_the_package(figures: dict[str, Interactive]) -> None:
    used = "\n".join(figure.html for figure in figures.values())
    files = [file for file in ROOM.iterdir() if file.suffix in (".js", ".css")]
    assert len(files) == 15
    for file in files:
        assert file.read_text(encoding="utf-8").strip() in used, file.name
        assert "</" not in file.read_text(encoding="utf-8").replace("</label>", ""), file.name


# Colours


def luminance(colour: str) -> float:
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_and_marks_stand_out_in_light_and_in_dark(figures: dict[str, Interactive]) -> None:
    style = next(text for tag, text in Tags(figures["census-runs"].html).texts if tag == "style")
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style, re.IGNORECASE)
    colours = {name: (light, dark) for name, light, dark in pairs}
    assert {fragments.colour_name(model) for model in fragments.MODELS} < set(colours)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for name, both in colours.items():
        for colour, ground in zip(both, colours["ground"], strict=True):
            if name in ("text", "soft"):
                assert contrast(colour, ground) >= 4.5, name
            elif name not in ("ground", "grid"):
                assert contrast(colour, ground) >= 3, name


# The slide


def test_the_slide_shows_the_means_and_intervals_of_the_results(slide: pd.DataFrame) -> None:
    data = interactive.slide_data(slide)
    assert data["p"] == [round(p / 10, 1) for p in range(11)]
    assert data["correlation"] == pytest.approx([label_correlation(p) for p in data["p"]], abs=1e-4)
    curves = results.summarise(results.loss_curves(slide), ["model", "task_correlation", "step"], "loss")
    assert [model["name"] for model in data["models"]] == list(MODELS)
    for model in data["models"]:
        for p, curve, final, count in zip(
            data["p"], model["curves"], model["final"], model["runs"], strict=True
        ):
            chosen = (slide["model"] == model["name"]) & (slide["task_correlation"] == p)
            trained = slide[chosen & (slide["diverged_step"] == 0)]
            assert final == pytest.approx(results.mean_interval(trained["loss_1"]), abs=1e-4)
            assert count == len(trained)
            rows = curves[(curves["model"] == model["name"]) & (curves["task_correlation"] == p)]
            rows = rows.sort_values("step")
            assert list(rows["step"]) == data["steps"]
            for end in ("mean", "low", "high"):
                assert curve[end] == pytest.approx(rows[end].to_numpy(), abs=1e-4)


def test_the_slides_gates_are_those_of_ranked_experts(slide: pd.DataFrame) -> None:
    data = interactive.slide_data(slide)
    mixtures = slide[(slide["model"] == "MMoE") & (slide["diverged_step"] == 0)]
    use = results.expert_use(mixtures)
    for index, p in enumerate(data["p"]):
        for task in (1, 2):
            of_task = use[(use["task_correlation"] == p) & (use["task"] == task)]
            means = of_task.groupby("rank")["weight"].mean()
            assert data["gates"][index][task - 1] == pytest.approx(means.to_numpy(), abs=1e-4)
            assert sum(data["gates"][index][task - 1]) == pytest.approx(1, abs=2e-3)
        distances = mixtures.loc[mixtures["task_correlation"] == p, "gate_distance"]
        ends = [data["distance"][end][index] for end in ("mean", "low", "high")]
        assert ends == pytest.approx(results.mean_interval(distances), abs=1e-4)


def test_runs_that_diverged_and_other_models_are_not_on_the_slide(slide: pd.DataFrame) -> None:
    spoilt = slide.copy()
    spoilt.loc[spoilt.index[0], ["diverged_step", "loss_1"]] = [7, np.nan]
    other = slide[slide["model"] == "MMoE"].assign(model="Shared-Bottom-16")
    data = interactive.slide_data(pd.concat([spoilt, other]))
    first = next(model for model in data["models"] if model["name"] == spoilt["model"].iloc[0])
    place = data["p"].index(spoilt["task_correlation"].iloc[0])
    counts = list(first["runs"])
    assert counts.pop(place) == max(counts) - 1


def test_the_picture_of_the_slide_draws_the_same_numbers(slide: pd.DataFrame) -> None:
    data = interactive.slide_data(slide)
    labels, losses, gates = interactive.slide_p_picture(slide, "A finding").axes
    assert labels.lines[0].get_ydata() == pytest.approx(data["closed"]["correlation"])
    assert [line.get_label() for line in losses.lines] == list(MODELS)
    assert losses.lines[2].get_ydata() == pytest.approx([mean for mean, _, _ in data["models"][2]["final"]])
    assert gates.lines[0].get_ydata() == pytest.approx(data["distance"]["mean"])
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in (labels, losses, gates))


# The census runs


def test_the_runs_are_all_there_with_the_means_and_intervals_of_the_results(runs: pd.DataFrame) -> None:
    data = interactive.runs_data(runs)
    assert [method["name"] for method in data["methods"]] == list(dict.fromkeys(runs["model"]))
    metrics = ["test_main_auc", "test_auxiliary_auc", "validation_main_auc", "validation_auxiliary_auc"]
    for group, shown in zip(dict.fromkeys(runs["setting"]), data["groups"], strict=True):
        for metric, table in zip(metrics, shown["metrics"], strict=True):
            for method, row in zip(data["methods"], table, strict=True):
                rows = runs[(runs["model"] == method["name"]) & (runs["setting"] == group)]
                able = results.learned(rows)
                values = np.array(row["values"]) / data["scale"]
                assert values == pytest.approx(rows[metric].to_numpy(), abs=1e-9)
                assert row["all"] == pytest.approx(results.mean_interval(rows[metric]), abs=1e-5)
                assert row["learned"] == pytest.approx(results.mean_interval(able[metric]), abs=1e-5)
                assert sorted(np.delete(values, row["stuck"])) == pytest.approx(sorted(able[metric]))


def test_a_method_whose_runs_diverged_has_no_mean() -> None:
    rows = pd.DataFrame(
        [
            (model, "income", auc, auc, auc, auc)
            for model, aucs in {"MMoE": (0.94, np.nan, 0.5), "OMoE": (0.94, 0.95)}.items()
            for auc in aucs
        ],
        columns=[
            "model", "setting", "test_main_auc", "test_auxiliary_auc", "validation_main_auc", "validation_auxiliary_auc"
        ],
    )  # fmt: skip
    mmoe, omoe = interactive.runs_data(rows)["groups"][0]["metrics"][0]
    assert mmoe["values"] == [940_000, 500_000]
    assert mmoe["stuck"] == [1]
    assert mmoe["learned"] is None
    assert mmoe["all"] is not None
    assert omoe["learned"] == omoe["all"]


# The person


def node() -> str:
    """A JavaScript engine: node, or the one that comes with playwright."""
    found = shutil.which("node")
    specification = find_spec("playwright")
    if found is None and specification is not None and specification.origin is not None:
        found = str(Path(specification.origin).parent / "driver" / "node")
    assert found is not None, "there is no node: run `make environment`, which brings playwright's"
    return found


def some_people(person: dict[str, Any], count: int) -> list[list[int]]:
    generator = np.random.default_rng(0)
    start = [change["start"] for change in person["changes"]]
    sizes = [len(change["texts"]) for change in person["changes"]]
    return [start, *(generator.integers(0, sizes).tolist() for _ in range(count))]


def test_the_pages_script_computes_what_the_module_does(person: dict[str, Any]) -> None:
    people = some_people(person, 200)
    script = (ROOM / "mmoe.js").read_text(encoding="utf-8")
    content = json.dumps({"person": person, "people": people})
    code = (
        f"{script}\nconst {{ person, people }} = JSON.parse(require('fs').readFileSync(0));\n"
        "const found = people.map((p) => mmoe(person.model, person.sizes, inputs(person.changes, p)));\n"
        "console.log(JSON.stringify(found));"
    )
    done = subprocess.run([node(), "-e", code], input=content, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)

    model = interactive.person_model(person)
    x = torch.stack([interactive.person_inputs(person, chosen) for chosen in people])
    with torch.no_grad():
        probabilities, gates = torch.sigmoid(model(x)).numpy(), model.gate_weights(x).numpy()
    assert len(found) == len(people) == 201
    assert np.array([one["probabilities"] for one in found]) == pytest.approx(probabilities, abs=1e-5)
    assert np.array([one["gates"] for one in found]) == pytest.approx(gates, abs=1e-5)
    assert probabilities.std(axis=0).min() > 0.01


def test_the_page_has_the_stored_model_and_every_change(
    figures: dict[str, Interactive], person: dict[str, Any]
) -> None:
    data = data_of(figures["census-person"])
    assert data["model"] == person["model"]
    assert data["sizes"] == person["sizes"]
    assert len(data["changes"]) == len(data["controls"]) == len(person["changes"])
    for change, control, stored in zip(data["changes"], data["controls"], person["changes"], strict=True):
        assert change == {key: value for key, value in stored.items() if key != "linked"}
        assert (control["name"], control["texts"], control["start"]) == (
            stored["column"],
            stored["texts"],
            stored["start"],
        )
    for words in ("imaginary", "associations", "no row", "1994 and 1995", "no causes", "real person"):
        assert words in data["caption"]


def test_the_stored_person_says_where_it_comes_from(person: dict[str, Any]) -> None:
    origin = person["origin"]
    assert origin["command"] == "python -m mmoe_lib.study.census_person"  # its name when it was made
    assert "simulated" not in origin["data"]
    assert re.fullmatch(r"[0-9a-f]{12}\+?", origin["commit"])
    assert person["training"]["rows"] == 199_523
    changed = {change["column"] for change in person["changes"]}
    assert 8 <= len(changed) <= 12
    assert not changed & {"education", "marital_stat", "instance_weight", "income_50k", "race"}
    assert all(auc > 0.9 for auc in person["test_auc"].values())


def test_the_picture_of_the_person_draws_how_far_each_change_reaches(person: dict[str, Any]) -> None:
    reach = interactive.person_reach(person)
    assert list(reach.index) == [change["label"] for change in person["changes"]]
    for task in (1, 2):
        assert (reach[f"low_{task}"] <= reach[f"typical_{task}"] + 1e-6).all()
        assert (reach[f"typical_{task}"] <= reach[f"high_{task}"] + 1e-6).all()
        assert reach[f"gate_{task}"].between(0, 1).all()

    # by hand, for one change
    model = interactive.person_model(person)
    place = list(reach.index).index("occupation")
    start = [change["start"] for change in person["changes"]]
    people = [[*start[:place], other, *start[place + 1 :]] for other in range(5)]
    with torch.no_grad():
        x = torch.stack([interactive.person_inputs(person, chosen) for chosen in people])
        probabilities = torch.sigmoid(model(x))[:, 0]
    assert probabilities.max() <= reach["high_1"].to_numpy()[place] + 1e-6

    figure = interactive.census_person_picture(person, "A finding")
    gates = figure.axes[2].lines
    assert gates[0].get_xdata() == pytest.approx(100 * reach["gate_1"].to_numpy())
    assert all(axes.get_xlabel() for axes in figure.axes)


# The universes


def test_universes_come_by_mmoes_lead_with_the_differences_of_the_results(histogram: pd.DataFrame) -> None:
    numbers = (7, 3, 2_005, 1_001)
    survey, labels = (
        survey_rows(numbers),
        universe_rows((*numbers, 5)),
    )  # nothing has been trained in universe 5
    survey.loc[
        survey["model"].eq("MMoE") & survey["universe"].eq(7) & survey["seed"].eq(8_000), "diverged_step"
    ] = 9
    data = interactive.universes_data(survey, labels, histogram)
    shown = data["universes"]
    assert sorted(universe["number"] for universe in shown) == sorted(numbers)
    leads = [universe["differences"][0][0][0] for universe in shown]
    assert leads == sorted(leads)
    assert len(set(leads)) == 4
    found = {
        (row["universe"], row["difference"]): [row["estimate"], row["low"], row["high"]]
        for row in universe_differences(survey).to_dict("records")
    }
    for universe in shown:
        for name, pair in zip(data["differences"], universe["differences"], strict=True):
            for p, interval in zip(data["p"], pair, strict=True):
                stored = found[universe["number"], f"{name} at p = {p:g}"]
                assert interval == pytest.approx(stored, abs=1e-4)
    assert data["differences"] == [
        "Shared-Bottom minus MMoE",
        "OMoE minus MMoE",
        "Shared-Bottom minus Shared-Bottom-96-32",
    ]


def test_universes_losses_are_all_counted_in_the_papers_bins(histogram: pd.DataFrame) -> None:
    survey = survey_rows((0, 3))
    survey.loc[survey["universe"].eq(3) & survey["model"].eq("OMoE"), "loss_2"] = 2.4
    survey.loc[survey["universe"].eq(0) & survey["seed"].eq(1_000), "diverged_step"] = 9
    data = interactive.universes_data(survey, universe_rows((0, 3)), histogram)
    assert [model["name"] for model in data["models"]] == list(SURVEYED)
    edges = np.array(data["edges"])
    for universe in data["universes"]:
        of_universe = survey[(survey["universe"] == universe["number"]) & (survey["diverged_step"] == 0)]
        for model, pair in zip(SURVEYED, universe["counts"], strict=True):
            for p, counts in zip(data["p"], pair, strict=True):
                rows = of_universe[(of_universe["model"] == model) & (of_universe["task_correlation"] == p)]
                assert sum(counts) == 2 * len(rows) == (22 if universe["number"] == 0 else 24)
                losses = rows[["loss_1", "loss_2"]].to_numpy().ravel()
                below = [int((losses < edge).sum()) for edge in edges[1:-1]]
                padded = counts + [0] * (30 - len(counts))
                assert np.cumsum(padded).tolist() == [*below, len(losses)]
    for model in data["models"]:
        for p, printed in zip(data["p"], model["paper"], strict=True):
            panel = histogram[(histogram["model"] == model["name"]) & (histogram["task_correlation"] == p)]
            assert (printed is None) == (model["name"] not in MODELS)
            assert printed is None or printed == pytest.approx((panel["runs_of_200"] / 2).tolist())


def test_a_universe_without_runs_of_a_model_comes_last_and_says_so(histogram: pd.DataFrame) -> None:
    survey = survey_rows((0, 3))
    gone = survey["universe"].eq(0) & survey["model"].eq("MMoE") & survey["task_correlation"].eq(0.5)
    survey = survey[~gone | survey["seed"].eq(1_000)]  # one run is left
    figure = interactive.universes(survey, universe_rows((0, 3)), histogram)
    data = data_of(figure)
    assert [universe["number"] for universe in data["universes"]] == [3, 0]
    last = data["universes"][1]
    assert [pair[0] is None for pair in last["differences"]] == [True, True, False]
    assert all(pair[1] is not None for pair in last["differences"])
    slider = data["controls"][0]
    assert slider["texts"][1] == "0, no lead"
    assert slider["texts"][0].startswith("3, lead +0.")
    assert slider["start"] == 0
    found = page_of_universes(figure, [{"universe": 1, "p": 2}])[0]
    assert "Fewer than 2 runs: MMoE at p = 0.5." in found["lines"]
    assert "Shared-Bottom minus MMoE: too few runs at p = 0.5, " in "\n".join(found["lines"])
    assert "fewer than 2 runs" in found["words"]
    assert len(found["bars"]) == 9


def page_of_universes(figure: Interactive, chosen: list[dict[str, int]]) -> list[dict[str, Any]]:
    """What the script of the page says and draws for some values of its controls, without a browser."""
    script = "\n".join((ROOM / name).read_text(encoding="utf-8") for name in ("frame.js", "universes.js"))
    code = (
        script
        # in place of frame.js's own: the last function of a name holds
        + """
function filled(node, attributes, children) { return { tag: node, attributes, children }; }
function start(name, build) {
  const { data, chosen } = JSON.parse(require("fs").readFileSync(0));
  const { panels, text, longest } = build(data);
  const found = chosen.map((values) => {
    const [line, bars] = panels.map(({ draw }) => draw(640, values));
    const paths = bars.filter(({ tag }) => tag === "path");
    return {
      lines: text(values),
      words: bars.filter(({ tag }) => tag === "text").flatMap(({ children }) => children),
      bars: paths.filter(({ attributes }) => attributes.fill !== "none").map(({ attributes }) => [attributes.fill, attributes.d]),
      outlines: paths.filter(({ attributes }) => attributes.fill === "none").map(({ attributes }) => attributes.d),
      label: Array.from({ length: 121 }, (_, k) => signal(data.universes[values.universe], (k - 60) / 20)),
      curve: line.at(-1).attributes.d,
      longest: longest[values.universe],
    };
  });
  console.log(JSON.stringify(found));
}
"""
    )
    stub = "const document = { createElementNS: (_, tag) => tag, createElement: (tag) => tag };\n"
    content = json.dumps({"data": data_of(figure), "chosen": chosen})
    done = subprocess.run(
        [node(), "-e", stub + code], input=content, capture_output=True, text=True, check=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def heights(outline: str) -> list[float]:
    """How high the 30 bars of a path are over its floor, in pixels."""
    points = [tuple(map(float, point.split())) for point in outline[1:].split("L")]
    assert points[0][1] == points[-1][1]
    assert len(points) == 62
    return [points[0][1] - points[1 + 2 * place][1] for place in range(30)]


def test_the_page_draws_the_label_and_every_bar(histogram: pd.DataFrame) -> None:
    numbers = (2, 1_004)
    survey, labels = survey_rows(numbers), universe_rows(numbers)
    figure = interactive.universes(survey, labels, histogram)
    data = data_of(figure)
    choices = [{"universe": universe, "p": p} for universe in range(2) for p in range(3)]
    z = torch.linspace(-3, 3, 121, dtype=torch.float64)
    for choice, found in zip(choices, page_of_universes(figure, choices), strict=True):
        universe = data["universes"][choice["universe"]]
        label = label_of(labels, universe["number"])
        assert found["label"] == pytest.approx(noiseless_labels(label.c * z, label).numpy(), abs=0.02)
        assert found["curve"].count("L") == 360

        ends = [choice["p"]] if choice["p"] < 2 else [0, 1]
        assert len(found["bars"]) == 5 * len(ends)
        assert len(found["outlines"]) == 3 * len(ends)
        counts = [universe["counts"][model][end] for end in ends for model in range(5)]
        for (colour, bars), expected in zip(found["bars"], counts, strict=True):
            assert re.fullmatch(r"var\(--[a-z-]+\)", colour)
            drawn = np.array(heights(bars))
            shares = np.array(expected + [0] * (30 - len(expected))) / sum(expected)
            assert drawn == pytest.approx(56 / 0.8 * shares, abs=0.11)  # the axis of 56 pixels ends at 80 %
        printed = [data["models"][model]["paper"][end] for end in ends for model in (1, 3, 4)]
        for outline, expected in zip(found["outlines"], printed, strict=True):
            assert heights(outline) == pytest.approx(np.array(expected) * 56 / 80, abs=0.11)
        assert [word for word in found["words"] if word in SURVEYED] == list(SURVEYED) * len(ends)
        assert sum("% of losses" in word for word in found["words"]) == len(ends)


def test_losses_far_above_the_paper_lie_in_the_last_bar_of_a_longer_axis(histogram: pd.DataFrame) -> None:
    survey = survey_rows((3_001,))
    survey[["loss_1", "loss_2"]] += 1.0
    found = page_of_universes(
        interactive.universes(survey, universe_rows((3_001,)), histogram), [{"universe": 0, "p": 0}]
    )[0]
    for _, bars in found["bars"]:
        assert heights(bars) == pytest.approx([0] * 29 + [56])
    assert {"0", "100"} <= set(found["words"])


def test_the_page_says_in_words_what_kind_of_universe_it_is(histogram: pd.DataFrame) -> None:
    numbers = (2, 1_004)
    survey = survey_rows(numbers)
    survey.loc[survey["seed"].eq(3_000) & survey["model"].eq("OMoE"), "diverged_step"] = 9
    figure = interactive.universes(survey, universe_rows(numbers), histogram)
    place = [universe["number"] for universe in data_of(figure)["universes"]].index(2)
    half, both, other = page_of_universes(
        figure, [{"universe": place, "p": 0}, {"universe": place, "p": 2}, {"universe": 1 - place, "p": 1}]
    )
    assert half["lines"][0] == (
        f"Universe 2 ({place + 1} of 2): meets figure 2; 6 sines, batch of 32, learning rate 0.00058, Glorot's initial "
        "weights; 11 to 12 runs a model."
    )
    assert other["lines"][0].startswith(f"Universe 1004 ({2 - place} of 2): PLE's kind; 10 sines, ")
    assert other["lines"][0].endswith("; 12 runs a model.")
    found = universe_differences(survey)
    lead = found[
        (found["universe"] == 2) & found["difference"].eq("Shared-Bottom minus MMoE at p = 0.5")
    ].iloc[0]
    said = f"{lead['estimate']:.3f} [{lead['low']:.3f}, {lead['high']:.3f}]"
    numbers_said = re.findall(r"-?\d\.\d{3}", half["lines"][1])
    assert half["lines"][1].startswith("Shared-Bottom minus MMoE: ")
    assert [float(number) for number in numbers_said] == pytest.approx(
        [float(number) for number in re.findall(r"-?\d\.\d{3}", said)], abs=0.0011
    )
    assert [len(one["lines"]) for one in (half, both, other)] == [4, 4, 4]
    assert all(" at p = 0.5, " in line and line.endswith(" at p = 1.") for line in both["lines"][1:])
    assert both["longest"] == both["lines"], "room is kept for the longest text"


def test_kinds_and_initial_weights_are_those_of_the_study() -> None:
    assert set(KINDS) == {FIGURE_2, *OTHER_KINDS}
    assert set(INITIALISERS) == set(OF_STUDY)


def test_files_that_do_not_go_together_are_told_in_one_line(histogram: pd.DataFrame) -> None:
    survey, labels = survey_rows((0, 3)), universe_rows((0, 3))
    for rows, others, words in (
        (survey, labels[labels["seed"] == 3], "universe 0 of the survey has no row among 1, expected one"),
        (survey, pd.concat([labels, labels]), "4 rows describe 2 universes, expected one each"),
        (survey[:0], labels, "the survey has no rows, expected a run each"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            interactive.universes(rows, others, histogram)
        assert "\n" not in str(error.value)
