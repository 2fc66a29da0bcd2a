"""Models on a pandas frame: what is fitted, in which unit it predicts, and that a file predicts the same."""

import doctest
import json
import math
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor, nn

from mmoe_lib.export import ONNX_PACKAGES, TOLERANCE
from mmoe_lib.frames import MODELS, FitSettings, FrameEncoder, MultiTaskModel, Target
from mmoe_lib.frames import model as model_module
from mmoe_lib.frames.encoder import MAX_CATEGORIES, UNKNOWN
from mmoe_lib.frames.targets import MixedLoss, OwnUnits, labels_of
from mmoe_lib.models import SharedBottom
from mmoe_lib.training import binary_cross_entropy, squared_error

ROOT = Path(__file__).parents[1]
TARGETS = ["spent", "bought", "minutes"]
DISTANCE = 1.5
"""Between the means of "score" among those who bought and those who did not, in standard deviations."""

SHORT = FitSettings(epochs=1)
SMALL = {"num_experts": 3, "expert_widths": (8,), "tower_widths": (4,)}


def shop(rows: int, seed: int = 0) -> pd.DataFrame:
    """Two real targets linear in the inputs, in units of their own, and a binary one whose best AUC is known."""
    rng = np.random.default_rng(seed)
    bought = rng.random(rows) < 0.4
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 10, rows),
            "member": rng.random(rows) < 0.5,
            "city": rng.choice(["Bern", "Oslo", "Rome"], rows),
            "score": rng.normal(0, 1, rows) + DISTANCE * bought,
        }
    )
    worth = frame["city"].map({"Bern": 0, "Oslo": 3000, "Rome": -3000}) + 100 * frame["age"]
    frame["spent"] = 50_000 + worth + 2000 * frame["member"] + rng.normal(0, 200, rows)
    frame["bought"] = bought
    frame["minutes"] = 0.002 * frame["score"] - 0.0001 * frame["age"] + rng.normal(0, 0.0002, rows)
    return frame


@pytest.fixture(scope="module")
def fitted() -> MultiTaskModel:
    settings = FitSettings(epochs=40, learning_rate=0.01)
    return MultiTaskModel.fit(shop(1500), TARGETS, sizes=SMALL, settings=settings, progress=False)


def quick(frame: pd.DataFrame | None = None, targets: Any = TARGETS, **given: Any) -> MultiTaskModel:
    frame = shop(60) if frame is None else frame
    return MultiTaskModel.fit(frame, targets, **{"settings": SHORT, "progress": False, **given})


def encoded(encoder: FrameEncoder, frame: pd.DataFrame) -> Tensor:
    """The encoded rows of a frame without ids."""
    x = encoder.encode(frame)
    assert isinstance(x, Tensor)
    return x


# The encoder


def test_numbers_and_categories_are_encoded_as_scikit_learn_does_it() -> None:
    train, rows = shop(200), shop(50, seed=1)
    numbers, categories = ["age", "member", "score"], ["city"]
    encoder = FrameEncoder.fit(train, [*numbers, *categories])
    scaler = StandardScaler().fit(train[numbers].astype(float))
    one_hot = OneHotEncoder(sparse_output=False).fit(train[categories])
    expected = np.hstack(
        [
            scaler.transform(rows[numbers].astype(float)),
            one_hot.transform(rows[categories]),
            np.zeros((50, 1)),
        ]
    )
    np.testing.assert_allclose(encoded(encoder, rows).numpy(), expected, atol=1e-6)
    assert encoder.feature_names == (
        *numbers,
        *(f"city={value}" for value in ("Bern", "Oslo", "Rome", UNKNOWN)),
    )


def test_missing_and_constant_columns_by_hand() -> None:
    train = pd.DataFrame(
        {
            "n": [1.0, 3.0, np.nan],
            "constant": [0.1, 0.1, 0.1],
            "none": [None, None, None],
            "flag": pd.array([True, False, None], dtype="boolean"),
            "object": pd.Series([2, None, 4], dtype=object),
        }
    )
    encoder = FrameEncoder.fit(train, list(train.columns))
    rows = pd.DataFrame(
        {"n": [5, None], "constant": [7.0, 0.1], "none": [3, None], "flag": [True, None], "object": [3, 5]}
    )
    # (5 - 2) / 1 and the mean; nothing was learned from a constant; (1 - 1/2) / (1/2); (5 - 3) / 1
    assert encoded(encoder, rows).tolist() == [[3, 0, 0, 1, 0], [0, 0, 0, 0, 2]]


