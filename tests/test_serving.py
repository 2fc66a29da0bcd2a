"""An exported folder answers raw rows without the library, and a file with code in it runs nothing."""

import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mmoe_lib.export import ONNX_PACKAGES, TOLERANCE, export_model, load_exported
from mmoe_lib.frames import Embedding, FitSettings, MultiTaskModel
from mmoe_lib.models import MMoE
from mmoe_lib.serving import Server

TARGETS = ["spent", "bought", "next"]


def log(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 10, rows).round(2),
            "member": rng.random(rows) < 0.5,
            "city": rng.choice(["Bern", "Oslo", "\u014ctsu"], rows),
            "user": rng.integers(0, 20, rows) + 2**60,
            "page": rng.integers(0, 500, rows).astype(str),
            "tags": [list(rng.choice(["a", "b", "c"], size)) for size in rng.integers(0, 3, rows)],
        }
    )
    frame["spent"] = 1000 * frame["age"] + rng.normal(size=rows)
    frame["bought"] = frame["age"] > 42
    frame["next"] = np.where(frame["member"], "buy", "leave")
    frame.loc[:5, "age"] = np.nan
    frame.loc[4:9, "city"] = None
    return frame


@pytest.fixture(scope="module")
def model() -> MultiTaskModel:
    embeddings = {"user": Embedding(width=3), "page": Embedding(buckets=16)}
    settings = FitSettings(epochs=2, runs=2, learning_rate=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two epochs teach it little
        return MultiTaskModel.fit(log(300), TARGETS, embeddings=embeddings, settings=settings, progress=False)


def raw(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What a client sends, also what training has not seen."""
    found: list[dict[str, Any]] = json.loads(rows.drop(columns=TARGETS).to_json(orient="records"))
    found[0] |= {"city": "Lima", "user": 5, "page": None, "tags": ["c", "d"]}
    found[1] |= {"user": None, "tags": []}
    return found


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_a_folder_predicts_raw_rows_without_the_library(
    form: str, model: MultiTaskModel, tmp_path: Path
) -> None:
    """Of ONNX both branches assert: this machine has the packages or has not."""
    folder, rows = tmp_path / "served", raw(log(12))
    if form == "onnx" and not all(find_spec(package) for package in ONNX_PACKAGES):
        with pytest.raises(ImportError, match="pip install onnx onnxscript onnxruntime"):
            model.export(folder, form=form)
        assert list(folder.iterdir()) == []
        return
    model.export(folder, form=form)
    assert sorted(os.listdir(folder)) == [f"model.{form}", "schema.json", "serve.py"]
    code = (
        "import sys, runpy; sys.modules['mmoe_lib'] = None; runpy.run_path('serve.py', run_name='__main__')"
    )
    lines = "\n".join(map(json.dumps, rows))
    ran = subprocess.run(
        [sys.executable, "-c", code], input=lines, capture_output=True, text=True, cwd=folder
    )
    assert ran.returncode == 0, ran.stderr
    got = pd.DataFrame([json.loads(line) for line in ran.stdout.splitlines()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the values that training had not
        expected = model.predict(rows)  # type: ignore[arg-type]
    assert list(got) == list(expected)
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert (expected.std() > [100, 1e-3, 1e-3, 1e-3]).all()  # else a constant would pass


def test_the_server_refuses_what_it_cannot_read(model: MultiTaskModel, tmp_path: Path) -> None:
    model.export(tmp_path)
    server = Server(tmp_path)
    row = raw(log(12))[5]
    together = server.predict([row] * 3)
    assert together[2] == pytest.approx(server.predict([row])[0], rel=1e-5)
    for wrong, message in (
        ({"age": "old"}, "column 'age' holds 'old'"),
        ({"age": float("inf")}, "column 'age' holds inf"),
    ):
        with pytest.raises(ValueError, match=message):
            server.predict([{**row, **wrong}])
    with pytest.raises(ValueError, match="row 0 has no column 'city'"):
        server.predict([{"age": 3, "member": True}])
    schema = json.loads((tmp_path / "schema.json").read_text(encoding="utf-8"))
    assert schema["versions"]["torch"] == version("torch")  # without what it was built for
    assert [target["names"] for target in schema["targets"]] == [
        ["spent"],
        ["bought"],
        ["next=buy", "next=leave"],
    ]
    (tmp_path / "schema.json").write_text(json.dumps({**schema, "format": "another"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"schema\.json is 'another'"):
        Server(tmp_path)


def test_weights_that_are_no_numbers_are_neither_saved_nor_exported(
    model: MultiTaskModel, tmp_path: Path
) -> None:
    ensemble = model.ensemble.keep([0])
    next(iter(ensemble.parameters.values()))[0] = torch.nan
    broken = MultiTaskModel(model.encoder, model.targets, ensemble, model.model, model.sizes)
    with pytest.raises(ValueError, match="holds NaN or infinite numbers in"):
        broken.save(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="holds NaN, infinite or complex numbers"):
        broken.export(tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


# Files from others


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    export_model(MMoE(3, 2, 2, (4,)), 3, path)
    return path


def rewritten(
    source: Path, target: Path, change: Callable[[str, bytes], bytes], more: dict[str, bytes]
) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, content in more.items():
            new.writestr(name, content)


def in_graph(old: str, new: str) -> Callable[[str, bytes], bytes]:
    """Replaces a text of the graph."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(
            ("models/model.json", "serialized_exported_program.json")
        ):  # of torch 2.4 the second
            return content
        assert old in content.decode()
        return content.decode().replace(old, new).encode()

    return change


def test_an_exported_file_comes_back_and_says_who_wrote_it(exported: Path) -> None:
    loaded = load_exported(exported).module()
    x = torch.rand(5, 3)
    torch.testing.assert_close(loaded(x), torch.export.load(exported).module()(x))
    with zipfile.ZipFile(exported) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("versions.json")]
        assert json.loads(archive.read(name))["torch"] == version("torch")
        graph = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".json"))
    assert str(Path(__file__).parents[1]).encode() not in graph  # names of this machine's folders


