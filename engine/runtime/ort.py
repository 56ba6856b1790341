"""ONNX Runtime: the backend that every installation has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import BackendError, WeightsError
from engine.runtime.contract import checked
from engine.types import F32

PROVIDERS = ("CPUExecutionProvider",)
"""Asked for by name, since ONNX Runtime would fall back to another silently. The shipped network is so small that a GPU's
launches would cost more than the arithmetic."""


class OrtRunner:
    """A Runner on ONNX Runtime, one thread: see `engine.runtime.contract.Runner`."""

    backend = "ort"

    def __init__(self, weights: Path, refusals: dict[str, str] | None = None) -> None:
        session = _open(weights)
        got = session.get_providers()
        if list(PROVIDERS) != got:
            raise BackendError(f"ONNX Runtime was asked for {', '.join(PROVIDERS)} and took {', '.join(got)}")
        self._session = session
        self.device = f"CPU, {got[0]}"
        self.refusals = dict(refusals or {})
        self.classes, self.input_shape = _described(session, weights)

    def __call__(self, maps: F32) -> F32:
        """Maps [B, 3, H, W] -> probabilities [B, K]."""
        maps = checked(maps, self.input_shape)
        if not len(maps):
            return np.zeros((0, len(self.classes)), np.float32)
        out: F32 = self._session.run(["probabilities"], {"maps": maps})[0]
        return out


def _open(weights: Path) -> Any:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(weights), options, providers=list(PROVIDERS))
    except Exception as cause:
        first = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise WeightsError(f"{weights} is not a network that ONNX Runtime can read: {first}") from cause


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
