"""A compiled network ready to run: its engine on the GPU, with copies and computation of each batch size as one CUDA graph."""

from __future__ import annotations

import weakref
from typing import Any

from engine.errors import BackendError
from engine.runtime.cuda import Stream
from engine.types import F32

MAX_BATCH = 64

BINDING_ERRORS = (RuntimeError, ValueError, TypeError)
"""What the bindings of TensorRT and CUDA raise themselves."""


class Session:
    """An engine on the GPU with its buffers; runs 1 to MAX_BATCH maps. Raises BackendError where TensorRT or the GPU fails.

    trt and cuda are the modules `tensorrt` and `cuda.bindings.runtime`, log is made by `error_logger`.
    """

    def __init__(self, trt: Any, cuda: Any, log: Any, engine: bytes, *, shape: tuple[int, int, int], classes: int) -> None:
        self._log = log
        self._runtime = trt.Runtime(log)  # outlives the engine
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise BackendError(f"TensorRT does not take the compiled network{log.last_error()}")
        self._closed = False
        self._contexts: list[Any] = []
        self._graphs: dict[int, Any] = {}
        self._stream = Stream(cuda)
        weakref.finalize(self, self._stream.close)
        try:
            self._maps, self._maps_at = self._stream.on_host(MAX_BATCH, *shape)
            self._answers, self._answers_at = self._stream.on_host(MAX_BATCH, classes)
            self._maps_device = self._stream.on_device(self._maps.nbytes)
            self._answers_device = self._stream.on_device(self._answers.nbytes)
        except BackendError:
            self._stream.close()
            raise

    def run(self, maps: F32) -> F32:
        """[B, 3, H, W] -> [B, K] for B of 1 to MAX_BATCH, padded to a power of two so that few graphs serve all."""
        if self._closed:
            raise BackendError("the compiled network is closed")
        size = 1 << (len(maps) - 1).bit_length()
        self._maps[: len(maps)] = maps
        self._maps[len(maps) : size] = 0
        try:
            if size not in self._graphs:
                self._graphs[size] = self._recorded(size)
            self._graphs[size]()
            self._stream.wait()
        except BINDING_ERRORS as cause:
            raise BackendError(f"TensorRT failed: {cause}") from cause
        return self._answers[: len(maps)].copy()

    def close(self) -> None:
        """Give everything on the GPU back, and the memory that maps and answers lie in: nothing runs any more."""
        self._closed = True
        self._graphs.clear()
        self._stream.close()
        self._contexts.clear()

    def _recorded(self, size: int) -> Any:
        """The CUDA graph of one batch size, with a context of its own that is not changed afterwards. It is run once before, as
        TensorRT asks after a change of shape."""
        context = self._engine.create_execution_context()
        if context is None:
            raise BackendError(f"the GPU has no room for the compiled network{self._log.last_error()}")
        self._contexts.append(context)
        if not context.set_input_shape("maps", (size, *self._maps.shape[1:])):
            raise BackendError(f"TensorRT does not take {size} maps at once{self._log.last_error()}")
        for name, address in (("maps", self._maps_device), ("probabilities", self._answers_device)):
            if not context.set_tensor_address(name, int(address)):
                raise BackendError(f"the compiled network has no {name!r}{self._log.last_error()}")

        def work() -> None:
            self._stream.to_device(self._maps_device, self._maps_at, self._maps[:size].nbytes)
            if not context.execute_async_v3(int(self._stream.handle)):
                raise BackendError(f"TensorRT cannot run the network{self._log.last_error()}")
            self._stream.to_host(self._answers_at, self._answers_device, self._answers[:size].nbytes)

        work()
        self._stream.wait()
        return self._stream.recorded(work)


def error_logger(trt: Any) -> Any:
    """A TensorRT logger that keeps the last error for messages of this project and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message.strip()

        def last_error(self) -> str:
            """The last error as the end of a sentence, once."""
            error, self.last = self.last, ""
            return f" ({error})" if error else ""

    return Log()
