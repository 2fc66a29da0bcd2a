"""Frames as they are: labels that are missing, rows that weigh, classes, ids, lists, and data that look wrong."""

import doctest
import math
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, r2_score, roc_auc_score

from mmoe_lib import frames
from mmoe_lib.frames import Embedding, FitSettings, FrameEncoder, Ids, MultiTaskModel, Target
from mmoe_lib.frames.columns import frame_of, kind_of, names_of, real, whole
from mmoe_lib.frames.network import EmbeddedModel, rest_untrained_ids
from mmoe_lib.frames.targets import MixedLoss, OwnUnits, labels_of, weights_of
from mmoe_lib.frames.watch import watch
from mmoe_lib.models import MMoE, SharedBottom
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import Ensemble

SMALL = {"num_experts": 2, "expert_widths": (8,), "tower_widths": (4,)}


def fit(frame: pd.DataFrame, targets: Any, epochs: int = 1, **given: Any) -> MultiTaskModel:
    runs = given.pop("runs", 1)
    settings = FitSettings(epochs=epochs, learning_rate=0.02, runs=runs, **given.pop("settings", {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MultiTaskModel.fit(frame, targets, sizes=SMALL, settings=settings, progress=False, **given)


def log(rows: int = 1500) -> pd.DataFrame:
    """A shop's log: bought is known where there was a click alone, and users and tags have effects of their own."""
    rng = np.random.default_rng(0)
    taste = rng.normal(size=30)
    user = rng.integers(0, 30, rows)
    tags = [
        list(rng.choice(["new", "old", "sale"], size, replace=False)) for size in rng.integers(0, 4, rows)
    ]
    frame = pd.DataFrame({"a": rng.normal(size=rows), "user": user + 2**60, "tags": tags})
    frame["click"] = (frame["a"] + 0.3 * rng.normal(size=rows) > 0).astype(float)
    frame["bought"] = np.where(frame["click"] == 1, (taste[user] > 0).astype(float), np.nan)
    frame["worth"] = taste[user] + 2.0 * frame["tags"].map(lambda tags: "sale" in tags)
    frame["next"] = np.where(frame["a"] > 0.5, "buy", np.where(frame["a"] > -0.5, "look", "leave"))
    return frame


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    targets = ["click", "bought", "worth", "next"]
    return fit(log()[:1200], targets, 25, embeddings={"user": 4}, runs=2)


# Labels that are missing


def test_a_missing_label_counts_for_no_loss_and_adds_no_gradient() -> None:
    targets = [Target("a", True), Target("b", False, 3.0, 2.0), Target("c", False, classes=("x", "y", "z"))]
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(20, 5, generator=generator, requires_grad=True)
    labels = torch.stack(
        [torch.arange(20) % 2, torch.randn(20, generator=generator), torch.arange(20) % 3], 1
    )
    labels[:5, 0] = labels[3:9, 1] = labels[10:, 2] = torch.nan
    losses = MixedLoss(targets)(outputs, labels)
    F = torch.nn.functional
    expected = [
        F.binary_cross_entropy_with_logits(outputs[5:, 0], labels[5:, 0]),
        (outputs[:, 1] - labels[:, 1])[~labels[:, 1].isnan()].square().mean(),
        F.cross_entropy(outputs[:10, 2:], labels[:10, 2].long()),
    ]
    torch.testing.assert_close(losses, torch.stack(expected))
    (gradient,) = torch.autograd.grad(losses.sum(), outputs)
    assert bool(torch.isfinite(gradient).all())
    assert gradient[:5, 0].abs().max() == gradient[10:, 2:].abs().max() == 0
    weighted = torch.cat([labels, torch.linspace(0, 2, 20)[:, None]], dim=1)
    losses = MixedLoss(targets, weights=True, tasks=[1.0, 3.0, 0.0])(outputs, weighted)
    errors = torch.linspace(0, 2, 20) * (outputs[:, 1] - labels[:, 1]).square()
    torch.testing.assert_close(losses[1], 3 * errors[~labels[:, 1].isnan()].mean())
    assert losses[2] == 0
    none = torch.full((20, 3), torch.nan)
    assert MixedLoss(targets)(outputs, none).tolist() == [0, 0, 0]


def test_a_conversion_given_a_click_is_learned_from_clicks_alone(model: MultiTaskModel) -> None:
    rows = log()[1200:]
    scores = model.evaluate(rows)["value"]
    assert scores["click"] > 0.9
    assert scores["bought"] > 0.9
    known = rows["bought"].notna()
    predicted = model.predict(rows)
    assert scores["bought"] == pytest.approx(
        roc_auc_score(rows["bought"][known], predicted["bought"][known]), abs=1e-12
    )
    # Rows without a click get a prediction too: what would be bought if there were one.
    assert predicted["bought"][~known].between(0, 1).all()


def test_missing_labels_of_nullable_types_are_the_same() -> None:
    values = pd.DataFrame({"y": pd.array([True, None, False, None], dtype="boolean")})
    target = Target.fit(values, "y")
    assert target == Target("y", True)
    np.testing.assert_array_equal(target.values(values), [1, np.nan, 0, np.nan])
    assert np.isnan(labels_of([target], values)[:, 0].numpy()).tolist() == [False, True, False, True]


def test_held_out_rows_without_labels_do_not_stop_training_and_are_told() -> None:
    frame = log(200)
    others = frame[:50].assign(bought=np.nan)
    with pytest.warns(UserWarning, match="50 validation rows hold no label of 'bought'"):
        MultiTaskModel.fit(
            frame[50:],
            ["click", "bought"],
            ["a"],
            sizes=SMALL,
            validation=others,
            settings=FitSettings(epochs=2),
            progress=False,
        )
    with pytest.raises(ValueError, match="50 validation rows hold no label of any target"):
        fit(frame[50:], ["bought"], inputs=["a"], validation=others)


# Rows that weigh


def test_a_weight_of_three_is_a_row_three_times() -> None:
    rng = np.random.default_rng(1)
    outputs, y, w = torch.tensor(rng.normal(size=(12, 1))), rng.integers(0, 2, 12), rng.integers(0, 4, 12)
    frame = pd.DataFrame({"y": y, "w": w})
    target = Target.fit(frame, "y")
    own = labels_of([target], frame, weights_of(frame, "w"))
    several = np.repeat(np.arange(12), w)
    repeated = frame.iloc[several]
    loss = MixedLoss([target], weights=True)(outputs.float(), own) * 12 / w.sum()
    plain = MixedLoss([target])(outputs.float()[several], labels_of([target], repeated))
    torch.testing.assert_close(loss, plain)


def test_a_model_with_weights_predicts_the_weighted_share_and_metrics_are_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=800), "b": rng.random(800) < 0.5})
    frame["w"] = np.where(frame["b"], 900.0, 100.0)
    frame["c"] = np.where(frame["a"] > 0.3, "x", "y")
    frame["r"] = frame["a"] + rng.normal(size=800)
    weighted = fit(frame, ["b", "c", "r"], 5, inputs=["a"], weights="w")
    predicted = weighted.predict(frame)
    assert 0.85 < predicted["b"].mean() < 0.95
    frame["w"] = rng.random(800)
    scores = weighted.evaluate(frame, weights="w").set_index("metric", append=True)["value"]
    w, shares = frame["w"], predicted[["c=x", "c=y"]]
    expected = {
        ("b", "AUC"): roc_auc_score(frame["b"], predicted["b"], sample_weight=w),
        ("c", "accuracy"): accuracy_score(frame["c"], shares.idxmax(axis=1).str[2:], sample_weight=w),
        ("c", "log loss"): log_loss(frame["c"], shares, sample_weight=w),
        ("r", "R2"): r2_score(frame["r"], predicted["r"], sample_weight=w),
    }
    assert scores.to_dict() == pytest.approx(expected, abs=1e-9)
    assert "w" not in [column.name for column in fit(frame, ["b"], weights="w").encoder.columns]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, -1.0], "holds -1 to 1"),
        ([0.0, 0.0], "holds 0 to 0"),
        ([1.0, None], "1 missing"),
        (["a", "b"], "text values"),
    ],
)
def test_weights_are_checked(values: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weights_of(pd.DataFrame({"w": values}), "w")


# Classes


def test_classes_are_probabilities_under_one_softmax(model: MultiTaskModel) -> None:
    rows = log()[1200:]
    names = ["next=buy", "next=leave", "next=look"]
    shares = model.predict(rows)[names]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    scores = model.evaluate(rows).loc["next"].set_index("metric")["value"]
    assert scores["accuracy"] > 0.9
    assert scores["accuracy"] == pytest.approx((shares.idxmax(axis=1).str[5:] == rows["next"]).mean())
    assert scores["log loss"] == pytest.approx(log_loss(rows["next"], shares))
    assert set(names) <= set(model.gate_weights(rows).columns.get_level_values("target"))
    outputs = torch.tensor([[0.0, math.log(3.0), 5.0]])
    units = OwnUnits([Target("c", False, classes=("x", "y")), Target("r", False, 2.0, 10.0)])
    torch.testing.assert_close(units(outputs), torch.tensor([[0.25, 0.75, 52.0]]))


def test_numbers_are_classes_where_it_is_said_and_in_their_order() -> None:
    frame = pd.DataFrame({"stars": [10, 2, 1, 2, None]})
    target = Target.fit(frame, "stars", classes=True)
    assert target.classes == ("1", "2", "10")
    np.testing.assert_array_equal(target.values(frame), [2, 1, 0, 1, np.nan])
    with pytest.warns(UserWarning, match="'stars' holds '3', which no training row had"):
        assert np.isnan(target.values(pd.DataFrame({"stars": [3, 1]}))).tolist() == [True, False]
    with pytest.raises(ValueError, match="classes name 'a', expected some of the targets click"):
        fit(log(60), ["click"], classes=["a"])


# Ids and lists


def test_ids_beyond_what_a_float_holds_have_rows_of_their_own() -> None:
    big = 2**60
    encoder = FrameEncoder.fit(
        pd.DataFrame({"id": [big, big + 1, big + 2, big + 1], "a": [1.0, 2, 3, 4]}),
        ["id", "a"],
        {"id": Embedding(min_count=1)},
    )
    (column,) = encoder.ids
    assert column == Ids("id", tuple(map(str, (big, big + 1, big + 2))), 0, 2, 1)  # 3 ** 0.25, rounded up
    ids, numbers = encoder.encode(pd.DataFrame({"a": [2.5] * 4, "id": [big + 1, big + 2, big + 3, big]}))
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[3], [4], [1], [2]]  # 1: unseen
    assert numbers.tolist() == [[0.0]] * 4
    missing = pd.DataFrame({"a": [1.0, 1.0], "id": pd.array([big, None], dtype="Int64")})
    assert encoder.encode(missing)[0].tolist() == [[2], [1]]
    assert FrameEncoder.from_plain(encoder.to_plain()) == encoder


