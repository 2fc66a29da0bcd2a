"""Exported models: the same predictions for any number of rows, and files that are whole or not there."""

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from companion.study.rankers import METHODS, build_ranker
from mmoe_lib import export
from mmoe_lib.export import ONNX_PACKAGES, TOLERANCE, export_model, export_onnx
from mmoe_lib.models import MMoE
from mmoe_lib.seeds import seeded_generator

SPARSE, DENSE, VOCABULARY = 6, 5, 500
WIDTH = SPARSE + DENSE
MODELS: dict[str, Callable[..., nn.Module]] = {
    **{method: build_ranker(method, SPARSE, DENSE, VOCABULARY) for method in METHODS},
    "plain MMoE": partial(MMoE, WIDTH, 2, 4, (8,), (4,)),
}
ROWS = (1, 7, 1000)


def model_of(name: str) -> nn.Module:
    """Its weights are large enough for predictions to differ from row to row."""
    model = MODELS[name](generator=seeded_generator(0, "initialisation"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def inputs(rows: int, name: str = "MMoE") -> Tensor:
    """Ids and numbers; to a model without embeddings ids are numbers too, from 0 to 1 like the others."""
    generator = seeded_generator(rows, "inputs")
    ids = torch.randint(VOCABULARY, (rows, SPARSE), generator=generator).float()
    ids = ids / VOCABULARY if name == "plain MMoE" else ids
    return torch.cat([ids, torch.rand(rows, DENSE, generator=generator)], dim=1)


def assert_equal(predicted: Tensor, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = model(x)
    assert predicted.shape == (len(x), 2)
    torch.testing.assert_close(predicted, expected, atol=TOLERANCE, rtol=TOLERANCE)
    if len(x) > 1:
        assert (expected.std(dim=0) > 100 * TOLERANCE).all()  # else a constant would pass


@pytest.mark.parametrize("name", MODELS)
def test_the_program_and_its_file_predict_what_the_model_predicts(name: str, tmp_path: Path) -> None:
    model, path = model_of(name), tmp_path / "model.pt2"
    exported = export_model(model, WIDTH, path).module()
    loaded = torch.export.load(path).module()
    for rows in ROWS:
        assert_equal(exported(inputs(rows, name)), model, inputs(rows, name))
        assert_equal(loaded(inputs(rows, name)), model, inputs(rows, name))
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]


def test_the_program_is_a_snapshot_and_leaves_the_model_as_it_was() -> None:
    model = model_of("MMoE").train()
    exported, before = export_model(model, WIDTH).module(), model(inputs(7)).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(exported(inputs(7)), before, atol=TOLERANCE, rtol=TOLERANCE)
    assert not exported(inputs(7)).requires_grad


def test_an_exported_program_refuses_rows_of_another_width() -> None:
    exported = export_model(model_of("Shared-Bottom"), WIDTH).module()
    with pytest.raises((AssertionError, RuntimeError), match=str(WIDTH)):  # torch 2.4 raises the second
        exported(torch.zeros(3, WIDTH + 1))


@pytest.mark.parametrize("width", [0, WIDTH - 1, WIDTH + 1])
@pytest.mark.parametrize("name", ["MMoE", "plain MMoE"])
def test_a_wrong_width_leaves_no_file(name: str, width: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"num_inputs is {width}, expected {WIDTH}"):
        export_model(model_of(name), width, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"the old one")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export_model(model_of("OMoE"), WIDTH, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
    assert path.read_bytes() == b"the old one"

    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if float(x.sum()) > 0 else x  # which of the two is not known before x is

    with pytest.raises(Exception, match=r"(?i)data-dependent"):
        export_model(Stubborn(), WIDTH, path)
    assert path.read_bytes() == b"the old one"


@pytest.mark.parametrize("name", MODELS)
def test_onnx_predicts_the_same_or_says_what_to_install(name: str, tmp_path: Path) -> None:
    """Both branches assert: this machine has the packages or has not."""
    model, path = model_of(name), tmp_path / "model.onnx"
    if not all(find_spec(package) for package in ONNX_PACKAGES):
        with pytest.raises(ImportError, match="pip install onnx onnxscript onnxruntime"):
            export_onnx(model, WIDTH, path)
        assert list(tmp_path.iterdir()) == []
        return
    onnxruntime = import_module("onnxruntime")
    export_onnx(model, WIDTH, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(path)
    for rows in ROWS:
        (predicted,) = session.run(["y"], {"x": inputs(rows, name).numpy()})
        assert_equal(torch.from_numpy(predicted), model, inputs(rows, name))


@pytest.mark.parametrize("missing", ONNX_PACKAGES)
def test_each_missing_onnx_package_is_an_error_of_one_line(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ONNX_PACKAGES:
        monkeypatch.setitem(sys.modules, package, None if package == missing else sys)
    with pytest.raises(ImportError, match=rf"{missing}.*pip install") as caught:
        export_onnx(model_of("MMoE"), WIDTH, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_predictions_that_differ_are_found() -> None:
    model, x = model_of("MMoE"), inputs(7)
    with torch.no_grad():
        right = model(x).numpy()
    export._check_equal(right, model, x)
    for wrong in (right + 1e-3, right[:1], right[:, :1], np.full_like(right, np.nan)):
        with pytest.raises(ValueError, match="onnxruntime predicts"):
            export._check_equal(wrong, model, x)
