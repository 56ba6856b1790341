from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.errors import ArrayError, WeightsError
from engine.runtime.ort import OrtRunner
from engine.weights import default_weights


def test_it_tells_what_it_is() -> None:
    runner = OrtRunner(default_weights())
    assert (runner.backend, runner.input_shape) == ("ort", (3, 28, 28))
    assert runner.classes == ("negative", "positive", "surprise") and "CPU" in runner.device


@pytest.mark.parametrize("count", [0, 1, 7])
def test_any_batch_gives_one_row_of_probabilities_a_map(count: int) -> None:
    maps = np.random.default_rng(1).random((count, 3, 28, 28), np.float32)
    chances = OrtRunner(default_weights())(maps)
    assert chances.shape == (count, 3) and chances.dtype == np.float32
    assert np.allclose(chances.sum(1), 1, atol=1e-5)


def test_the_input_is_checked() -> None:
    with pytest.raises(ArrayError, match="not finite"):
        OrtRunner(default_weights())(np.full((1, 3, 28, 28), np.nan, np.float32))


def test_loading_starts_no_thread_that_stays() -> None:
    before = threading.active_count()
    OrtRunner(default_weights())(np.zeros((1, 3, 28, 28), np.float32))
    assert threading.active_count() == before


@pytest.mark.parametrize("content", [b"", b"no network at all", b"\x08\x0a" * 40])
def test_a_file_that_is_no_network_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.onnx"):
        OrtRunner(path)


def test_a_truncated_network_is_refused(tmp_path: Path) -> None:
    whole = default_weights().read_bytes()
    path = tmp_path / "half.onnx"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"half\.onnx"):
        OrtRunner(path)


def test_a_network_of_others_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(default_weights()))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "anonymous.onnx"))
    with pytest.raises(WeightsError, match="does not say its classes"):
        OrtRunner(tmp_path / "anonymous.onnx")
