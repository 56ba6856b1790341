"""TensorRT: the network compiled for one GPU, in half precision where its answers allow.

From an ONNX file: folded, products in half precision (`engine.runtime.half`) -> a strongly typed TensorRT network -> an engine
for batches of 1 to MAX_BATCH maps, kept as a file (`engine.runtime.engines`) -> copies and computation of each batch size as
one CUDA graph. Before an engine is used, and before it is kept, its answers are compared with ONNX Runtime's on the CPU.

Names and signatures are checked against the real TensorRT 11 bindings by the tests, which need no GPU for it.
"""

from __future__ import annotations

import hashlib
import logging
import platform
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import BackendError, OutputError, WeightsError
from engine.runtime import engines, gpu
from engine.runtime.engines import EngineKey
from engine.runtime.half import PREPARATION, prepared
from engine.runtime.ort import OrtRunner
from engine.runtime.parity import TOLERANCES, difference
from engine.runtime.runner import Runner
from engine.runtime.trt_session import BINDING_ERRORS, MAX_BATCH, Session, error_logger
from engine.types import F32

log = logging.getLogger(__name__)

USUAL_BATCH = 1
WORKSPACE = 256 << 20
"""Bytes of GPU memory that compiling may use for each layer's scratch."""


@dataclass(frozen=True)
class Libraries:
    """What the backend stands on: the modules `tensorrt` and `cuda.bindings.runtime`, and the GPU."""

    trt: Any
    cuda: Any
    gpu: gpu.Gpu

    @classmethod
    def here(cls) -> Libraries:
        """This machine's. Raises BackendError with the reason where one of them is missing."""
        try:
            return cls(import_module("tensorrt"), import_module("cuda.bindings.runtime"), gpu.find())
        except (ImportError, OSError) as missing:
            raise BackendError(f"TensorRT cannot be loaded ({missing}); install apexstream[trt]") from missing