def test_rare_ids_share_a_row_and_hashed_ones_spread_over_buckets() -> None:
    frame = pd.DataFrame({"id": ["b", "a", "b", "c"]})
    rare = Ids.fit(frame["id"], Embedding())
    assert rare == Ids("id", ("b",), 0, 1, 1)
    assert rare.rows == 3
    hashed = Ids.fit(frame["id"], Embedding(width=3, buckets=7))
    assert (hashed.width, hashed.rows) == (3, 9)
    out = np.zeros((1000, 1), dtype=np.int64)
    hashed.encode(pd.Series([f"new {n}" for n in range(999)] + [None], name="id"), out)
    assert out[-1] == 1  # missing
    assert set(out[:-1, 0]) == set(range(2, 9))


def test_text_of_many_values_is_embedded_and_a_name_a_row_is_refused() -> None:
    frame = pd.DataFrame({"id": [f"id {n % 1001}" for n in range(2002)]})
    encoder = FrameEncoder.fit(frame, ["id"])
    assert encoder.ids[0].rows == 1003
    with pytest.raises(ValueError, match="'id' holds 1,001 distinct values, expected some in 2 rows"):
        FrameEncoder.fit(frame[:1001], ["id"])
    with pytest.raises(ValueError, match="embeddings name 'other', expected columns among the inputs"):
        FrameEncoder.fit(frame, ["id"], {"other": Embedding()})


