from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engine.errors import WeightsError
from engine.runtime import parameters
from engine.weights import default_weights
from tests.bindings import small_network


def test_parameters_are_those_that_onnx_reads() -> None:
    description, found = parameters.read(default_weights())
    model = onnx.load(str(default_weights()))
    wanted = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    assert found.keys() == wanted.keys() and description["network"] == "ahmsa"
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_numbers_are_read_from_either_field_and_other_kinds_left_out(tmp_path: Path) -> None:
    model = onnx.load(str(small_network(tmp_path / "net.onnx")))
    model.graph.initializer.append(helper.make_tensor("listed", onnx.TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 7]), "whole"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(2.5, np.float32), "scalar"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([True]), "truth"))
    onnx.save(model, str(tmp_path / "more.onnx"))
    _, found = parameters.read(tmp_path / "more.onnx")
    assert found["listed"].tolist() == [[1, 2], [3, 4]] and found["whole"].tolist() == [-1, 7] and found["scalar"] == 2.5
    assert "truth" not in found


def test_a_network_that_does_not_say_what_it_is_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(default_weights()))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "bare.onnx"))
    with pytest.raises(WeightsError, match=r"bare\.onnx is not a network exported by apexstream \(it does not say"):
        parameters.read(tmp_path / "bare.onnx")
    onnx.helper.set_model_props(model, {"apexstream": "{"})
    onnx.save(model, str(tmp_path / "bare.onnx"))
    with pytest.raises(WeightsError, match="not a network exported by apexstream"):
        parameters.read(tmp_path / "bare.onnx")


def test_a_tensor_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(default_weights()))
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    onnx.save(model, str(tmp_path / "cut.onnx"))
    with pytest.raises(WeightsError, match=r"cut\.onnx is not a network exported by apexstream"):
        parameters.read(tmp_path / "cut.onnx")
