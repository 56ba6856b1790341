from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.errors import WeightsError
from engine.runtime.half import HALVED, halved
from engine.runtime.ort import OrtRunner
from engine.weights import default_weights
from tests.bindings import small_network

TOLERANCE = 1e-3
"""Of a probability; measured 4e-5 on noise and 9e-5 on real maps."""


def test_the_shipped_network_answers_almost_alike(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(halved(default_weights().read_bytes()))
    maps = np.random.default_rng(0).random((16, 3, 28, 28), np.float32)
    whole, half = OrtRunner(default_weights())(maps), OrtRunner(path)(maps)
    assert 0 < np.abs(whole - half).max() < TOLERANCE
    assert (whole.argmax(1) == half.argmax(1)).all()


def test_the_types_fit_and_the_ends_stay_float32() -> None:
    model = onnx.load_model_from_string(halved(default_weights().read_bytes()))
    onnx.checker.check_model(model, full_check=True)  # infers every type and refuses a mixture
    ends = (model.graph.input[0], model.graph.output[0])
    assert all(end.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for end in ends)


def test_products_of_maps_are_halved_and_the_kernel_machine_is_not() -> None:
    model = onnx.load_model_from_string(halved(default_weights().read_bytes()))
    half = {name for node in model.graph.node if node.op_type == "Cast" and node.name.endswith("_half") for name in node.output}
    products = [node for node in model.graph.node if node.op_type in HALVED]
    wide = [node for node in products if not half.issuperset(filter(None, node.input))]
    assert len(products) - len(wide) > 100
    parameters = {value.name for value in model.graph.initializer}
    changing = [node for node in wide if not parameters.issuperset(node.input)]
    assert any("kernel.weights" in node.input for node in changing)


def test_a_parameter_is_in_the_file_once(tmp_path: Path) -> None:
    path = small_network(tmp_path / "net.onnx")
    assert len(halved(path.read_bytes())) < 1.1 * path.stat().st_size


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(WeightsError, match="no ONNX model"):
        halved(b"\xff\xff no network")
