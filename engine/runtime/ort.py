"""ONNX Runtime: the backend that every installation has, on the CPU or, with its build for GPUs, through CUDA.

How it is set up was measured on two cores with the shipped network, one map at a time (docs/performance.md): one thread, since
the operations are too small to share; no shapes fixed beforehand, since the lean form that is exported gains nothing by it; all
graph optimizations; float32, since 8 bits gain next to nothing at this size and are ten thousand times less exact.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import BackendError, WeightsError, first_line
from engine.runtime import gpu
from engine.runtime.graph import check_graph
from engine.runtime.runner import Runner
from engine.types import F32

PROVIDERS: dict[str, list[Any]] = {
    "ort": ["CPUExecutionProvider"],
    "cuda": [("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"}), "CPUExecutionProvider"],
}
"""What is asked for by name, since ONNX Runtime would fall back to another silently."""

DEVICES = {"ort": "CPU, CPUExecutionProvider", "cuda": "NVIDIA GPU, CUDAExecutionProvider"}


class OrtRunner(Runner):
    """A Runner on ONNX Runtime: see `engine.runtime.runner.Runner`.

    Raises BackendError where the provider asked for does not run here, WeightsError for a file that is no network.
    """

    def __init__(self, weights: Path, backend: Literal["ort", "cuda"] = "ort") -> None:
        super().__init__()
        self.backend = backend
        self._session = open_session(weights, PROVIDERS[backend])
        self.device = DEVICES[backend]
        self.classes, self.input_shape = _described(self._session, weights)

    def _run(self, maps: F32) -> F32:
        try:
            return np.asarray(self._session.run(["probabilities"], {"maps": maps})[0], np.float32)
        except Exception as cause:
            raise BackendError(f"ONNX Runtime failed: {first_line(cause)}") from cause


def cuda_refusal() -> str | None:
    """Why ONNX Runtime cannot compute on a GPU here, None when it can be tried. Imports nothing heavy."""
    if reason := gpu.refusal():
        return reason
    built = gpu.has_library("onnxruntime", "capi/*onnxruntime_providers_cuda.*")
    if built is None:
        return "onnxruntime not installed"
    return None if built else "this onnxruntime is built for the CPU; install onnxruntime-gpu in its place"


def folded(weights: Path) -> bytes:
    """The network of a file as ONNX, with everything that depends on parameters alone constant-folded. Raises WeightsError."""
    import onnxruntime  # type: ignore[import-untyped]

    check_graph(weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath, options.log_severity_level = str(path), 4
        try:
            onnxruntime.InferenceSession(str(weights), options, providers=PROVIDERS["ort"])
            return path.read_bytes()
        except Exception as cause:
            raise WeightsError(f"{weights} is not a network that ONNX Runtime can read: {first_line(cause)}") from cause


def open_session(weights: Path, providers: Sequence[Any] = ("CPUExecutionProvider",)) -> Any:
    """The session of a file on one thread, by these providers and no others. Raises BackendError or WeightsError."""
    import onnxruntime

    check_graph(weights)
    asked = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    if absent := [name for name in asked if name not in onnxruntime.get_available_providers()]:
        raise BackendError(f"this ONNX Runtime has no {', '.join(absent)}")
    options = session_options(onnxruntime)
    try:
        session = onnxruntime.InferenceSession(str(weights), options, providers=list(providers))
    except Exception as cause:
        if asked[0] == "CPUExecutionProvider":
            raise WeightsError(f"{weights} is not a network that ONNX Runtime can read: {first_line(cause)}") from cause
        raise BackendError(f"ONNX Runtime cannot open the network with {asked[0]}: {first_line(cause)}") from cause
    session.disable_fallback()  # which would go on with the CPU, silently, after a failure
    if asked != (got := session.get_providers()):
        raise BackendError(f"ONNX Runtime was asked for {', '.join(asked)} and took {', '.join(got)}")
    return session


def session_options(onnxruntime: Any) -> Any:
    """Options of a session: one thread, all graph optimizations, no log."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    return options


def _described(session: Any, weights: Path) -> tuple[tuple[str, ...], tuple[int, int, int]]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = ([i.name for i in inputs], [o.name for o in outputs])
    shape = tuple(inputs[0].shape[1:]) if inputs else ()
    if names != (["maps"], ["probabilities"]) or len(shape) != 3 or not all(isinstance(n, int) for n in shape):
        raise WeightsError(f"{weights} does not take 'maps' [B, 3, H, W] to 'probabilities' [B, K]; export it with apexstream")
    try:
        classes = tuple(json.loads(session.get_modelmeta().custom_metadata_map["apexstream"])["classes"])
    except (KeyError, ValueError, TypeError) as cause:
        raise WeightsError(f"{weights} does not say its classes; export it with apexstream") from cause
    if outputs[0].shape[1] != len(classes):
        raise WeightsError(f"{weights} names {len(classes)} classes but gives {outputs[0].shape[1]} columns")
    return classes, (shape[0], shape[1], shape[2])
