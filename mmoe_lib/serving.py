"""Raw rows to predictions from a folder that `MultiTaskModel.export` wrote, without mmoe_lib and pandas.

This file is copied into the folder. It needs numpy and, for model.onnx, onnxruntime, for model.pt2, torch:

    echo '{"age": 41, "city": "Oslo"}' | python serve.py
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "mmoe_lib export, version 1"


class Server:
    """Predictions of an exported model.

    Args:
        folder: Holds schema.json and the model that it names.

    Raises:
        FileNotFoundError: If one of the two is not there.
        ValueError: If the schema is of another version.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        self.schema: dict[str, Any] = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
        if self.schema["format"] != FORMAT:
            raise ValueError(f"schema.json is {self.schema['format']!r}, expected {FORMAT!r}: export again")
        self.run = _program(folder / self.schema["model"])

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        """Probabilities of binary targets and classes, and values of real ones, of each row.

        Args:
            rows: Values by column; None and NaN are missing, other columns are not looked at.

        Raises:
            ValueError: If a column is missing, or holds text or infinity where training had numbers.
        """
        names = [name for target in self.schema["targets"] for name in target["names"]]
        predicted = self.run(*self.encode(rows))
        return [dict(zip(names, map(float, row), strict=True)) for row in predicted]

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """What the program takes: numbers (N, d), or ids (N, S) and numbers (N, d)."""
        columns = self.schema["columns"]
        numbers: list[Any] = [np.zeros((len(rows), 0), dtype=np.float32)]
        ids: list[Any] = []
        for column in columns:
            values = [_value(row, column["name"], number) for number, row in enumerate(rows)]
            kind = {"Number": _number, "Category": _category, "Ids": _ids}[column["kind"]]
            (ids if column["kind"] == "Ids" else numbers).append(kind(column, values))
        beside = np.concatenate(numbers, axis=1)
        return [np.concatenate(ids, axis=1), beside] if ids else [beside]


def _value(row: Mapping[str, Any], name: str, number: int) -> Any:
    if name not in row:
        raise ValueError(f"row {number} has no column {name!r}, expected it: give None where it is missing")
    return row[name]


def _number(column: Mapping[str, Any], values: Sequence[Any]) -> Any:
    encoded = np.zeros((len(values), 1), dtype=np.float32)
    for place, value in enumerate(values):
        if _missing(value):
            continue
        if isinstance(value, str) or not math.isfinite(value):
            raise ValueError(
                f"column {column['name']!r} holds {value!r}, expected finite numbers as in training"
            )
        if column["scale"]:
            encoded[place] = (float(value) - column["mean"]) / column["scale"]
    return encoded


def _category(column: Mapping[str, Any], values: Sequence[Any]) -> Any:
    table = np.vstack([np.eye(len(column["values"]), len(column["values"]) + 1), column["unknown"]])
    places = {value: place for place, value in enumerate(column["values"])}
    found = [-1 if _missing(value) else places.get(_text(value), -1) for value in values]
    return table[np.array(found, dtype=np.int64)].astype(np.float32)


def _ids(column: Mapping[str, Any], values: Sequence[Any]) -> Any:
    places = {value: place + 2 for place, value in enumerate(column["values"])}

    def row_of(value: Any) -> int:
        if _missing(value):
            return 1
        if column["buckets"]:
            return zlib.crc32(_text(value).encode()) % int(column["buckets"]) + 2
        return places.get(_text(value), 1)

    encoded = np.zeros((len(values), column["length"]), dtype=np.int64)
    for place, value in enumerate(values):
        several = list(value) if isinstance(value, list | tuple | set | np.ndarray) else [value]
        found = [row_of(one) for one in several[: column["length"]]] or [1]
        encoded[place, : len(found)] = found
    return encoded


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    """As in training: the text of a whole number has no point."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)


def _program(path: Path) -> Callable[..., Any]:
    """The exported network, from arrays to an array."""
    if path.suffix == ".onnx":
        session = importlib.import_module("onnxruntime").InferenceSession(
            path, providers=["CPUExecutionProvider"]
        )
        names = [given.name for given in session.get_inputs()]
        return lambda *arrays: session.run(["y"], dict(zip(names, arrays, strict=True)))[0]
    import torch

    module = torch.export.load(path).module()

    def run(*arrays: Any) -> Any:
        tensors = tuple(torch.from_numpy(array) for array in arrays)
        with torch.inference_mode():
            return module(tensors[0] if len(tensors) == 1 else tensors).numpy()

    return run


if __name__ == "__main__":
    server = Server(Path(__file__).parent)
    for line in sys.stdin:
        print(json.dumps(server.predict([json.loads(line)])[0]))
