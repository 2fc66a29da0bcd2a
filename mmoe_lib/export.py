"""Trained models as files that serve without this library: `torch.export` programs and ONNX.

Both keep the number of rows open, so one file answers a single request and a list of candidates alike. A file is
written whole or not at all, and says which versions wrote it. Weights that are NaN, infinite or complex are refused.
"""

from __future__ import annotations

import copy
import importlib
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmoe_lib.files import versions, write_whole
from mmoe_lib.models.embeddings import Inputs
from mmoe_lib.seeds import seeded_generator

TOLERANCE = 1e-5
"""How far the predictions of an exported model may lie from the module's, absolutely and relatively."""

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

_EXAMPLE_ROWS = 7  # any number but 0 and 1, which torch.export would take for the only one


def export_model(
    module: nn.Module, num_inputs: int, path: Path | str | None = None, *, num_ids: int = 0
) -> torch.export.ExportedProgram:
    """A model's forward pass as a program with a dynamic number of rows, a snapshot of its present weights.

    Args:
        module: Maps inputs (B, num_inputs) to outputs (B, K): any model of this library, such as a run of an
            ensemble (`Ensemble.module`).
        num_inputs: Columns of its input; of a `Ranker`, its `num_inputs`.
        path: Where the program is also saved, for `load_exported`; None saves nothing. Such files end in ".pt2".
        num_ids: Columns of whole numbers S that the model takes in front, as a pair (ids (B, S), inputs).

    Returns:
        The program; its `module()` is called as the model is, with 1 row or more.

    Raises:
        ValueError: If num_inputs is not the model's, or a weight is no finite number.
        OSError: If the file cannot be written; there is then none, or still the one that was there.
    """
    module, x = _snapshot(module, num_inputs, num_ids)
    # strict=False is the default of later versions; the former one reads the bytecode of what it calls.
    program = torch.export.export(module, (x,), dynamic_shapes=(_open_rows(x),), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names of folders on this machine
        node.meta.pop("source_fn_stack", None)  # of torch 2.4, whose loading looks names up in modules
    if path is not None:
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={"versions.json": json.dumps(versions())})
        write_whole(Path(path), buffer.getvalue())
    return program


_PLAIN = re.compile(r"data/(weights|constants)/(weight|tensor)_\d+")
_FLAGS = re.compile(
    r"version|archive_format|archive_version|byteorder|\.data/\w+|data/\w+/model_\w+_config\.json|extra/[\w.]+|versions\.json"
)
_OPERATOR = re.compile(r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|_operator\.(add|sub|mul|floordiv|getitem)|")
_EXPRESSION = re.compile(
    r"((Symbol|Integer|Rational|Add|Mul|Max|Min|Mod|FloorDiv|positive|nonnegative|integer|True)\b"
    r"|'[a-z]+\d+'|[a-z]+\d+\b|\d+|[(), =*+-])*"
)
_SIZE = r"(\d+|L\['\w+'\](\[\d+\])*\.size\(\)\[\d+\])"
_WORD = re.compile(r"[\w.+]*")
_SPEC = re.compile(r'[\w\s.,:"\[\]{}-]*')
_ALLOWED = {
    "target": _OPERATOR,
    "expr_str": _EXPRESSION,
    "guards_code": re.compile(rf"{_SIZE} (==|<=|>=|<|>) {_SIZE}"),
    "in_spec": _SPEC,
    "out_spec": _SPEC,
    "nn_module_stack": re.compile(r"[\w.,;@]*"),
    "torch_fn": re.compile(r"[\w.;]*"),
}
"""Texts that may stand in a graph beside words: torch looks them up, evaluates or compiles some of them."""


def load_exported(path: Path | str) -> torch.export.ExportedProgram:
    """A program that `export_model` wrote; a file that holds anything else is refused before torch reads it.

    `torch.export.load` runs code that a file holds: it unpickles what it does not know, evaluates expressions, and
    calls functions by name. Here the file may hold the numbers of weights, an example of the input, and a graph of
    PyTorch's own mathematical operators, and nothing else.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds more than that.
    """
    raw = Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"the sum of {damaged} is wrong")
            for name in archive.namelist():
                _check_member(name.split("/", 1)[-1], archive.read(name))
        return torch.export.load(io.BytesIO(raw))
    except Exception as error:  # zipfile, json and torch raise whatever their readers do
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(
            f"{Path(path).name} is no exported model, expected a file of export_model: export it again ({reason})"
        ) from error


def _check_member(name: str, content: bytes) -> None:
    """Raise unless a file of the archive holds numbers, plain values, or a graph of plain operators."""
    if name.startswith("data/sample_inputs/") or re.fullmatch(r"serialized_\w+\.pt", name):
        torch.load(io.BytesIO(content), weights_only=True)  # else torch tries again without
    elif name.startswith("models/") or name == "serialized_exported_program.json":
        for key, value in _leaves(json.loads(content)):
            if isinstance(value, str) and not _ALLOWED.get(key, _WORD).fullmatch(value):
                raise ValueError(f"{key or 'a key'} is {value[:40]!r}")
    elif name.endswith("_config.json"):
        if any(key == "use_pickle" and value for key, value in _leaves(json.loads(content))):
            raise ValueError("it holds a pickle")
    elif not (_PLAIN.fullmatch(name) or _FLAGS.fullmatch(name)):
        raise ValueError(f"it holds {name!r}")