def test_a_category_that_is_unknown_in_training_or_later() -> None:
    with_missing = FrameEncoder.fit(pd.DataFrame({"city": ["b", None, "a", ""]}), ["city"])
    rows = pd.DataFrame({"city": ["a", "b", "", "unseen", None]})
    # sorted: "", "a", "b", unknown
    assert encoded(with_missing, rows).tolist() == [
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
    ]
    # No training row was unknown: the weights of that column have learned nothing, the mean row stands in.
    complete = FrameEncoder.fit(pd.DataFrame({"city": ["b", "a", "b", "b"]}), ["city"])
    assert encoded(complete, rows[1:4]).tolist() == [[0, 1, 0], [0.25, 0.75, 0], [0.25, 0.75, 0]]


def test_categories_are_compared_by_their_text() -> None:
    encoder = FrameEncoder.fit(pd.DataFrame({"code": pd.Categorical([1, 2, 1, None])}), ["code"])
    assert encoder.feature_names == ("code=1", "code=2", f"code={UNKNOWN}")
    one = [[1.0, 0.0, 0.0]]
    for value in (1, 1.0, "1", np.int8(1)):
        assert encoded(encoder, pd.DataFrame({"code": [value]})).tolist() == one


def test_an_encoder_comes_back_from_json() -> None:
    frame = shop(50)
    frame.loc[3, "city"] = None
    encoder = FrameEncoder.fit(frame, ["score", "city", "age"])
    assert FrameEncoder.from_plain(json.loads(json.dumps(encoder.to_plain()))) == encoder
    for wrong in ([{"kind": "Number"}], [{"kind": "Date", "name": "a"}], [3], 3):
        with pytest.raises(ValueError, match=r"no encoder|expected 'Number'"):
            FrameEncoder.from_plain(wrong)  # type: ignore[arg-type]


def test_rows_held_out_do_not_decide_how_columns_are_encoded() -> None:
    train, other = shop(60), shop(60, seed=1)
    other["age"] += 1000
    other["city"] = "Lima"
    other["spent"] *= 9
    first, second = (quick(train, validation=held_out) for held_out in (None, other))
    assert first.encoder == second.encoder == FrameEncoder.fit(train, ["age", "member", "city", "score"])
    assert first.targets == second.targets
    halved = quick(train, validation=0.5)
    assert halved.encoder != first.encoder
    assert halved.history is not None
    assert halved.history.loss_steps == [1]  # 30 rows: one batch


# The targets