def test_a_list_is_the_mean_of_its_vectors() -> None:
    column = pd.Series([["x", "y"], ["y"], [], None, ("x", "y", "z")], name="tags")
    ids = Ids.fit(column, Embedding(width=2, min_count=1))
    assert ids == Ids("tags", ("x", "y", "z"), 0, 2, 3)
    network = EmbeddedModel(1, 2, columns=[ids], top=lambda d, k, generator: SharedBottom(d, k, (3,)))
    table = network.tables[0].detach()
    encoder = FrameEncoder((ids,))
    x = encoder.encode(column.to_frame())
    below = network.below((x[0], torch.ones(5, 1))).detach()
    expected = [table[[2, 3]].mean(0), table[3], table[1], table[1], table[2:5].mean(0)]
    torch.testing.assert_close(below[:, :2], torch.stack(expected))
    with pytest.warns(UserWarning, match="lists of more than 3 values"):
        assert encoder.encode(pd.DataFrame({"tags": [["x"] * 4]}))[0].tolist() == [[2, 2, 2]]


def test_effects_of_ids_and_of_lists_are_learned(model: MultiTaskModel) -> None:
    assert model.evaluate(log()[1200:])["value"]["worth"] > 0.9
    assert [column.name for column in model.encoder.ids] == ["user", "tags"]


