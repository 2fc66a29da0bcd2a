"""Chapter 6's tables: what a difference is, in which pairs it is taken, and what advice follows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import stats

from companion import figures, results
from companion.results import extensions
from companion.results.extensions import BETTER, NEITHER, WORSE, Comparisons, advice, against_base


def _runs(means: dict[str, float], runs: int = 20, spread: float = 0.01) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        [
            (model, seed, mean + spread * generator.standard_normal())
            for model, mean in means.items()
            for seed in range(runs)
        ],
        columns=["model", "seed", "loss_1"],
    )


def test_differences_are_those_of_welchs_test_with_holms_correction() -> None:
    rows = _runs({"MMoE": 0.2, "lower": 0.15, "same": 0.2, "higher": 0.25})
    found = against_base(rows, "loss_1", lower_is_better=True)
    verdicts = dict(zip(found.index, found["verdict"], strict=True))
    assert verdicts == {"MMoE": "", "lower": BETTER, "same": NEITHER, "higher": WORSE}
    reversed_ = against_base(rows, "loss_1", lower_is_better=False)
    assert list(reversed_["verdict"]) == ["", WORSE, NEITHER, BETTER]
    ours = rows.loc[rows["model"] == "lower", "loss_1"]
    base = rows.loc[rows["model"] == "MMoE", "loss_1"]
    test = stats.ttest_ind(ours, base, equal_var=False)
    interval = test.confidence_interval(0.95)
    numbers = found.loc["lower", ["difference", "difference_low", "difference_high"]].astype(float)
    assert list(numbers) == pytest.approx([ours.mean() - base.mean(), interval.low, interval.high])
    assert float(str(found.loc["lower", "p_value"])) >= test.pvalue
    with pytest.raises(ValueError, match="no runs of MMoE"):
        against_base(rows[rows["model"] != "MMoE"], "loss_1", lower_is_better=True)


def test_a_difference_that_holms_correction_takes_back_is_none() -> None:
    generator = np.random.default_rng(1)
    names = ["MMoE", *(f"same {i}" for i in range(40))]
    rows = pd.DataFrame({"model": np.repeat(names, 10), "loss_1": generator.standard_normal(410)})
    found = against_base(rows, "loss_1", lower_is_better=True)
    apart = (found["difference_low"] > 0) | (found["difference_high"] < 0)
    assert apart.any()  # of forty alike some interval misses 0 by chance
    assert set(found["verdict"]) == {"", NEITHER}


def _found(loss: str, main: str, auxiliary: str) -> Comparisons:
    def table(verdict: str) -> pd.DataFrame:
        return pd.DataFrame({"verdict": ["", verdict]}, index=["MMoE", "new"])

    return Comparisons(
        table(loss), table(main), table(auxiliary), pd.Series({"MMoE": 0, "new": 0}), pd.DataFrame()
    )


@pytest.mark.parametrize(
    ("verdicts", "begins"),
    [
        ((NEITHER, NEITHER, NEITHER), "No reason to change"),
        ((BETTER, NEITHER, NEITHER), "Try it where single runs end"),
        ((WORSE, NEITHER, NEITHER), "Leave it"),
        ((NEITHER, BETTER, NEITHER), "Worth a try"),
        ((BETTER, WORSE, NEITHER), "Not on such a table"),
        ((NEITHER, WORSE, BETTER), "It moves one census task up and the other down"),
    ],
)
def test_advice_follows_the_verdicts(verdicts: tuple[str, str, str], begins: str) -> None:
    found = _found(*verdicts)
    assert advice(found, "new", 1.0).startswith(begins)
    assert "at about MMoE's price" in advice(found, "new", 1.1)
    assert "at a higher price" in advice(found, "new", 1.2)
    assert "at a lower price" in advice(found, "new", 0.5)


def _rare(draws: int = 6) -> pd.DataFrame:
    """A draw shifts all runs by a point; sharing loses two on the rare task, a remedy wins one back."""
    generator = np.random.default_rng(2)
    records = []
    for share in (1.0, 0.01):
        for seed in range(draws):
            shift = 0.01 * generator.standard_normal()
            for model, remedy, rare in (
                ("Single-Task", "plain sum", 0.9),
                ("MMoE", "plain sum", 0.88),
                ("MMoE", "help", 0.89),
                ("MMoE", "nothing", 0.88),
            ):
                noise = 0.0005 * generator.standard_normal(2)
                records.append(
                    (
                        model,
                        share,
                        remedy,
                        seed,
                        100 * share,
                        rare + shift + noise[0],
                        0.95 + shift + noise[1],
                    )
                )
    names = ["model", "share", "remedy", "seed", "positives", "test_rare_auc", "test_other_auc"]
    return pd.DataFrame(records, columns=names)


def test_rare_labels_are_compared_within_a_draw() -> None:
    rows = _rare().sample(frac=1, random_state=0)  # pairs are found by seed, whatever the order of rows
    pressed = results.pressed_down(rows)
    shown = pressed.dropna(subset=["points"])
    assert list(shown["model"].unique()) == ["MMoE"]
    by_task = shown.groupby("task")["verdict"].agg(set)
    assert by_task["rare"] == {WORSE}
    assert by_task["other"] == {NEITHER}
    # the draws' shift of a whole point is in the levels, and not in the differences
    rare = shown[shown["task"] == "rare"]
    assert list(rare["points"]) == pytest.approx([-2, -2], abs=0.15)
    assert float((rare["points_high"] - rare["points_low"]).max()) < 0.3
    helped = results.remedies(rows)
    verdicts = helped.groupby(["remedy", "task"])["verdict"].agg(set)
    assert verdicts["help", "rare"] == {BETTER}
    assert verdicts["help", "other"] == verdicts["nothing", "rare"] == {NEITHER}
    table = results.points_table(helped, "remedy")
    assert set(table.columns) == {
        f"{share}: {task}" for share in ("all positives", "1 in 100") for task in ("rare", "other")
    }


def test_a_draw_that_one_side_lacks_is_left_out_and_one_draw_is_too_few() -> None:
    rows = _rare()
    lost = (rows["seed"] == 0) & (rows["remedy"] == "help")
    rows.loc[lost, "test_rare_auc"] = np.nan
    ours, theirs = {"remedy": "help", "share": 1.0}, {"remedy": "nothing", "share": 1.0}
    assert extensions.paired_points(rows, "test_rare_auc", ours, theirs).draws == 5
    with pytest.raises(ValueError, match="1 draws have both"):
        results.remedies(rows[rows["seed"] == 1])


def test_shares_have_names() -> None:
    assert [results.share_name(share) for share in (1.0, 0.1, 0.01)] == [
        "all positives",
        "1 in 10",
        "1 in 100",
    ]


def test_the_figures_draw_what_the_tables_hold() -> None:
    pressed = results.pressed_down(_rare())
    figure = figures.rare_points(pressed, "model", "minus Single-Task", "a finding")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["all positives", "1 in 100"]
    points = sorted(
        float(np.asarray(container.lines[0].get_xdata())[0])  # type: ignore[attr-defined]
        for axes in figure.axes
        for container in axes.containers
    )
    assert points == pytest.approx(sorted(pressed["points"].dropna()))
    plt.close(figure)
    rows = _runs({"MMoE": 0.2, "CGC": 0.15}).assign(num_tasks=2)
    more = _runs({"MMoE": 0.3, "CGC": 0.35}).assign(num_tasks=16)
    quality = results.by_setting(pd.concat([rows, more]), "num_tasks", "loss_1")
    figure = figures.along(
        {"quality": quality}, "num_tasks", {"quality": "loss"}, "tasks", "a finding", ratio_scale=True
    )
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["MMoE", "CGC"]
    assert np.asarray(axes.lines[1].get_ydata()).tolist() == pytest.approx([0.15, 0.35], abs=0.01)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "16"]
    plt.close(figure)
    table = results.setting_table(quality, "num_tasks")
    assert table.loc["CGC"].str.startswith(("0.15", "0.14", "0.35", "0.34")).all()


def _units() -> pd.DataFrame:
    """In another unit task 1 loses under the plain sum, and a balancer undoes it."""
    parts = []
    for unit, losses in ((1.0, (0.2, 0.2)), (10.0, (0.3, 0.2))):
        for task, plain in zip((1, 2), losses, strict=True):
            rows = _runs({"plain sum": plain, "GradNorm": 0.2, "PCGrad": plain})
            parts.append(
                rows.assign(unit=unit, task=task).rename(columns={"model": "remedy", "loss_1": "loss"})
            )
    wide = pd.concat(parts).pivot_table(
        index=["unit", "remedy", "seed"], columns="task", values="loss", sort=False
    )
    return wide.set_axis(["loss_1", "loss_2"], axis=1).reset_index()


def test_a_balancer_is_compared_with_the_plain_sum_of_its_unit() -> None:
    found = results.unit_losses(_units())
    verdicts = found.set_index(["unit", "task", "remedy"])["verdict"]
    assert verdicts[10.0, 1, "GradNorm"] == BETTER
    assert {v for key, v in verdicts.items() if key != (10.0, 1, "GradNorm")} == {"", NEITHER}
    table = results.unit_table(found[~((found["unit"] == 1) & (found["remedy"] == "PCGrad"))])
    assert str(table.loc["GradNorm", "unit 10: task 1"]).endswith(", -0.10 (better)")
    assert table.loc["PCGrad", "unit 1: task 2"] == "not run"
    assert "," not in str(table.loc["plain sum", "unit 10: task 1"]).split("]")[1]
    figure = figures.unit_dots(found, "a finding")
    for axes, unit in zip(figure.axes, (1.0, 10.0), strict=True):
        points = [float(np.asarray(one.lines[0].get_xdata())[0]) for one in axes.containers]  # type: ignore[attr-defined]
        assert sorted(points) == pytest.approx(sorted(found.loc[found["unit"] == unit, "mean"]))
    plt.close(figure)


def test_watched_runs_are_told_by_tenths_in_their_order() -> None:
    columns = {f"weight_{part}": [part / 20, part / 20 + 0.01] for part in range(1, 11)}
    rows = pd.DataFrame({"remedy": "Nash-MTL", "weight": 1.0, "seed": [0, 1], **columns, "cosine_1": 0.5})
    found = results.along_training(rows, "weight")
    assert found["part"].tolist() == list(range(1, 11))
    assert found["mean"].tolist() == pytest.approx([part / 20 + 0.005 for part in range(1, 11)])
    assert set(found["runs"]) == {2}
    assert results.along_training(rows, "cosine")["mean"].tolist() == [0.5]
    figure = figures.weights_along({"a set": found}, "a finding")
    (line,) = figure.axes[0].lines
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx(found["mean"].tolist())
    plt.close(figure)