def test_kinds_of_targets() -> None:
    frame = pd.DataFrame(
        {
            "flag": [True, False, True],
            "zero_one": [0.0, 1.0, 1.0],
            "nullable": pd.array([0, 1, 0], dtype="Int64"),
            "two": [0, 2, 0],
            "real": [-10.0, 0.0, 10.0],
        }
    )
    kinds = [Target.fit(frame, name) for name in frame.columns]
    assert [target.binary for target in kinds] == [True, True, True, False, False]
    assert kinds[-1] == Target("real", False, 0.0, math.sqrt(200 / 3))
    labels = labels_of(kinds, frame)
    assert labels[:, :3].tolist() == [[1, 0, 0], [0, 1, 1], [1, 1, 0]]
    torch.testing.assert_close(labels[:, 3:].mean(dim=0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(labels[:, 3:].std(dim=0, correction=0), torch.ones(2))
    # What the labels say comes back in the unit of the frame.
    outputs = torch.where(torch.tensor([True] * 3 + [False] * 2), 200 * (labels - 0.5), labels)
    back = OwnUnits(kinds, torch.float64)(outputs).numpy()
    np.testing.assert_allclose(back, frame.astype(float).to_numpy(), atol=1e-5)


def test_the_mixed_loss_is_each_target_s_own() -> None:
    targets = [Target("a", True), Target("b", False, 3.0, 2.0), Target("c", True)]
    generator = torch.Generator().manual_seed(0)
    outputs = (5 * torch.randn(40, 3, generator=generator)).requires_grad_()
    labels = (torch.rand(40, 3, generator=generator) > 0.5).float()
    labels[:, 1] = torch.randn(40, generator=generator)
    losses = MixedLoss(targets)(outputs, labels)
    expected = [
        binary_cross_entropy(outputs[:, :1], labels[:, :1]),
        squared_error(outputs[:, 1:2], labels[:, 1:2]),
        binary_cross_entropy(outputs[:, 2:], labels[:, 2:]),
    ]
    torch.testing.assert_close(losses, torch.cat(expected))
    (gradient,) = torch.autograd.grad(losses.sum(), outputs)
    (wanted,) = torch.autograd.grad(torch.cat(expected).sum(), outputs)
    torch.testing.assert_close(gradient, wanted)


# What is learned


def test_rules_are_recovered_and_real_targets_keep_their_unit(fitted: MultiTaskModel) -> None:
    new = shop(4000, seed=1)
    predicted = fitted.predict(new)
    assert list(predicted.columns) == TARGETS
    scores = fitted.evaluate(new)
    assert list(scores["metric"]) == ["R2", "AUC", "R2"]
    assert (scores["value"][["spent", "minutes"]] > 0.95).all()
    # Two normal distributions a distance apart: AUC = Phi(distance / sqrt 2). One standard error of 4,000 rows: 0.006.
    best = 0.5 * (1 + math.erf(DISTANCE / 2))
    assert abs(scores["value"]["bought"] - best) < 0.015
    assert abs(scores["value"]["bought"] - roc_auc_score(new["bought"], new["score"])) < 0.01
    for name, unit in (("spent", 200.0), ("minutes", 0.0002)):  # the noise that nobody can predict
        assert unit < float((predicted[name] - new[name]).std()) < 2.5 * unit
        assert abs(float((predicted[name] - new[name]).mean())) < unit
        assert scores["value"][name] == pytest.approx(r2_score(new[name], predicted[name]), abs=1e-12)
    assert scores["value"]["bought"] == pytest.approx(
        roc_auc_score(new["bought"], predicted["bought"]), abs=1e-12
    )
    # Probabilities, and calibrated ones: of those said to buy with 40 to 60 %, about half do.
    middle = new["bought"][predicted["bought"].between(0.4, 0.6)]
    assert 0.4 < middle.mean() < 0.6


def test_predictions_are_those_of_the_module_it_holds(fitted: MultiTaskModel) -> None:
    new = shop(50, seed=2)
    new.index = pd.Index(range(100, 150), name="customer")
    with torch.no_grad():
        outputs = fitted.ensemble.module(0)(fitted.encoder.encode(new)).double().numpy()
    spent, minutes = fitted.targets[0], fitted.targets[2]
    expected = {
        "spent": outputs[:, 0] * spent.scale + spent.mean,
        "bought": 1 / (1 + np.exp(-outputs[:, 1])),
        "minutes": outputs[:, 2] * minutes.scale + minutes.mean,
    }
    pd.testing.assert_frame_equal(fitted.predict(new), pd.DataFrame(expected, new.index), rtol=1e-5)
    assert fitted.predict(new[:0]).shape == (0, 3)


def test_the_order_of_columns_does_not_matter_and_others_are_not_looked_at(fitted: MultiTaskModel) -> None:
    new = shop(50, seed=2)
    shuffled = new[["city", "minutes", "score", "age", "member"]].assign(other="text")
    pd.testing.assert_frame_equal(fitted.predict(shuffled), fitted.predict(new), check_exact=True)


def test_one_seed_is_one_result() -> None:
    settings = [FitSettings(epochs=3, seed=seed) for seed in (1, 1, 2)]
    one, again, other = (quick(settings=given).predict(shop(20)).to_numpy() for given in settings)
    assert (one == again).all()
    assert (one != other).all()


@pytest.mark.parametrize("targets", [["bought"], ["bought", "minutes"]])
def test_one_and_two_targets(targets: list[str]) -> None:
    frame = shop(60).drop(columns="spent")
    model = quick(frame, targets, inputs=["age", "score"])
    assert [column.name for column in model.encoder.columns] == ["age", "score"]
    assert list(model.evaluate(frame).index) == targets
    assert model.gate_weights(frame).shape == (60, 8 * len(targets))
    everything = quick(frame, targets)
    assert {column.name for column in everything.encoder.columns} == set(frame) - set(targets)


def test_several_runs_predict_their_mean() -> None:
    model = quick(settings=FitSettings(epochs=2, runs=3), sizes=SMALL)
    assert model.ensemble.seeds == (0, 1, 2)
    x = model.encoder.encode(shop(20))
    with torch.no_grad():
        outputs = torch.stack([model.ensemble.module(run)(x) for run in range(3)]).double().numpy()
    probabilities = (1 / (1 + np.exp(-outputs[..., 1]))).mean(axis=0)
    np.testing.assert_allclose(model.predict(shop(20))["bought"], probabilities, rtol=1e-5)
    gates = [model.gate_weights(shop(20), run) for run in range(3)]
    assert not np.allclose(gates[0], gates[1])
    with pytest.raises(ValueError, match=r"run is 3, expected 0 to 2"):
        model.gate_weights(shop(20), 3)


def test_gates_are_the_model_s_own(fitted: MultiTaskModel) -> None:
    new = shop(50, seed=2)
    gates = fitted.gate_weights(new)
    assert gates.columns.equals(pd.MultiIndex.from_product([TARGETS, (1, 2, 3)]))
    np.testing.assert_allclose(gates.T.groupby(level="target").sum(), 1, atol=1e-6)
    expected = fitted.ensemble.module(0).gate_weights(fitted.encoder.encode(new))  # type: ignore[operator]
    np.testing.assert_allclose(gates["bought"], expected[:, 1].detach(), rtol=1e-5)
    with pytest.raises(TypeError, match="SharedBottom has no gates"):
        quick(model="Shared-Bottom").gate_weights(new)


def test_the_epoch_with_the_lowest_validation_loss_is_kept() -> None:
    """Forty rows and large steps: the network soon knows them by heart, and does worse on others."""
    train, held_out = shop(40), shop(200, seed=1)
    settings = FitSettings(epochs=100, learning_rate=0.03, patience=5)
    model = quick(train, ["minutes", "bought"], settings=settings, validation=held_out)
    assert model.history is not None
    losses = [float(value) for value in model.history.metrics["loss"]]
    best = int(np.argmin(losses))
    assert model.history.best_step.tolist() == [best + 1]
    assert model.history.stopped_step.tolist() == [best + 6]
    predicted = model.predict(held_out)
    error = (predicted["minutes"] - held_out["minutes"]) / model.targets[0].scale
    p = predicted["bought"]
    entropy = -np.log(np.where(held_out["bought"], p, 1 - p)).mean()
    assert float(np.square(error).mean() + entropy) == pytest.approx(losses[best], rel=1e-4)
    assert len(quick(train, settings=FitSettings(epochs=7), validation=None).history.losses) == 7  # type: ignore[union-attr]


# Errors


def without(name: str) -> pd.DataFrame:
    return shop(60).drop(columns=name)


def with_value(name: str, value: Any, rows: int = 1) -> pd.DataFrame:
    frame = shop(60)
    frame[name] = frame[name].astype(object).where(np.arange(60) >= rows, value)
    return frame


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "target missing": (lambda: quick(without("spent")), "no column 'spent'"),
    "input missing": (lambda: quick(without("age"), inputs=["age"]), "no column 'age'"),
    "a target without labels": (lambda: quick(with_value("bought", None, 60)), "'bought' has no label"),
    "infinite target": (lambda: quick(with_value("spent", np.inf)), "'spent' holds infinity"),
    "infinite input": (lambda: quick(with_value("age", -np.inf)), "'age' holds infinity"),
    "text target": (lambda: quick(with_value("bought", "yes", 60)), "'bought' holds 1 distinct value"),
    "a target of dates": (
        lambda: quick(with_value("bought", pd.Timestamp("2020-01-01"), 60)),
        "'bought' holds datetime",
    ),
    "a target of names": (
        lambda: quick(shop(300).assign(bought=[f"name {n}" for n in range(300)]), validation=None),
        "'bought' holds 300 classes",
    ),
    "constant target": (lambda: quick(with_value("bought", True, 60)), "'bought' holds 1 distinct value"),
    "a date": (lambda: quick(with_value("age", pd.Timestamp("2020-01-01"), 60)), "'age' holds datetime"),
    "dicts": (
        lambda: quick(shop(60).assign(age=shop(60)["age"].map(lambda age: {"age": age}))),
        "'age' holds mixed",
    ),
    "a name a row": (
        lambda: quick(shop(MAX_CATEGORIES * 2).assign(id=[f"id {n}" for n in range(MAX_CATEGORIES * 2)])),
        "'id' holds 1,600 distinct values",
    ),
    "a target among inputs": (lambda: quick(inputs=["age", "spent"]), "'spent' is named twice"),
    "a target twice": (lambda: quick(targets=["spent", "spent"]), "'spent' is named twice"),
    "a column twice": (
        lambda: quick(pd.concat([shop(60), shop(60)[["age"]]], axis=1), inputs=["age"]),
        "'age' more than once",
    ),
    "one name": (lambda: quick(targets="spent"), r"targets is 'spent', expected a list"),
    "no targets": (lambda: quick(targets=[]), "targets is empty"),
    "no inputs": (lambda: quick(inputs=[]), "0 input columns"),
    "names that are numbers": (
        lambda: quick(shop(60).assign(a=1).rename(columns={"a": 0})),
        "column 0 has no text",
    ),
    "no rows": (lambda: quick(shop(0), validation=None), "0 rows"),
    "validation": (lambda: quick(validation=1.5), "validation is 1.5"),
    "validation takes all": (lambda: quick(shop(2), validation=0.9), "validation is 0.9 of 2 rows"),
    "model": (lambda: quick(model="MoE"), "model is 'MoE', expected one of MMoE"),
    "size": (lambda: quick(sizes={"experts": 3}), "sizes are .*experts"),
    "a size that is no number": (
        lambda: quick(sizes={"expert_widths": 16}),
        "sizes are .*'expert_widths': 16",
    ),
    "sizes that are a list": (lambda: quick(sizes=[1]), "sizes are list"),
    "no model": (lambda: quick(model=None), "model is None"),
    "settings as a dict": (lambda: quick(settings={"epochs": 1}), "settings are dict"),
    "a device without numbers": (lambda: FitSettings(device="meta"), "device is 'meta'"),
    "size that is needed": (lambda: quick(model="Tensor-Factorization"), "sizes are .*ranks"),
    "another number of outputs": (
        lambda: quick(model=lambda d, k, generator: SharedBottom(d, k + 1, (4,), generator=generator)),
        r"outputs \(1, 4\) for one row, expected \(1, 3\)",
    ),
    "epochs": (lambda: FitSettings(epochs=0), "epochs is 0"),
    "seed": (lambda: FitSettings(seed=-1), "seed is -1"),
    "learning rate": (lambda: quick(settings=FitSettings(learning_rate=-1)), "learning_rate is -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_fitted_is_said_in_one_line(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_frames_unlike_the_training_frame_are_refused_in_one_line(fitted: MultiTaskModel) -> None:
    for frame, message in (
        (without("score"), "no column 'score'"),
        (with_value("age", "old"), "'age' holds mixed.* values, expected numbers"),
        (with_value("age", np.inf), "'age' holds infinity"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            fitted.predict(frame)
        assert "\n" not in str(caught.value)
    for frame, message in (
        (without("spent"), "no column 'spent'"),
        (shop(60).assign(bought=2), "'bought' holds 2, expected 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.evaluate(frame)
    # What is missing or unseen among the inputs is no error.
    strange = with_value("city", "Lima", 60).assign(age=np.nan)
    assert np.isfinite(fitted.predict(strange)).all(axis=None)
    assert fitted.predict(strange)["spent"].between(45_000, 65_000).all()


# Files

IN_A_NEW_PROCESS = """
import sys, torch, pandas as pd
torch.set_num_threads(int(sys.argv[4]))
from mmoe_lib.frames import MultiTaskModel
frame = pd.read_pickle(sys.argv[2])
MultiTaskModel.load(sys.argv[1]).predict(frame).to_pickle(sys.argv[3])
"""


def test_a_saved_model_predicts_the_same_bits_in_a_new_process(
    fitted: MultiTaskModel, tmp_path: Path
) -> None:
    new = shop(300, seed=2)
    new.loc[5, "city"] = "Lima"
    new.loc[6, "age"] = np.nan
    paths = [tmp_path / name for name in ("model.pt", "frame.pkl", "predicted.pkl")]
    fitted.save(paths[0])
    new.to_pickle(paths[1])
    command = [sys.executable, "-c", IN_A_NEW_PROCESS, *map(str, paths), str(torch.get_num_threads())]
    subprocess.run(command, check=True, cwd=ROOT)
    pd.testing.assert_frame_equal(pd.read_pickle(paths[2]), fitted.predict(new), check_exact=True)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    sizes = {"ranks": (2, 3, 2)} if name == "Tensor-Factorization" else {}
    model = quick(model=name, sizes=sizes, settings=FitSettings(epochs=2, runs=2))
    model.save(tmp_path / "model.pt")
    loaded = MultiTaskModel.load(tmp_path / "model.pt")
    pd.testing.assert_frame_equal(loaded.predict(shop(20)), model.predict(shop(20)), check_exact=True)
    assert (loaded.model, loaded.encoder, loaded.targets) == (name, model.encoder, model.targets)
    assert loaded.ensemble.seeds == (0, 1)
    loaded.save(tmp_path / "again.pt")
    assert MultiTaskModel.load(tmp_path / "again.pt").sizes == loaded.sizes


def test_a_file_holds_tensors_and_plain_values_alone(fitted: MultiTaskModel, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    state = content.pop("state")
    assert state.keys() == fitted.ensemble.parameters.keys()
    assert json.loads(json.dumps(content)) == content
    assert content["sizes"] == {"num_experts": 3, "expert_widths": [8], "tower_widths": [4]}


def own_network(
    num_inputs: int, num_tasks: int, *, width: int = 4, note: object = None, generator: torch.Generator
) -> nn.Module:
    return SharedBottom(num_inputs, num_tasks, (width,), generator=generator)


def test_a_builder_of_one_s_own_is_asked_for_again(fitted: MultiTaskModel, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    model = quick(model=own_network, sizes={"width": 6})
    model.save(path)
    loaded = MultiTaskModel.load(path, builder=own_network)
    assert loaded.model is None
    pd.testing.assert_frame_equal(loaded.predict(shop(20)), model.predict(shop(20)), check_exact=True)
    with pytest.raises(ValueError, match=r"fitted with a builder, expected that builder"):
        MultiTaskModel.load(path)

    def wider(num_inputs: int, num_tasks: int, *, width: int, generator: torch.Generator) -> nn.Module:
        return SharedBottom(num_inputs, num_tasks, (width + 1,), generator=generator)

    with pytest.raises(ValueError, match=r"the builder makes another model than the one in model\.pt"):
        MultiTaskModel.load(path, builder=wider)

    def broken(num_inputs: int, num_tasks: int, *, width: int, generator: torch.Generator) -> nn.Module:
        raise RuntimeError("the builder's own")

    with pytest.raises(RuntimeError, match="the builder's own"):  # the file is as it should be
        MultiTaskModel.load(path, builder=broken)
    fitted.save(path)
    with pytest.raises(ValueError, match=r"fitted with 'MMoE', expected none"):
        MultiTaskModel.load(path, builder=own_network)


def test_damaged_files_are_refused_in_one_line(fitted: MultiTaskModel, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError):
        MultiTaskModel.load(path)
    fitted.save(path)
    whole = path.read_bytes()
    weights = next(iter(fitted.ensemble.parameters.values())).numpy().tobytes()
    flipped = whole.replace(weights, bytes([weights[0] ^ 1]) + weights[1:])
    assert flipped != whole
    saved = torch.load(path, weights_only=True)
    assert saved["versions"].keys() == {"python", "torch", "mmoe_lib"}
    name, value = next(iter(saved["state"].items()))
    damaged = "no saved model, expected a file of"
    cases = [
        (content, damaged) for content in (b"", b"no model", whole[: len(whole) // 2], whole[:-1], flipped)
    ]
    for changed, message in (
        ([1, 2], damaged),
        ({**saved, "format": "another"}, damaged),
        (
            {**saved, "format": "mmoe_lib frame model, version 1"},
            "as version 1 of the format, expected version 2",
        ),
        ({**saved, "model": "MoE"}, "model is 'MoE', expected one of"),
        ({**saved, "sizes": {"num_experts": 4, "expert_widths": [8], "tower_widths": [4]}}, damaged),
        ({**saved, "encoder": saved["encoder"][1:]}, damaged),
        ({**saved, "targets": saved["targets"][1:]}, damaged),
        ({**saved, "targets": [{"name": "a"}]}, damaged),
        ({**saved, "seeds": [0, 1]}, damaged),
        ({**saved, "state": {**saved["state"], "more": torch.zeros(1)}}, damaged),
        ({key: value for key, value in saved.items() if key != "state"}, damaged),
        ({key: value for key, value in saved.items() if key != "model"}, damaged),
        ({**saved, "state": {**saved["state"], name: value * torch.nan}}, "NaN or infinite numbers in"),
        ({**saved, "state": {**saved["state"], name: value * 1j}}, "complex numbers in"),
        (
            {**saved, "model": Path},
            "more than tensors and plain values",
        ),  # a class: weights_only does not read it
    ):
        torch.save(changed, path)
        cases.append((path.read_bytes(), message))
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            MultiTaskModel.load(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="device is 'nowhere'"):
        MultiTaskModel.load(path, device="nowhere")


def test_a_save_that_fails_leaves_what_was_there(
    fitted: MultiTaskModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"the old one")
    odd = quick(model=own_network, sizes={"note": torch.tanh})
    with pytest.raises(ValueError, match="sizes are"):
        odd.save(path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fitted.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]
    assert path.read_bytes() == b"the old one"


@pytest.mark.parametrize("runs", [1, 2])
def test_the_exported_program_predicts_as_predict_does(runs: int, tmp_path: Path) -> None:
    model = quick(settings=FitSettings(epochs=20, runs=runs), sizes=SMALL)
    model.export(tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for rows in (1, 50):
        new = shop(rows, seed=2)
        predicted = model.predict(new).to_numpy()
        np.testing.assert_allclose(
            program(model.encoder.encode(new)), predicted, rtol=TOLERANCE, atol=TOLERANCE
        )
    assert (predicted.std(axis=0) > [100, 0.01, 1e-4]).all()  # else a constant would pass
    with pytest.raises(ValueError, match=r"model\.bin, expected a name that ends in \.pt2 or \.onnx"):
        model.export(tmp_path / "model.bin")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.pt2", "model.schema.json"]


def test_onnx_predicts_the_same_or_says_what_to_install(fitted: MultiTaskModel, tmp_path: Path) -> None:
    """Both branches assert: this machine has the packages or has not."""
    path, new = tmp_path / "model.onnx", shop(50, seed=2)
    if not all(find_spec(package) for package in ONNX_PACKAGES):
        with pytest.raises(ImportError, match="pip install onnx onnxscript onnxruntime"):
            fitted.export(path)
        assert list(tmp_path.iterdir()) == []
        return
    fitted.export(path)
    session = import_module("onnxruntime").InferenceSession(path)
    (predicted,) = session.run(["y"], {"x": encoded(fitted.encoder, new).numpy()})
    np.testing.assert_allclose(predicted, fitted.predict(new), rtol=TOLERANCE, atol=TOLERANCE)


def test_the_example_of_the_docstring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(model_module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result == doctest.TestResults(failed=0, attempted=10)
