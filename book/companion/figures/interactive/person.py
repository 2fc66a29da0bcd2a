"""An imaginary person on Census-Income: what a small MMoE says of both tasks when inputs change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from companion.figures.interactive.fragment import Interactive, fragment
from companion.figures.style import WIDTH, finish, theme
from mmoe_lib.models import MMoE

TASKS = ("income above 50,000 dollars", "never married")
TASK_COLOURS = ("#8250A8", "#806000")


def person_model(person: Mapping[str, Any]) -> MMoE:
    """The stored model as the ordinary module of one run.

    Args:
        person: `companion.results.read_census_person`.
    """
    sizes = person["sizes"]
    module = MMoE(
        sizes["inputs"], len(person["tasks"]), sizes["experts"], (sizes["units"],), (sizes["tower_units"],)
    )
    module.load_state_dict({name: torch.tensor(value) for name, value in person["model"].items()})
    return module.eval()


def person_inputs(person: Mapping[str, Any], chosen: Sequence[int]) -> Tensor:
    """The model's inputs (d',) for a place in the list of each change, as `mmoe.js` computes them."""
    x: list[float] = []
    for change, place in zip(person["changes"], chosen, strict=True):
        if change["kind"] == "choice":
            x += [float(option == place) for option in range(len(change["options"]))]
        else:
            value = change["values"][place]
            value = np.log1p(value) if change["log"] else value
            x.append(float(np.clip((value - change["low"]) / (change["high"] - change["low"]), 0, 1)))
    return torch.tensor([*x, 1.0])


def census_person(person: Mapping[str, Any], picture: str | None = None) -> Interactive:
    """The interactive figure: a control for each input that can be changed.

    Args:
        person: `companion.results.read_census_person`.
        picture: The name of the figure that `census_person_picture` is in the book.
    """
    controls = [
        {
            "kind": "range" if change["kind"] == "number" else "choice",
            "name": change["column"],
            "label": change["label"],
            "texts": change["texts"],
            "start": change["start"],
        }
        for change in person["changes"]
    ]
    data = {
        "tasks": TASKS,
        "sizes": person["sizes"],
        "model": person["model"],
        "reset": "Back to the typical person",
        "changes": [
            {key: value for key, value in change.items() if key != "linked"} for change in person["changes"]
        ],
    }
    aucs = " and ".join(f"{auc:.3f}" for auc in person["test_auc"].values())
    caption = (
        "An imaginary person of typical values, no row of the data; dashes mark the predictions before any change. The "
        f"model, an MMoE of {person['sizes']['experts']} experts with {person['sizes']['units']} units (test AUC "
        f"{aucs}), repeats associations of a survey of 1994 and 1995, with the inequalities of that time. It shows no "
        "causes and says nothing about any real person. From data/results/census_person.json."
    )
    elsewhere = "In the HTML book and on Colab the person can be changed here; the picture above shows the same model."
    return fragment(
        "census-person", ("mmoe.js", "census_person.js"), data, controls, caption, elsewhere=elsewhere, picture=picture
    )  # fmt: skip


def census_person_picture(person: Mapping[str, Any], finding: str) -> Figure:
    """How far each change alone can take both predictions and both gates from the typical person.

    Args:
        person: `companion.results.read_census_person`.
        finding: The title.
    """
    reach = person_reach(person)
    labels = [change["label"] for change in person["changes"]]
    with theme():
        figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.4), sharey=True)
        for task, name in enumerate(TASKS):
            low, high = (100 * reach[f"{end}_{task + 1}"] for end in ("low", "high"))
            axes[task].hlines(range(len(labels)), low, high, color=TASK_COLOURS[task], lw=6)
            axes[task].axvline(100 * reach[f"typical_{task + 1}"].iloc[0], color="#333333", lw=1, ls="--")
            axes[task].set(title=name.replace(" above", "\nabove"), xlabel="probability (%)", xlim=(0, None))
            axes[2].plot(
                100 * reach[f"gate_{task + 1}"],
                range(len(labels)),
                "os"[task],
                ms=5,
                color=TASK_COLOURS[task],
            )
        axes[2].set(title="gates (● income,\n■ never married)", xlabel="total variation (%)", xlim=(-3, None))
        axes[0].set(yticks=range(len(labels)), yticklabels=labels)
        axes[0].invert_yaxis()
        return finish(figure, finding)


@torch.no_grad()
def person_reach(person: Mapping[str, Any]) -> pd.DataFrame:
    """What each change alone can do, a row a change.

    Args:
        person: `companion.results.read_census_person`.

    Returns:
        By the changes' labels, for both tasks k: typical_k, low_k and high_k, the probability of the typical person and
        the lowest and the highest over the values of this change; gate_k, the largest total variation between the
        gate there and that of the typical person.
    """
    model = person_model(person)
    start = [change["start"] for change in person["changes"]]
    before = person_inputs(person, start).unsqueeze(0)
    typical, gate = torch.sigmoid(model(before))[0], model.gate_weights(before)  # (K,), (1, K, n)
    rows = {}
    for index, change in enumerate(person["changes"]):
        places = range(len(change["texts"]))
        x = torch.stack(
            [person_inputs(person, [*start[:index], place, *start[index + 1 :]]) for place in places]
        )
        probabilities = torch.sigmoid(model(x))  # (values, K)
        # total variation: half the sum of absolute differences
        moved = (model.gate_weights(x) - gate).abs().sum(dim=-1).amax(dim=0) / 2  # (K,)
        rows[change["label"]] = {
            name: float(value)
            for task in range(len(typical))
            for name, value in (
                (f"typical_{task + 1}", typical[task]),
                (f"low_{task + 1}", probabilities[:, task].min()),
                (f"high_{task + 1}", probabilities[:, task].max()),
                (f"gate_{task + 1}", moved[task]),
            )
        }
    return pd.DataFrame(rows).T
