from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.errors import WeightsError
from engine.runtime.half import HALVED, prepared
from engine.runtime.ort import OrtRunner
from engine.weights import default_weights
from tests.bindings import small_network

TOLERANCE = 1e-3
"""Of a probability; measured 4e-5 on noise and 9e-5 on real maps."""


def test_the_shipped_network_answers_almost_alike(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(prepared(default_weights(), half=True))
    maps = np.random.default_rng(0).random((16, 3, 28, 28), np.float32)
    whole, half = OrtRunner(default_weights())(maps), OrtRunner(path)(maps)
    assert 0 < np.abs(whole - half).max() < TOLERANCE
    assert (whole.argmax(1) == half.argmax(1)).all()


def test_the_types_fit_and_the_ends_stay_float32() -> None:
    model = onnx.load_model_from_string(prepared(default_weights(), half=True))
    onnx.checker.check_model(model, full_check=True)  # infers every type and refuses a mixture
    ends = (model.graph.input[0], model.graph.output[0])
    assert all(end.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for end in ends)


def test_products_of_maps_are_halved_and_the_kernel_machine_is_not() -> None:
    model = onnx.load_model_from_string(prepared(default_weights(), half=True))
    products = [node for node in model.graph.node if node.op_type in HALVED]
    wide = [node for node in products if not node.output[0].endswith("_half")]
    assert len(products) - len(wide) > 100
    assert any("kernel.weights" in node.input for node in wide)
    centres = [value for value in model.graph.initializer if 600 in value.dims]
    assert len(centres) > 1 and all(value.data_type == onnx.TensorProto.FLOAT for value in centres)


def test_parameters_are_stored_in_the_width_in_which_they_are_used(tmp_path: Path) -> None:
    path = small_network(tmp_path / "net.onnx")
    assert len(prepared(path, half=True)) < 0.6 * path.stat().st_size


@pytest.mark.parametrize("half", [False, True])
def test_only_plain_layers_are_left(half: bool) -> None:
    """What TensorRT's parser is not known to take: other domains, sequences, shapes computed from parameters."""
    model = onnx.load_model_from_string(prepared(default_weights(), half=half))
    assert [domain.domain for domain in model.opset_import] == [""]
    assert not {"CastLike", "Expand", "Range", "Where", "Less", "Tile", "SplitToSequence"} & {
        n.op_type for n in model.graph.node
    }
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    parameters = {value.name for value in model.graph.initializer}
    assert convolutions and all(parameters.issuperset(node.input[1:]) for node in convolutions)


def test_whole_precision_is_the_network_itself(tmp_path: Path) -> None:
    path = tmp_path / "folded.onnx"
    path.write_bytes(prepared(default_weights(), half=False))
    maps = np.random.default_rng(1).random((8, 3, 28, 28), np.float32)
    assert np.abs(OrtRunner(path)(maps) - OrtRunner(default_weights())(maps)).max() < 1e-5


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\xff\xff no network")
    with pytest.raises(WeightsError, match=r"broken\.onnx is no ONNX model"):
        prepared(path, half=True)
