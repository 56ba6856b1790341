from __future__ import annotations

import threading
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.errors import ArrayError, BackendError, WeightsError
from engine.runtime import ort
from engine.runtime.ort import OrtRunner
from engine.weights import default_weights


def test_it_describes_itself() -> None:
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


def test_a_foreign_network_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(default_weights()))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "anonymous.onnx"))
    with pytest.raises(WeightsError, match="does not say its classes"):
        OrtRunner(tmp_path / "anonymous.onnx")


def test_a_provider_that_is_not_there_is_never_replaced_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="has no NoSuchExecutionProvider"):
        monkeypatch.setitem(ort.PROVIDERS, "ort", ["NoSuchExecutionProvider", "CPUExecutionProvider"])
        OrtRunner(default_weights())


def test_a_provider_that_onnx_runtime_left_out_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real ONNX Runtime takes the list, warns and runs on less of it, as it does where a driver is too old."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.warns(UserWarning), pytest.raises(BackendError, match=r"was asked for CUDAE.* and took CPUExecutionProvider"):
        OrtRunner(default_weights(), backend="cuda")


def test_without_a_gpu_the_build_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort.gpu, "refusal", lambda: "no GPU")
    assert ort.cuda_refusal() == "no GPU"


@pytest.mark.parametrize(
    ("file", "says"), [("libother.so", "is built for the CPU"), ("libonnxruntime_providers_cuda.so", None)]
)
def test_a_build_for_the_cpu_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, says: str | None) -> None:
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / file).touch()
    monkeypatch.setattr(ort.gpu, "refusal", lambda: None)
    monkeypatch.setattr(ort.gpu, "find_spec", lambda _: ModuleSpec("onnxruntime", None, origin=str(tmp_path / "__init__.py")))
    reason = ort.cuda_refusal()
    assert reason is says if says is None else reason is not None and says in reason


def test_a_failure_while_it_runs_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = OrtRunner(default_weights())

    class Burst:
        def run(self, *_: object) -> None:
            raise RuntimeError("Failed to allocate memory\nand more")

    monkeypatch.setattr(runner, "_session", Burst())
    with pytest.raises(BackendError, match=r"^ONNX Runtime failed: Failed to allocate memory$"):
        runner(np.zeros((1, 3, 28, 28), np.float32))