def test_an_unseen_id_has_the_mean_vector_of_the_training_rows(model: MultiTaskModel) -> None:
    column = Ids("id", ("x", "y"), 0, 2, 1)
    ensemble = Ensemble(
        lambda generator: EmbeddedModel(
            0, 1, columns=[column], top=lambda d, k, generator: SharedBottom(d, k, (3,)), generator=generator
        ),
        [0, 1],
    )
    table = ensemble.parameters["tables.0"]
    rest_untrained_ids(ensemble, [column], torch.tensor([[2], [3], [3], [3]]))
    torch.testing.assert_close(table[:, 1], 0.25 * table[:, 2] + 0.75 * table[:, 3])
    predicted = model.predict(log()[:3].assign(user=5))
    assert np.isfinite(predicted).all(axis=None)


def test_a_model_with_ids_comes_back_from_its_file(model: MultiTaskModel, tmp_path: Any) -> None:
    model.save(tmp_path / "model.pt")
    loaded = MultiTaskModel.load(tmp_path / "model.pt")
    assert loaded.targets == model.targets
    pd.testing.assert_frame_equal(loaded.predict(log(50)), model.predict(log(50)), check_exact=True)


# Data that look wrong


def column_of(values: Any) -> pd.DataFrame:
    return pd.DataFrame({"age": values})


def seen_after(train: Any, later: Any) -> Callable[[], object]:
    return lambda: FrameEncoder.fit(column_of(train), ["age"]).encode(column_of(later))


