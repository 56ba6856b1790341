from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from apexstream.cli import main
from engine.errors import WeightsError
from engine.runtime.graph import check_graph
from engine.runtime.ort import open_session
from engine.weights import default_weights
from stream import model_trial as trial
from stream.model_trial import try_opening


def products(path: Path, size: int, count: int) -> Path:
    """Products of a constant matrix with itself, in some hundred bytes."""
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["c0"])]
    nodes += [helper.make_node("MatMul", [f"c{k}", "c0"], [f"c{k + 1}"]) for k in range(count)]
    nodes += [
        helper.make_node("ReduceMean", [f"c{count}"], ["mean"], keepdims=0),
        helper.make_node("ReduceMean", ["maps"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["means", "mean"], ["probabilities"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("maps", TensorProto.FLOAT, ["b", 3, 28, 28])],
        [value("probabilities", TensorProto.FLOAT, ["b", 3])],
        [numpy_helper.from_array(np.array([size, size], np.int64), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "CPU_S", 2)


@pytest.mark.usefixtures("short")
def test_a_small_file_that_takes_long_to_open_is_refused(tmp_path: Path) -> None:
    path = products(tmp_path / "net.onnx", 2500, 40)
    assert path.stat().st_size < 2000
    check_graph(path)
    with pytest.raises(WeightsError, match=r"net\.onnx cannot be opened within 2 s and 4 GiB"):
        try_opening(path)


@pytest.mark.parametrize("command", [["analyze", __file__, "--out", "out"], ["live", "lavfi:testsrc", "--data", "data"]])
@pytest.mark.usefixtures("short")
def test_commands_try_given_weights(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = products(tmp_path / "net.onnx", 2500, 40)
    with pytest.raises(SystemExit) as ended:
        main([*command, "--weights", str(path)])
    assert ended.value.code == 1 and "net.onnx cannot be opened within" in capsys.readouterr().err


def test_an_ordinary_file_passes(tmp_path: Path) -> None:
    path = products(tmp_path / "net.onnx", 16, 4)
    try_opening(path)
    open_session(path)


def test_the_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MEMORY_BYTES", 1 << 30)
    with pytest.raises(WeightsError, match="cannot be opened within 10 s and 1 GiB"):
        try_opening(products(tmp_path / "net.onnx", 16_000, 1))


def test_shipped_weights_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("shipped weights are trusted"))
    try_opening(None)
    try_opening(default_weights())


def test_a_timeout_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TIMEOUT_S", 0.0)
    with pytest.raises(WeightsError, match="cannot be opened within"):
        try_opening(products(tmp_path / "net.onnx", 16, 4))


def test_without_a_process_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    try_opening(products(tmp_path / "net.onnx", 16, 4))
    try_opening(tmp_path / "none.onnx")