def test_a_file_with_code_in_it_runs_nothing(exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    buffer = io.BytesIO()
    torch.save(Payload(mark), buffer)
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"

    def sample(name: str, content: bytes) -> bytes:
        return buffer.getvalue() if "sample_inputs" in name or "example_inputs" in name else content

    def constants(name: str, content: bytes) -> bytes:
        if name == "serialized_constants.pt":
            return buffer.getvalue()
        if not name.endswith("model_constants_config.json"):
            return content
        return json.dumps({"config": {"c": {"path_name": "custom_obj_0", "use_pickle": True}}}).encode()

    def same(name: str, content: bytes) -> bytes:
        return content

    cases: dict[str, tuple[Callable[[str, bytes], bytes], dict[str, bytes]]] = {
        "a pickle as example": (sample, {}),
        "a pickle among constants": (
            constants,
            {"archive/data/constants/custom_obj_0": pickle.dumps(Payload(mark))},
        ),
        "an expression": (in_graph('"expr_str": "', f'"expr_str": "{code} or '), {}),
        "a function by name": (in_graph("torch.ops.aten.relu.default", "torch.hub.load"), {}),
        "a file that an operator reads": (
            in_graph("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"),
            {},
        ),
        "a name that is code": (in_graph('"x"', f'"x={code}"'.replace("'", "\\u0027")), {}),
        "a library": (same, {"archive/data/aotinductor/model.so": b"ELF"}),
    }
    path = tmp_path / "model.pt2"
    for name, (change, more) in cases.items():
        rewritten(exported, path, change, more)
        with pytest.raises(ValueError, match=r"model\.pt2 is no exported model") as caught:
            load_exported(path)
        assert "\n" not in str(caught.value)
        assert not mark.exists(), name
    pickle.loads(pickle.dumps(Payload(mark)))  # what reading it would have done
    assert mark.exists()
    for content in (b"", b"no model", exported.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no exported model"):
            load_exported(path)