class TrtRunner(Runner):
    """A Runner on TensorRT: see `engine.runtime.runner.Runner`.

    A compiled network is searched for beside the ONNX file, then in the folder cache. One that has to be built is kept there,
    if a folder is given, with the timings that make the next build quick. Raises BackendError where TensorRT cannot run the
    network, WeightsError for a file that is no network.
    """

    backend = "tensorrt"

    def __init__(self, weights: Path, *, cache: Path | None = None, libraries: Libraries | None = None) -> None:
        super().__init__()
        reference = OrtRunner(weights)
        self.classes, self.input_shape = reference.classes, reference.input_shape
        self._libraries = libraries or Libraries.here()
        self._log = error_logger(self._libraries.trt)
        self._weights, self._cache = weights, cache
        timings = f"timings-{self._libraries.trt.__version__}-{self._libraries.gpu.sm}.cache"
        self._timings_path = cache / timings if cache else None
        self._sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        precision, self._session = self._from_file(reference) or self._compiled(reference)
        self.precision = precision
        self.device = f"{self._libraries.gpu.name}, TensorRT {self._libraries.trt.__version__}, {precision}"

    def _run(self, maps: F32) -> F32:
        return np.concatenate([self._session.run(maps[at : at + MAX_BATCH]) for at in range(0, len(maps), MAX_BATCH)])

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._session.close()

    def key(self, precision: str) -> EngineKey:
        """What an engine of this network depends on, here."""
        shapes = f"[1..{MAX_BATCH}, {', '.join(map(str, self.input_shape))}]"
        flags = f"{precision}, no TF32, preparation {PREPARATION}"
        system = f"{platform.system()} {platform.machine()}"
        return EngineKey(self._libraries.trt.__version__, self._libraries.gpu.sm, system, self._sha256, shapes, flags)

    def file_name(self, precision: str) -> str:
        """What an engine's file is called: one name for each network, kind of GPU and precision, so that machines can share
        a folder."""
        return f"{self._weights.stem}-{self._sha256[:12]}-{self._libraries.gpu.sm}-{precision}.engine"

    def _from_file(self, reference: OrtRunner) -> tuple[str, Session] | None:
        """An engine from a file that answers as ONNX Runtime does; a note for each file that cannot be used."""
        rejected: list[str] = []
        folders = dict.fromkeys((self._weights.parent, self._cache or self._weights.parent))
        for precision in TOLERANCES:
            for path in (folder / self.file_name(precision) for folder in folders):
                engine, reason = engines.read(path, self.key(precision))
                if engine is not None:
                    session, reason = self._verified(reference, engine, precision)
                    if session is not None:
                        self.notes += rejected
                        return precision, session
                    reason = f"{path} is not used: {reason}"
                if reason:
                    rejected.append(reason)
        self.notes += [f"{reason}; the network is compiled again" for reason in rejected]
        return None

    def _compiled(self, reference: OrtRunner) -> tuple[str, Session]:
        """A new engine, as precise as it has to be, kept in the cache."""
        log.warning("TensorRT compiles %s for %s, which can take minutes", self._weights.name, self._libraries.gpu.name)
        why = ""
        for precision in TOLERANCES:
            try:
                engine = self._compile(prepared(self._weights, half=precision == "float16"))
            except (BackendError, WeightsError, ImportError, *BINDING_ERRORS) as cause:
                session, why = None, str(cause)
            else:
                session, why = self._verified(reference, engine, precision)
            if session is not None:
                self._keep(precision, engine)
                return precision, session
            self.notes.append(f"{precision} is not used: {why}")
        raise BackendError(f"TensorRT cannot run {self._weights}: {why}")

    def _verified(self, reference: OrtRunner, engine: bytes, precision: str) -> tuple[Session | None, str]:
        """The engine ready to run, or why not: what it answers to noise must be what ONNX Runtime answers."""
        libraries, shape = self._libraries, self.input_shape
        try:
            session = Session(libraries.trt, libraries.cuda, self._log, engine, shape=shape, classes=len(self.classes))
        except (BackendError, *BINDING_ERRORS) as cause:
            return None, str(cause)
        try:
            why = difference(session.run, reference, "ONNX Runtime", shape, precision)
        except BackendError as cause:
            why = str(cause)
        if not why:
            return session, ""
        session.close()
        return None, why

    def _keep(self, precision: str, engine: bytes) -> None:
        """Into the cache; a disk that refuses only makes the next start slower."""
        if self._cache is None:
            return
        try:
            engines.write(self._cache / self.file_name(precision), self.key(precision), engine)
        except OutputError as cause:
            self.notes.append(f"the compiled network is not kept: {cause}")

    def _compile(self, content: bytes) -> bytes:
        """An ONNX model's content -> a serialized engine."""
        trt = self._libraries.trt
        builder = trt.Builder(self._log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse(content):
            errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            raise BackendError(f"TensorRT cannot read the network: {'; '.join(errors[:3])}")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
        config.clear_flag(trt.BuilderFlag.TF32)
        profile = builder.create_optimization_profile()
        least, usual, most = ((batch, *self.input_shape) for batch in (1, USUAL_BATCH, MAX_BATCH))
        profile.set_shape("maps", least, usual, most)
        if config.add_optimization_profile(profile) < 0:
            raise BackendError("TensorRT does not take batches of the network's maps")
        timings = self._timings(config)
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise BackendError(f"TensorRT cannot compile the network{self._log.last_error()}")
        self._keep_timings(timings)
        return bytes(serialized)

    def _timings(self, config: Any) -> Any:
        """The timing cache of earlier builds, or an empty one, set in config."""
        path, kept = self._timings_path, b""
        if path is not None:
            try:
                kept = path.read_bytes()
            except FileNotFoundError:
                pass  # the first compilation here
            except OSError as cause:
                self.notes.append(f"the timings of earlier compilations are not used: {path} cannot be read ({cause.strerror})")
        timings = config.create_timing_cache(kept)
        if kept and (timings is None or not config.set_timing_cache(timings, False)):
            self.notes.append(f"{path} is of another GPU or damaged, and is replaced")
            kept, timings = b"", config.create_timing_cache(b"")
        if not kept:
            config.set_timing_cache(timings, False)
        return timings

    def _keep_timings(self, timings: Any) -> None:
        if self._timings_path is None:
            return
        try:
            engines.replace(self._timings_path, bytes(timings.serialize()))
        except OutputError as cause:
            self.notes.append(f"the timings of this compilation are not kept: {cause}")