TOLD: dict[str, tuple[Callable[[], object], str]] = {
    "numbers as text": (
        lambda: FrameEncoder.fit(column_of(["17", "?", "40", "23"]), ["age"]),
        r"'age' is text, but 3 of its 4 values read as numbers \(it holds '\?'\)",
    ),
    "thousands": (
        lambda: FrameEncoder.fit(column_of(["1,234", "2,000", "40"]), ["age"]),
        "'age' is text, but 3 of its 3",
    ),
    "a target as text": (
        lambda: Target.fit(column_of(["17", "?", "40", "23"]), "age"),
        "'age' is text, but 3 of its 4",
    ),
    "blanks in one file": (seen_after(["a", " b"], ["a", "b"]), "'age' holds 'b' where training had ' b'"),
    "blanks in one column": (
        lambda: FrameEncoder.fit(column_of(["a", "b", " b"]), ["age"]),
        "'b' and ' b', which differ in blanks alone",
    ),
    "zeros in front": (seen_after(["01", "02"], [1, 2]), "'age' holds '1' where training had '01'"),
    "all unseen": (seen_after(["x", "y"], ["v", "w"]), "'age': none of its values was seen"),
    "all missing": (seen_after([1.0, 2.0], [None, None]), "'age' has no value in these 2 rows"),
    "ids as floats": (
        lambda: Ids.fit(pd.Series([2.0**53, 2.0**53 + 2], name="age"), Embedding(min_count=1)),
        "'age' holds ids as floats, which run together",
    ),
    "another unit": (seen_after([0.5, 0.6, 0.7], [5000.0]), "'age' lies up to .* standard deviations"),
    "one huge value": (
        lambda: FrameEncoder.fit(column_of([*np.arange(99.0), 1e20]), ["age"]),
        "'age' spans 0 to 1e.20, but nine in ten of its values only",
    ),
    "minus one and one": (lambda: Target.fit(column_of([-1, 1, 1]), "age"), r"holds -1, 1 and .* == 1$"),
    "one and two": (lambda: Target.fit(column_of([1, 2, 1]), "age"), r"holds 1, 2 and .* == 2$"),
    "minus one for missing": (
        lambda: Target.fit(column_of([-1, 0, 1]), "age"),
        "if -1 stands for a missing label",
    ),
    "few whole numbers": (lambda: Target.fit(column_of([0, 1, 2, 3]), "age"), r"classes=\['age'\]"),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_may_be_meant_is_a_warning_that_names_the_column(case: str) -> None:
    call, message = TOLD[case]
    with pytest.warns(UserWarning, match=message):
        call()


@pytest.mark.parametrize(
    ("train", "later"),
    [
        (["1", "2", "1"], ["2"]),  # codes
        (["01234", "12345", "23456", "?"], ["12345"]),  # zip codes
        (pd.Categorical(["17", "?", "40", "23"]), ["?"]),  # meant
        (["Bern", "Oslo"], ["Oslo", "Lima"]),
        (["Bern", "Oslo"], ["Lima"]),
        ([1.0, 2.0, 1e3, 0.0], [50.0, None]),
        ([0.1, 0.2], [0.1]),
    ],
)
def test_ordinary_columns_are_passed_without_a_word(train: Any, later: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen_after(train, later)()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: FrameEncoder.fit(column_of([1.0, 1e300]), ["age"]),
            "'age' holds 1 to 1e.300, expected numbers that",
        ),
        (lambda: FrameEncoder.fit(column_of([0.0, 1e-300]), ["age"]), "'age' holds 0 to 1e-300"),
        (lambda: Target.fit(column_of([1.0, 1e200]), "age"), "target 'age' holds 1 to 1e.200"),
        (seen_after([1.0, 2.0], [1e300]), "'age' lies .* standard deviations from the mean"),
        (lambda: FrameEncoder.fit(column_of([1j, 2j]), ["age"]), "'age' holds complex values"),
    ],
)
def test_what_cannot_be_meant_is_an_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_metric_that_is_not_defined_is_nan_and_the_others_are_there(model: MultiTaskModel) -> None:
    rows = log()[1200:]
    with pytest.warns(UserWarning, match="'bought' has no label in these rows"):
        scores = model.evaluate(rows[rows["click"] == 0].assign(click=0, worth=1.0))
    assert scores["value"].isna().tolist() == [True, True, True, False, False]


