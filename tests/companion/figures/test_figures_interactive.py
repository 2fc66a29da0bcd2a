"""Figures that a reader can move: their numbers are those of the results, their pages need nothing else."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from companion import results
from companion.figures import interactive
from companion.figures.interactive import Interactive
from companion.figures.interactive import fragment as fragments
from companion.synthetic_labels import label_correlation

ROOM = Path(fragments.__file__).parent
NAMES = ("slide-p", "census-person", "census-runs", "lab")
MOST_BYTES = 300_000
MODELS = ("Shared-Bottom", "OMoE", "MMoE")


@pytest.fixture(scope="module")
def slide() -> pd.DataFrame:
    return results.read_results("synthetic_slide", preset="paper")


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return results.balanced(results.read_results("census", preset="paper"))


@pytest.fixture(scope="module")
def person() -> dict[str, Any]:
    return results.read_census_person()


def make(slide: pd.DataFrame, runs: pd.DataFrame, person: dict[str, Any]) -> dict[str, Interactive]:
    made = (
        interactive.slide_p(slide, "fig-slide"),
        interactive.census_person(person, "fig-person"),
        interactive.census_runs(runs),
        interactive.lab("fig-lab"),
    )
    return {figure.name: figure for figure in made}


@pytest.fixture(scope="module")
def figures(slide: pd.DataFrame, runs: pd.DataFrame, person: dict[str, Any]) -> dict[str, Interactive]:
    return make(slide, runs, person)


@pytest.fixture(autouse=True)
def _headless() -> Iterator[None]:
    backend = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


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
    script = (ROOM / "frame.js").read_text(encoding="utf-8")
    for control in controls:
        assert control["label"].strip()
        assert re.search(rf"^  {control['kind']}\(control, id\)", script, re.MULTILINE), control["kind"]
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
    assert len(files) == 9
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
