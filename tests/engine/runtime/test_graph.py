from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.errors import WeightsError
from engine.runtime import load
from engine.runtime.graph import check_graph
from engine.runtime.half import prepared
from engine.runtime.ort import folded
from engine.weights import default_weights, load_card, sha256_of, shipped

MAPS, CHANCES = ("maps", ["b", 3, 28, 28]), ("probabilities", ["b", 3])


def network(nodes: list[Any], path: Path, initializers: tuple[Any, ...] = (), **more: Any) -> Path:
    """A network with the contract's input and output, in a file with its card."""
    given, asked = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (MAPS, CHANCES))
    graph = helper.make_graph(nodes, "net", [given], [asked], initializers)
    model = helper.make_model(graph, **more)
    model.metadata_props.add(key="apexstream", value=json.dumps({"classes": ["negative", "positive", "surprise"]}))
    onnx.save(model, str(path))
    facts = json.loads(default_weights().with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**facts, "sha256": sha256_of(path)}))
    return path


def endless(path: Path) -> Path:
    """A Loop of 2 ** 62 turns."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["going"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [value("turn", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, None)],
        [value("going", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, None)],
    )
    often, yes = numpy_helper.from_array(np.array(2**62), "often"), numpy_helper.from_array(np.array(True), "yes")
    mean = helper.make_node("ReduceMean", ["maps"], ["mean"], axes=[3], keepdims=0)
    more = helper.make_node("ReduceMean", ["mean"], ["means"], axes=[2], keepdims=0)
    loop = helper.make_node("Loop", ["often", "yes", "means"], ["probabilities"], body=body)
    return network([mean, more, loop], path, (often, yes), opset_imports=[helper.make_opsetid("", 13)])


@pytest.mark.parametrize("backend", ["ort", "eager", "auto"])
def test_a_network_that_runs_on_is_refused_before_it_is_opened(tmp_path: Path, backend: Any) -> None:
    path = endless(tmp_path / "endless.onnx")
    load_card(path)
    with pytest.raises(WeightsError, match=r"endless\.onnx holds the operation 'Loop' with a graph of its own"):
        load(path, backend=backend)


@pytest.mark.parametrize("opened", [folded, lambda path: prepared(path, half=True)])
def test_every_other_way_of_opening_refuses_it_too(tmp_path: Path, opened: Any) -> None:
    with pytest.raises(WeightsError, match="Loop"):
        opened(endless(tmp_path / "endless.onnx"))


def with_external_parameters(path: Path) -> Path:
    model = onnx.load(str(default_weights()))
    onnx.save(model, str(path), save_as_external_data=True, location="beside.bin", size_threshold=0)
    return path


def with_an_external_constant(path: Path) -> Path:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="beside.bin")
    return network([helper.make_node("Constant", [], ["probabilities"], value=tensor)], path)


@pytest.mark.parametrize("made", [with_external_parameters, with_an_external_constant])
@pytest.mark.parametrize("backend", ["ort", "eager"])
def test_parameters_that_the_cards_hash_does_not_cover_are_refused(tmp_path: Path, made: Any, backend: Any) -> None:
    with pytest.raises(WeightsError, match=r"net\.onnx keeps parameters in another file"):
        load(made(tmp_path / "net.onnx"), backend=backend)


def test_functions_are_refused(tmp_path: Path) -> None:
    mean = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    function = helper.make_function("own", "Mean", ["x"], ["y"], [mean], [helper.make_opsetid("", 17)])
    call = helper.make_node("Mean", ["maps"], ["probabilities"], domain="own")
    path = network([call], tmp_path / "net.onnx", functions=[function], opset_imports=[helper.make_opsetid("own", 1)])
    with pytest.raises(WeightsError, match="holds functions"):
        check_graph(path)


def test_what_is_shipped_and_exported_passes() -> None:
    for name in (*shipped(), "judge"):
        check_graph(default_weights().with_name(f"{name}.onnx"))


@pytest.mark.parametrize("content", [b"\x3a", b"\x3a\x7f\x00", b"\x80" * 12, b"\x0b\x0c", b"\x3d\x00"])
def test_what_is_damaged_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"net\.onnx is no ONNX model"):
        check_graph(path)
    shutil.rmtree(tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        check_graph(path)