# The border


def test_what_a_column_holds_is_read_from_its_type() -> None:
    columns = {
        "numbers": [
            pd.Series([1, 2]),
            pd.Series([True, None], dtype="boolean"),
            pd.Series([1.5, None], dtype="Float32"),
            pd.Series([None, None]),
            pd.Series([2, None, 4], dtype=object),
        ],
        "text": [
            pd.Series(pd.Categorical([1, 2])),
            pd.Series(["a", None], dtype="string"),
            pd.Series([1, "a"]),
            pd.Series(pd.Categorical([None, None])),
        ],
        "lists": [pd.Series([[1], (2, 3), None, np.array([1])])],
        "mixed": [pd.Series([[1], "a"]), pd.Series([{"a": 1}])],
        "complex": [pd.Series([1j])],
    }
    assert {kind: [kind_of(column) for column in found] for kind, found in columns.items()} == {
        kind: [kind] * len(found) for kind, found in columns.items()
    }
    assert kind_of(pd.Series(pd.to_datetime(["2020-01-01"]))).startswith("datetime64")


def test_rows_come_as_a_dict_a_series_or_a_list_of_dicts(model: MultiTaskModel) -> None:
    rows = log(3)
    expected = model.predict(rows[:1]).to_numpy()
    row = rows.iloc[0].to_dict()
    for given in (row, rows.iloc[0], [row]):
        np.testing.assert_allclose(model.predict(given), expected, rtol=1e-6)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(frame_of({"a": [1, 2]}), pd.DataFrame({"a": [1, 2]}))
    strange_frames: list[Any] = [rows.to_numpy(), 3, None, "a", []]
    for strange in strange_frames:
        with pytest.raises(ValueError, match=r"the frame is .*, expected a pandas DataFrame") as caught:
            model.predict(strange)
        assert "\n" not in str(caught.value)


def test_names_numbers_and_settings_are_normalised() -> None:
    names = ["y", "b"]
    for given in (names, tuple(names), np.array(names), pd.Index(names), pd.Series(names), iter(names)):
        assert names_of("targets", given) == names
    strange_names: list[Any] = ["y", {"y"}, 3, [1, 2], None]
    for strange in strange_names:
        with pytest.raises(ValueError, match=r"targets is|no text as its name"):
            names_of("targets", strange)
    assert whole("epochs", np.int64(3), 1) == 3
    assert real("learning_rate", "1e-3") == 1e-3
    assert FitSettings(learning_rate="1e-3").learning_rate == 1e-3  # type: ignore[arg-type]
    wrong: dict[str, Any] = {
        "epochs": "5",
        "batch_size": 2.5,
        "runs": True,
        "patience": 0,
        "learning_rate": "fast",
        "weight_decay": -1,
        "compile": "no",
        "balancer": "none",
        "task_weights": [1.0],
    }
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} (is|are) "):
            FitSettings(**{name: value})
    with pytest.raises(ValueError, match="task weight of 'a' is -1"):
        FitSettings(task_weights={"a": -1})
    with pytest.raises(ValueError, match="task_weights name 'a'"):
        fit(log(60), ["click"], inputs=["a"], settings={"task_weights": {"a": 1}})