def _leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """Keys and values of JSON, to the last; each key also as a value without one."""
    if isinstance(value, dict):
        return [("", name) for name in value] + [
            leaf for name, one in value.items() for leaf in _leaves(one, name)
        ]
    if isinstance(value, list):
        return [leaf for one in value for leaf in _leaves(one, key)]
    return [(key, value)]


def export_onnx(
    module: nn.Module, num_inputs: int, path: Path | str, *, num_ids: int = 0, opset: int | None = None
) -> None:
    """Write a model's forward pass as an ONNX file with a dynamic number of rows, input "x", output "y".

    The file is written only after onnxruntime was seen to predict with it what the module predicts. Needs torch 2.5.

    Args:
        module: Maps inputs (B, num_inputs) to outputs (B, K).
        num_inputs: Columns of its input.
        path: The file, which holds the weights too.
        num_ids: Columns of whole numbers that it takes in front, as `export_model`; they are then the input "ids".
        opset: Version of ONNX's operators; None leaves it to torch.

    Raises:
        ImportError: If one of `ONNX_PACKAGES` is not installed.
        ValueError: If num_inputs is not the model's, a weight is no finite number, or onnxruntime predicts something
            else.
        OSError: If the file cannot be written; there is then none, or still the one that was there.
    """
    runtime = _onnx_packages()["onnxruntime"]
    module, x = _snapshot(module, num_inputs, num_ids)
    names = ["ids", "x"] if num_ids else ["x"]
    exported: Any = torch.onnx.export(
        module,
        (x,),
        dynamo=True,
        dynamic_shapes=(_open_rows(x),),
        input_names=names,
        output_names=["y"],
        opset_version=opset,
        verbose=False,
    )
    model = exported.model_proto
    for key, value in versions().items():
        model.metadata_props.add(key=f"version of {key}", value=value)
    content: bytes = model.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    parts = x if isinstance(x, tuple) else (x,)
    for rows in (len(parts[0]), 1):
        given = tuple(part[:rows] for part in parts)
        (predicted,) = session.run(
            ["y"], {name: part.numpy() for name, part in zip(names, given, strict=True)}
        )
        _check_equal(predicted, module, (given[0], given[1]) if num_ids else given[0])
    write_whole(Path(path), content)


def _open_rows(x: Inputs) -> Any:
    rows = torch.export.Dim("rows", min=1)
    return ({0: rows}, {0: rows}) if isinstance(x, tuple) else {0: rows}


def _onnx_packages() -> dict[str, Any]:
    try:
        return {name: importlib.import_module(name) for name in ONNX_PACKAGES}
    except ImportError as error:
        raise ImportError(
            f"ONNX export needs {', '.join(ONNX_PACKAGES)}, expected all of them ({error}): "
            f"pip install {' '.join(ONNX_PACKAGES)}, or use export_model, which needs none"
        ) from error


def _snapshot(module: nn.Module, num_inputs: int, num_ids: int) -> tuple[nn.Module, Inputs]:
    """A copy that answers but does not train, on the CPU, and 7 rows of inputs that it accepts.

    Raises:
        ValueError: If num_inputs is not the model's, or a weight is no finite number.
    """
    for name, value in module.state_dict().items():
        if value.is_complex() or not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"{name} holds NaN, infinite or complex numbers, expected finite weights: train again"
            )
    own = getattr(module, "num_inputs", max(1, num_inputs))
    if num_inputs != own:
        raise ValueError(f"num_inputs is {num_inputs}, expected {own}: the columns of the model's input")
    module = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    # Cut to whole numbers these are 0, an id that every embedding has.
    numbers = torch.rand(
        _EXAMPLE_ROWS, num_inputs, dtype=dtype, generator=seeded_generator(0, "example of export")
    )
    x = (torch.zeros(_EXAMPLE_ROWS, num_ids, dtype=torch.int64), numbers) if num_ids else numbers
    with torch.inference_mode():
        module(x)  # a width that the module does not take ends here, in its own words
    return module, x


def _check_equal(predicted: np.ndarray[Any, Any], module: nn.Module, x: Inputs) -> None:
    with torch.inference_mode():
        expected = module(x).numpy()
    if predicted.shape != expected.shape or not np.allclose(predicted, expected, TOLERANCE, TOLERANCE):
        raise ValueError(
            f"onnxruntime predicts {predicted[:1].tolist()} where the module predicts {expected[:1].tolist()}, "
            f"expected the same to {TOLERANCE:g}: use export_model"
        )
