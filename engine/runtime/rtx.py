"""TensorRT for RTX: NVIDIA's plug-in for ONNX Runtime, an ordinary wheel, for GeForce RTX 30 and later.

The plug-in compiles the network for the GPU when a session is opened. Half precision is used where its answers allow: they are
compared with ONNX Runtime's on the CPU, as for TensorRT. What is compiled is kept in a folder of the cache whose name says what
it is valid for. CUDA graphs are not asked for: they need fixed addresses and shapes.

Option names are those of the plug-in's header tensorrt_rtx_provider_options.h, version 0.5.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import BackendError, WeightsError, first_line
from engine.runtime import gpu
from engine.runtime.half import PREPARATION, prepared
from engine.runtime.ort import OrtRunner, session_options
from engine.runtime.parity import TOLERANCES, difference
from engine.runtime.runner import Runner
from engine.types import F32

log = logging.getLogger(__name__)

PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
CAPABILITIES = ((8, 6), (8, 9))
"""Compute capabilities that the plug-in takes, besides those from NEWEST on."""
NEWEST = (12, 0)
MAX_BATCH = 64


@dataclass(frozen=True, eq=False)
class Plugin:
    """The plug-in in this process: ONNX Runtime's module, the provider's name and version, the first device, and the GPU."""

    ort: Any
    name: str
    version: str
    device: Any
    gpu: gpu.Gpu

    @classmethod
    def here(cls) -> Plugin:
        """The installed plug-in, loaded once in a process. Raises BackendError where it, or a library that it needs, is
        missing, or where it takes no GPU of this machine."""
        card = gpu.find()
        try:
            ort, package = import_module("onnxruntime"), import_module(PACKAGE)
            name = package.get_ep_name()
            if not _devices(ort, name):
                ort.register_execution_provider_library(name, package.get_library_path())
        except Exception as cause:  # the plug-in raises types of its own, and of ONNX Runtime's native part
            raise BackendError(f"TensorRT for RTX cannot be loaded: {_missing(cause)}") from cause
        devices = _devices(ort, name)
        if not devices:
            raise BackendError(f"TensorRT for RTX takes no GPU of this machine ({card.name})")
        return cls(ort, name, package.__version__, devices[0], card)


class RtxRunner(Runner):
    """A Runner on TensorRT for RTX: see `engine.runtime.runner.Runner`.

    cache is a folder for what is compiled; without one it is compiled at every start. Raises BackendError where the plug-in
    cannot run the network, WeightsError for a file that is no network.
    """

    backend = "tensorrt-rtx"

    def __init__(self, weights: Path, *, cache: Path | None = None, plugin: Plugin | None = None) -> None:
        super().__init__()
        reference = OrtRunner(weights)
        self.classes, self.input_shape = reference.classes, reference.input_shape
        self._plugin = plugin or Plugin.here()
        self._weights, self._cache = weights, cache
        self.precision, self._session = self._opened(reference)
        self.device = f"{self._plugin.gpu.name}, TensorRT for RTX {self._plugin.version}, {self.precision}"

    def _run(self, maps: F32) -> F32:
        return np.concatenate(
            [self._answers(self._session, maps[at : at + MAX_BATCH]) for at in range(0, len(maps), MAX_BATCH)]
        )

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._session = None

    def options(self, precision: str) -> dict[str, str]:
        """The plug-in's options: batches of 1 to MAX_BATCH maps, one the usual; where compiled networks are kept."""
        shapes = {"min": 1, "opt": 1, "max": MAX_BATCH}
        size = "x".join(map(str, self.input_shape))
        options = {f"nv_profile_{bound}_shapes": f"maps:{batch}x{size}" for bound, batch in shapes.items()}
        if self._cache is not None:
            options["nv_runtime_cache_path"] = str(self._cache / self.folder_name(precision))
        return options

    def folder_name(self, precision: str) -> str:
        """What a compiled network's folder is called: all that it depends on, so that machines can share a cache."""
        sha256 = hashlib.sha256(self._weights.read_bytes()).hexdigest()[:12]
        return f"{self._weights.stem}-{sha256}-{self._plugin.gpu.sm}-rtx-{self._plugin.version}-{precision}-{PREPARATION}"

    def _opened(self, reference: OrtRunner) -> tuple[str, Any]:
        """A session whose answers are ONNX Runtime's, as fast as they allow, and its precision."""
        why = ""
        for precision in TOLERANCES:
            try:
                session = self._open(prepared(self._weights, half=precision == "float16"), self.options(precision))
                run = partial(self._answers, session)
                why = difference(run, reference, "ONNX Runtime", self.input_shape, precision)
            except (BackendError, WeightsError, ImportError) as cause:
                why = str(cause)
            if not why:
                return precision, session
            self.notes.append(f"{precision} is not used: {why}")
        raise BackendError(f"TensorRT for RTX cannot run {self._weights}: {why}")

    def _open(self, model: bytes, options: dict[str, str]) -> Any:
        if self._cache is not None:
            try:
                Path(options["nv_runtime_cache_path"]).mkdir(parents=True, exist_ok=True)
            except OSError as cause:
                self.notes.append(f"the compiled network is not kept: {self._cache} cannot be written ({cause.strerror})")
                options = {name: value for name, value in options.items() if name != "nv_runtime_cache_path"}
        asked = session_options(self._plugin.ort)
        try:
            asked.add_provider_for_devices([self._plugin.device], options)
            session = self._plugin.ort.InferenceSession(model, sess_options=asked)
        except Exception as cause:
            raise BackendError(f"TensorRT for RTX cannot compile the network: {first_line(cause)}") from cause
        session.disable_fallback()
        if self._plugin.name not in session.get_providers():
            raise BackendError("ONNX Runtime left TensorRT for RTX out")
        return session

    def _answers(self, session: Any, maps: F32) -> F32:
        try:
            return np.asarray(session.run(["probabilities"], {"maps": maps})[0], np.float32)
        except Exception as cause:
            raise BackendError(f"TensorRT for RTX failed: {first_line(cause)}") from cause


def refusal() -> str | None:
    """Why the plug-in cannot compute here, None where it can be tried. Imports nothing heavy."""
    try:
        card = gpu.find()
    except BackendError as none:
        return str(none)
    if card.capability in CAPABILITIES or card.capability >= NEWEST:
        return None
    version = ".".join(map(str, card.capability))
    return f"TensorRT for RTX takes GeForce RTX 30 and later, not {card.name} (compute capability {version})"


def _devices(ort: Any, name: str) -> Sequence[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == name]


def _missing(cause: Exception) -> str:
    """What could not be loaded, without the path of what asked for it."""
    said = first_line(cause)
    _, _, library = said.partition("with error: ")
    return library or said
