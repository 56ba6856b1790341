"""Running a network: one interface (`Runner`), several backends, the choice made once and reported.

Order of preference of "auto": "tensorrt" (compiled for the GPU), "tensorrt-rtx" (the same for GeForce RTX, by NVIDIA's plug-in
for ONNX Runtime), "cuda" (ONNX Runtime on the GPU), "torch-cuda" (PyTorch on the GPU), "ort" (ONNX Runtime on the CPU, always
installed), "eager" (PyTorch on the CPU).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from engine.errors import BackendError, WeightsError
from engine.runtime import gpu, ort, rtx, torch_cuda
from engine.runtime.runner import FallbackRunner, Opener, Runner

BackendName = Literal["auto", "tensorrt", "tensorrt-rtx", "cuda", "torch-cuda", "ort", "eager"]

NEEDS = {
    "tensorrt": ("tensorrt", "cuda.bindings", "onnx"),
    "tensorrt-rtx": (rtx.PACKAGE, "onnxruntime", "onnx"),
    "cuda": ("onnxruntime",),
    "torch-cuda": ("torch",),
    "ort": ("onnxruntime",),
    "eager": ("torch",),
}
"""Backends in order of preference, each with the modules it needs."""

EXTRAS = {"tensorrt": "[trt]", "tensorrt-rtx": "[rtx]", "cuda": "", "torch-cuda": "[gpu]", "ort": "", "eager": "[train]"}
"""What installs them."""

DEVICE: dict[str, Callable[[], str | None]] = {
    "tensorrt": gpu.refusal,
    "tensorrt-rtx": rtx.refusal,
    "cuda": ort.cuda_refusal,
    "torch-cuda": torch_cuda.refusal,
}
"""What a backend needs besides modules: the reason why it is not there, or None."""


UNPROVEN = {
    "tensorrt": "checked against the real TensorRT 11 bindings, not yet run on a GPU",
    "tensorrt-rtx": "loaded and asked through ONNX Runtime's real interface, not yet run on a GPU",
    "cuda": "not yet run on a GPU",
    "torch-cuda": "checked on the CPU, not yet run on a GPU",
}
"""What no GPU has run so far, in the words that `apexstream doctor` prints."""


def refusal(backend: str) -> str | None:
    """Why a backend cannot run here, in words, or None if it can be tried. Imports nothing heavy."""
    if backend in DEVICE and (reason := DEVICE[backend]()):
        return reason  # before what could be installed, which would not help
    absent = [name for name in NEEDS[backend] if not _installed(name)]
    if not absent:
        return None
    return f"{' and '.join(absent)} not installed; install apexstream{EXTRAS[backend] or ' again'}"


def load(weights: str | Path, *, backend: BackendName = "auto", cache: Path | None = None) -> Runner:
    """Load an exported network (ONNX file) on a backend: maps [B, 3, H, W] float32 in 0..1 -> probabilities [B, K] float32.

    "auto" takes the first backend that can run here; the runner names it (`backend`, `device`) and why others before it
    were not taken (`refusals`). A GPU that fails later is left for the next backend, also where it was asked for by name.
    cache is a folder for networks compiled by TensorRT or TensorRT for RTX; without one they are compiled at every start,
    unless `apexstream export --backend tensorrt` has put one beside the file. Raises BackendError for a backend that does not
    exist or cannot run here, WeightsError for a file that is missing, damaged or not exported by this project.
    """
    if backend != "auto" and backend not in NEEDS:
        raise BackendError(f"no backend is called {backend!r}; there are auto, {', '.join(NEEDS)}")
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(f"there is no network file {path}")
    chain: list[tuple[str, Opener]] = [(name, partial(_open, name, path, cache)) for name in NEEDS]
    if backend == "auto":
        return FallbackRunner(chain)
    try:
        asked = _open(backend, path, cache)
    except BackendError as reason:
        raise BackendError(f"backend {backend} cannot run here: {reason}") from reason
    if backend not in DEVICE:
        return asked
    return FallbackRunner([(backend, lambda: asked), *chain[list(NEEDS).index(backend) + 1 :]])


def _open(backend: str, path: Path, cache: Path | None) -> Runner:
    reason = refusal(backend)
    if reason is not None:
        raise BackendError(reason)
    if backend == "tensorrt":
        from engine.runtime.trt import TrtRunner

        return TrtRunner(path, cache=cache)
    if backend == "tensorrt-rtx":
        return rtx.RtxRunner(path, cache=cache)
    if backend == "torch-cuda":
        return torch_cuda.TorchCudaRunner(path)
    if backend == "eager":
        from engine.runtime.eager import EagerRunner

        return EagerRunner(path)
    return ort.OrtRunner(path, backend="cuda" if backend == "cuda" else "ort")


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


__all__ = ["BackendName", "Runner", "load", "refusal"]
