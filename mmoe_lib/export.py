"""Trained models as files that serve without this library: `torch.export` programs and ONNX.

Both keep the number of rows open, so one file answers a single request and a list of candidates alike. A file is
written whole or not at all.
"""

from __future__ import annotations

import copy
import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmoe_lib.files import write_whole
from mmoe_lib.seeds import seeded_generator

TOLERANCE = 1e-5
"""How far the predictions of an exported model may lie from the module's, absolutely and relatively."""

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

_EXAMPLE_ROWS = 7  # any number but 0 and 1, which torch.export would take for the only one


def export_model(
    module: nn.Module, num_inputs: int, path: Path | str | None = None
) -> torch.export.ExportedProgram:
    """A model's forward pass as a program with a dynamic number of rows, a snapshot of its present weights.

    Args:
        module: Maps inputs (B, num_inputs) to outputs (B, K): any model of this library, such as a run of an
            ensemble (`Ensemble.module`).
        num_inputs: Columns of its input; of a `Ranker`, its `num_inputs`.
        path: Where the program is also saved, for `torch.export.load`; None saves nothing. Such files end in ".pt2".

    Returns:
        The program; its `module()` is called as the model is, with 1 row or more.

    Raises:
        ValueError: If num_inputs is not the model's.
        OSError: If the file cannot be written; there is then none, or still the one that was there.
    """
    module, x = _snapshot(module, num_inputs)
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: rows},))
    if path is not None:
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        write_whole(Path(path), buffer.getvalue())
    return program


def export_onnx(module: nn.Module, num_inputs: int, path: Path | str) -> None:
    """Write a model's forward pass as an ONNX file with a dynamic number of rows, input "x", output "y".

    The file is written only after onnxruntime was seen to predict with it what the module predicts. Needs torch 2.5.

    Args:
        module: Maps inputs (B, num_inputs) to outputs (B, K).
        num_inputs: Columns of its input.
        path: The file, which holds the weights too.

    Raises:
        ImportError: If one of `ONNX_PACKAGES` is not installed.
        ValueError: If num_inputs is not the model's, or onnxruntime predicts something else.
        OSError: If the file cannot be written; there is then none, or still the one that was there.
    """
    runtime = _onnx_packages()["onnxruntime"]
    module, x = _snapshot(module, num_inputs)
    rows = torch.export.Dim("rows", min=1)
    exported: Any = torch.onnx.export(
        module,
        (x,),
        dynamo=True,
        dynamic_shapes=({0: rows},),
        input_names=["x"],
        output_names=["y"],
        verbose=False,
    )
    content: bytes = exported.model_proto.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for inputs in (x, x[:1]):
        (predicted,) = session.run(["y"], {"x": inputs.numpy()})
        _check_equal(predicted, module, inputs)
    write_whole(Path(path), content)


def _onnx_packages() -> dict[str, Any]:
    try:
        return {name: importlib.import_module(name) for name in ONNX_PACKAGES}
    except ImportError as error:
        raise ImportError(
            f"ONNX export needs {', '.join(ONNX_PACKAGES)}, expected all of them ({error}): "
            f"pip install {' '.join(ONNX_PACKAGES)}, or use export_model, which needs none"
        ) from error


def _snapshot(module: nn.Module, num_inputs: int) -> tuple[nn.Module, Tensor]:
    """A copy that answers but does not train, on the CPU, and inputs (7, num_inputs) that it accepts.

    Raises:
        ValueError: If num_inputs is not the model's.
    """
    own = getattr(module, "num_inputs", max(1, num_inputs))
    if num_inputs != own:
        raise ValueError(f"num_inputs is {num_inputs}, expected {own}: the columns of the model's input")
    module = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    # Cut to whole numbers these are 0, an id that every embedding has.
    x = torch.rand(_EXAMPLE_ROWS, num_inputs, dtype=dtype, generator=seeded_generator(0, "example of export"))
    with torch.inference_mode():
        module(x)  # a width that the module does not take ends here, in its own words
    return module, x


def _check_equal(predicted: np.ndarray[Any, Any], module: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        expected = module(x).numpy()
    if predicted.shape != expected.shape or not np.allclose(predicted, expected, TOLERANCE, TOLERANCE):
        raise ValueError(
            f"onnxruntime predicts {predicted[:1].tolist()} where the module predicts {expected[:1].tolist()}, "
            f"expected the same to {TOLERANCE:g}: use export_model"
        )
