from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import runtime
from engine.errors import BackendError, WeightsError
from engine.runtime.gpu import Gpu
from engine.runtime.trt import Libraries
from engine.weights import default_weights
from tests.bindings import Cuda, Double, small_network


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever this one has."""
    for name in runtime.DEVICE:
        monkeypatch.setitem(runtime.DEVICE, name, lambda: "no GPU here")
    monkeypatch.setitem(runtime.NEEDS, "tensorrt", ("onnx",))


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_takes_onnx_runtime_on_the_cpu_and_says_why() -> None:
    runner = runtime.load(default_weights())
    assert runner.backend == "ort" and runner.refusals == dict.fromkeys(tuple(runtime.DEVICE), "no GPU here")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", list(runtime.DEVICE))
def test_a_gpu_asked_for_by_name_is_an_error_where_there_is_none(name: Any) -> None:
    with pytest.raises(BackendError, match=f"backend {name} cannot run here: no GPU here"):
        runtime.load(default_weights(), backend=name)


def test_what_fails_to_open_is_passed_over_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything TensorRT needs seems to be there, but it cannot be loaded."""
    monkeypatch.setitem(runtime.NEEDS, "tensorrt", ("onnx",))
    monkeypatch.setitem(runtime.DEVICE, "tensorrt", lambda: None)
    monkeypatch.setitem(runtime.DEVICE, "cuda", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    runner = runtime.load(default_weights())
    assert runner.backend == "ort" and "TensorRT cannot be loaded" in runner.refusals["tensorrt"]
    assert runner.refusals["cuda"] == "this ONNX Runtime has no CUDAExecutionProvider"


def test_a_compiled_network_is_searched_for_in_the_folder_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The whole way from `load` to an engine in the cache, and its loss, with doubles where the GPU would be."""
    machine = Cuda()
    libraries = Libraries(Double(machine), machine, Gpu("NVIDIA Test", (9, 0)))
    monkeypatch.setattr(Libraries, "here", lambda: libraries)
    monkeypatch.setitem(runtime.NEEDS, "tensorrt", ("onnx",))
    monkeypatch.setitem(runtime.DEVICE, "tensorrt", lambda: None)
    weights = small_network(tmp_path / "net.onnx")
    for _ in range(2):
        runner = runtime.load(weights, backend="tensorrt", cache=tmp_path / "cache")
        assert runner.backend == "tensorrt" and list(runner.notes) == []
    assert libraries.trt.built == 1 and len(list((tmp_path / "cache").glob("*.engine"))) == 1
    machine.failing["cudaGraphLaunch"] = "cudaErrorMemoryAllocation"
    assert runner(np.zeros((1, 3, 28, 28), np.float32)).shape == (1, 3)
    assert runner.backend == "ort" and runner.refusals["tensorrt"] == "CUDA says MemoryAllocation"


def test_a_backend_asked_for_is_the_one_that_runs() -> None:
    assert runtime.load(str(default_weights()), backend="eager").backend == "eager"


def test_a_backend_passed_over_is_reported_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runtime.NEEDS, "ort", ("no_such_module",))
    runner = runtime.load(default_weights())
    assert runner.backend == "eager"
    assert runner.refusals["ort"] == "no_such_module not installed; install apexstream again"


def test_where_nothing_can_run_all_reasons_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in runtime.NEEDS:
        monkeypatch.setitem(runtime.NEEDS, name, ("no_such_module",))
    with pytest.raises(BackendError, match=r"ort cannot run here.*eager cannot run here"):
        runtime.load(default_weights())


@pytest.mark.parametrize("name", ["trt", "onnx", ""])
def test_an_unknown_backend_is_refused_with_the_known_ones(name: Any) -> None:
    with pytest.raises(BackendError, match="there are auto, tensorrt, tensorrt-rtx, cuda, torch-cuda, ort, eager"):
        runtime.load(default_weights(), backend=name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no network file .*gone\.onnx"):
        runtime.load(tmp_path / "gone.onnx")


def test_asking_why_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'onnxruntime', 'onnx', 'tensorrt'}"
    asked = "from engine.runtime import NEEDS, refusal; print({name: refusal(name) for name in NEEDS})"
    code = f"import sys; {asked}; print({heavy} & set(sys.modules))"
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    reasons = ast.literal_eval(lines[0])
    assert list(reasons) == ["tensorrt", "tensorrt-rtx", "cuda", "torch-cuda", "ort", "eager"]
    assert reasons["ort"] is reasons["eager"] is None
    assert lines[1] == "set()"