def test_encoding_takes_little_more_memory_than_its_result() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"c{i}": rng.integers(0, 900, 4000).astype(str) for i in range(3)})
    encoder = FrameEncoder.fit(frame, ["c0", "c1", "c2"])
    tracemalloc.start()
    x = encoder.encode(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(x, torch.Tensor)
    assert x.nbytes <= peak < 1.5 * x.nbytes


# Training


def test_settings_reach_the_training() -> None:
    frame = log(120)
    plain = fit(frame, ["click", "worth"], 2, inputs=["a"])
    for settings in (
        {"balancer": "GradNorm"},
        {"balancer": "uncertainty"},
        {"weight_decay": 1.0},
        {"task_weights": {"worth": 5.0}},
    ):
        other = fit(frame, ["click", "worth"], 2, inputs=["a"], settings=settings)
        assert not np.allclose(other.predict(frame), plain.predict(frame))
    ignored = fit(frame, ["click", "worth"], 2, inputs=["a"], settings={"task_weights": {"worth": 0.0}})
    assert not np.allclose(ignored.predict(frame), plain.predict(frame))


def test_the_spread_is_that_of_the_runs(model: MultiTaskModel) -> None:
    rows = log(5)
    both = model.predict(rows, spread=True)
    each = []
    for run in (0, 1):
        one = MultiTaskModel(
            model.encoder, model.targets, model.ensemble.part(run, run + 1), model.model, model.sizes
        )
        each.append(one.predict(rows))
        with pytest.raises(ValueError, match="spread is True for a single run"):
            one.predict(rows, spread=True)
    for name in each[0]:
        pair = np.stack([predicted[name] for predicted in each])
        np.testing.assert_allclose(both[name, "mean"], pair.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(both[name, "spread"], pair.std(axis=0, ddof=1), rtol=1e-3, atol=1e-6)


def test_a_run_that_diverges_beside_others_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(num_inputs: int, num_tasks: int, *, generator: torch.Generator) -> MMoE:
        module = MMoE(num_inputs, num_tasks, 2, (4,), generator=generator)
        if generator.initial_seed() == first:
            with torch.no_grad():
                for parameter in module.towers.parameters():
                    parameter.fill_(1e30)  # its squared error is infinite
        return module

    first = seeded_generator(1, "initialisation").initial_seed()
    with pytest.warns(UserWarning, match=r"1 of 3 runs diverged and are left out \(seeds 1\)"):
        model = MultiTaskModel.fit(
            log(60), ["worth"], ["a"], model=build, settings=FitSettings(epochs=1, runs=3), progress=False
        )
    assert model.ensemble.seeds == (0, 2)


def watched(change: Callable[[Ensemble], object], noise: bool = False) -> list[str]:
    """What is told of a model of two real targets whose two runs were changed."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=generator)
    x[:, 0] = 1.0
    y = torch.randn(400, 2, generator=generator)
    targets = [Target("s", False), Target("t", False)]
    ensemble = Ensemble(
        lambda generator: MMoE(3, 2, 3, (8,), tower_widths=(4,), generator=generator), seeds=[0, 1]
    )
    for value in ensemble.parameters.values():
        value[1] = value[0]
    y = y if noise else ensemble.predict(x)[0] + 0.01 * y
    change(ensemble)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        watch(ensemble, targets, MixedLoss(targets), y, x, y, "held-out")
    return [str(one.message) for one in told]


def test_a_training_that_went_wrong_is_said_once_a_kind() -> None:
    def dead(ensemble: Ensemble) -> None:
        ensemble.parameters["towers.towers.1.output.weight"][1] = 0.0

    def one_expert(ensemble: Ensemble) -> None:
        ensemble.parameters["gates.weight"][0, [0, 3], 0] = (
            50.0  # the first input is 1: expert 1 of 3 for both
        )

    assert watched(lambda ensemble: None) == []
    (told,) = [one for one in watched(dead) if "one constant" in one]
    assert "'t' in 1 of 2 runs" in told
    assert any("'s', 't': not predicted better" in one for one in watched(lambda ensemble: None, noise=True))
    told_gates = watched(one_expert)
    assert any(
        "the gate of 's' in 1 of 2 runs, 't' in 1 of 2 runs reads one expert alone" in one
        for one in told_gates
    )
    assert any("up to 2 of 3 experts are read by no target in 1 of 2 runs" in one for one in told_gates)


def test_the_example_of_the_package() -> None:
    result = doctest.testmod(frames, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
    assert result.attempted >= 5
