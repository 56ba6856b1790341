from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.errors import WeightsError
from engine.runtime.eager import EagerRunner, rebuild
from engine.runtime.ort import OrtRunner
from engine.weights import default_weights

TOLERANCE = 2e-6
"""Between the runtimes; measured 4e-7 at most on real composites and noise."""


def test_it_answers_as_onnx_runtime_does() -> None:
    maps = np.random.default_rng(2).random((32, 3, 28, 28), np.float32)
    eager, ort = EagerRunner(default_weights()), OrtRunner(default_weights())
    assert np.abs(eager(maps) - ort(maps)).max() <= TOLERANCE
    assert (eager.classes, eager.input_shape) == (ort.classes, ort.input_shape)
    assert eager(maps[:0]).shape == (0, 3)


def test_the_rebuilt_network_holds_the_parameters_of_the_file() -> None:
    network, description = rebuild(default_weights())
    held = {i.name for i in onnx.load(str(default_weights())).graph.initializer}
    assert set(network.state_dict()) <= held and not network.training
    assert len(network.members) == description["members"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"network": "resnet"}, "resnet"),
        ({"options": {"width": 32, "heads": 2}}, "does not fit"),
        ({"members": 9}, "does not fit"),
        ({"members": "some"}, "does not fit"),
        ({"kernel": {"centres": 5, "share": 0.5}}, "does not fit"),
        ({"kernel": {"centres": "many", "share": 0.5}}, "does not fit"),
        ({"kernel": {"share": 0.5}}, "does not fit"),
    ],
)
def test_a_description_that_does_not_fit_the_parameters_is_refused(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    model = onnx.load(str(default_weights()))
    description = json.loads(model.metadata_props[0].value)
    onnx.helper.set_model_props(model, {"apexstream": json.dumps({**description, **change})})
    onnx.save(model, str(tmp_path / "odd.onnx"))
    with pytest.raises(WeightsError, match=says):
        EagerRunner(tmp_path / "odd.onnx")


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(WeightsError, match=r"text\.onnx"):
        EagerRunner(tmp_path / "text.onnx")
