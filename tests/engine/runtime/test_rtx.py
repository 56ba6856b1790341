from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from engine import runtime
from engine.errors import BackendError, WeightsError
from engine.runtime import gpu, rtx
from engine.runtime.gpu import Gpu
from engine.runtime.ort import OrtRunner
from engine.runtime.rtx import MAX_BATCH, Plugin, RtxRunner
from engine.weights import default_weights, weights_for

MAPS = np.random.default_rng(2).random((MAX_BATCH + 3, 3, 28, 28), np.float32)
CARD = Gpu("NVIDIA GeForce Test", (8, 9))


@pytest.fixture
def plugin() -> Plugin:
    """ONNX Runtime's own provider, opened as a plug-in's would be; it ignores options that it does not know."""
    (device,) = (one for one in onnxruntime.get_ep_devices() if one.ep_name == "CPUExecutionProvider")
    return Plugin(onnxruntime, "CPUExecutionProvider", "0.5.0", device, CARD)


class Wrong:
    """ONNX Runtime, but sessions of these precisions answer with errors, by the number of sessions opened before."""

    SessionOptions = onnxruntime.SessionOptions
    GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel

    def __init__(self, *errors: float) -> None:
        self._errors = [*errors]

    def InferenceSession(self, model: bytes, sess_options: Any) -> Any:  # noqa: N802 - ONNX Runtime's name
        session = onnxruntime.InferenceSession(model, sess_options=sess_options)
        run, error = session.run, self._errors.pop(0)
        session.run = lambda names, given: [run(names, given)[0] + np.float32(error)]
        return session


def test_it_answers_as_onnx_runtime_does(plugin: Plugin) -> None:
    runner, reference = RtxRunner(default_weights(), plugin=plugin), OrtRunner(default_weights())
    assert (runner.backend, runner.precision, runner.notes) == ("tensorrt-rtx", "float16", [])
    assert runner.device == "NVIDIA GeForce Test, TensorRT for RTX 0.5.0, float16"
    assert (runner.classes, runner.input_shape) == (reference.classes, reference.input_shape)
    for count in (0, 1, len(MAPS)):
        np.testing.assert_allclose(runner(MAPS[:count]), reference(MAPS[:count]), atol=2e-3)
    runner.close()


def test_half_precision_that_differs_is_left_for_single(plugin: Plugin) -> None:
    runner = RtxRunner(default_weights(), plugin=replace(plugin, ort=Wrong(0.01, 0.0)))
    assert runner.precision == "float32"
    assert runner.notes == ["float16 is not used: its answers differ from ONNX Runtime's by 1.0e-02 (allowed 2e-03)"]
    with pytest.raises(BackendError, match=r"cannot run .*differ from ONNX Runtime's by 1\.0e-03 \(allowed 1e-04\)"):
        RtxRunner(default_weights(), plugin=replace(plugin, ort=Wrong(0.01, 0.001)))


def test_the_options_are_those_of_the_plug_ins_header(plugin: Plugin, tmp_path: Path) -> None:
    package = pytest.importorskip(rtx.PACKAGE)
    header = (Path(package.__file__).parent / "tensorrt_rtx_provider_options.h").read_text()
    options = RtxRunner(default_weights(), cache=tmp_path, plugin=plugin).options("float16")
    assert {name for name in options if f'"{name}"' not in header} == set()
    assert options["nv_profile_min_shapes"] == options["nv_profile_opt_shapes"] == "maps:1x3x28x28"
    assert options["nv_profile_max_shapes"] == f"maps:{MAX_BATCH}x3x28x28"
    assert Path(options["nv_runtime_cache_path"]).parent == tmp_path
    assert "nv_runtime_cache_path" not in RtxRunner(default_weights(), plugin=plugin).options("float16")


def test_a_compiled_network_is_kept_by_all_that_it_depends_on(plugin: Plugin, tmp_path: Path) -> None:
    others = (
        replace(plugin, version="0.6.0"),
        replace(plugin, gpu=Gpu("NVIDIA GeForce Test", (12, 0))),
    )
    runners = [RtxRunner(default_weights(), cache=tmp_path, plugin=one) for one in (plugin, *others)]
    names = {runner.folder_name(precision) for runner in runners for precision in ("float16", "float32")}
    assert len(names) == 6 and all("sm_89" in name or "sm_120" in name for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {runner.folder_name("float16") for runner in runners}


def test_a_cache_that_cannot_be_written_only_makes_the_next_start_slower(plugin: Plugin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    runner = RtxRunner(default_weights(), cache=tmp_path / "file", plugin=plugin)
    assert runner.precision == "float16" and runner(MAPS[:1]).shape == (1, 3)
    assert runner.notes == [f"the compiled network is not kept: {tmp_path / 'file'} cannot be written (Not a directory)"]


def test_a_session_that_fails_is_left_for_the_next_backend(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Plugin, "here", lambda: plugin)
    monkeypatch.setitem(runtime.NEEDS, "tensorrt-rtx", ("onnxruntime",))
    monkeypatch.setitem(runtime.DEVICE, "tensorrt-rtx", lambda: None)
    runner = runtime.load(default_weights(), backend="tensorrt-rtx")
    assert runner.backend == "tensorrt-rtx"
    monkeypatch.setattr(RtxRunner, "_answers", lambda *_: (_ for _ in ()).throw(BackendError("the GPU is gone")))
    with caplog.at_level(logging.WARNING):
        assert runner(MAPS[:2]).shape == (2, 3)
    assert runner.backend in {"cuda", "ort"} and runner.refusals["tensorrt-rtx"] == "the GPU is gone"
    assert "no longer runs on NVIDIA GeForce Test" in caplog.text


def test_what_is_no_network_is_named(plugin: Plugin, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r"net\.onnx"):
        RtxRunner(tmp_path / "net.onnx", plugin=plugin)


@pytest.mark.parametrize(
    ("capability", "taken"),
    [((7, 5), False), ((8, 0), False), ((8, 6), True), ((8, 9), True), ((9, 0), False), ((10, 0), False), ((12, 0), True)],
)
def test_it_says_which_cards_it_takes(capability: tuple[int, int], taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find", lambda: Gpu("NVIDIA Test", capability))
    reason = rtx.refusal()
    assert (reason is None) is taken
    if reason:
        expected = f"not NVIDIA Test (compute capability {capability[0]}.{capability[1]})"
        assert reason == f"TensorRT for RTX takes GeForce RTX 30 and later, {expected}"


def test_without_a_driver_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Gpu:
        raise BackendError("no NVIDIA driver (libcuda.so.1 is not found)")

    monkeypatch.setattr(gpu, "find", none)
    assert rtx.refusal() == "no NVIDIA driver (libcuda.so.1 is not found)"
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        RtxRunner(weights_for("ahmsa"))


def test_the_real_plug_in_loads_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel and ONNX Runtime's registry are real; only the question for a GPU is answered for it."""
    monkeypatch.setattr(gpu, "find", lambda: CARD)
    with pytest.raises(BackendError, match=r"lib(cuda|nvidia-ml)\.so\.1: cannot open|takes no GPU of this machine"):
        Plugin.here()


def test_a_plug_in_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find", lambda: CARD)
    monkeypatch.setattr(rtx, "PACKAGE", "no_such_plugin")
    with pytest.raises(BackendError, match="cannot be loaded: No module named 'no_such_plugin'"):
        Plugin.here()
