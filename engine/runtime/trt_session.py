"""A compiled network ready to run: its engine on the GPU, with copies and computation of each batch size as one CUDA graph."""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.errors import BackendError
from engine.types import F32

MAX_BATCH = 64

BINDING_ERRORS = (RuntimeError, ValueError, TypeError)
"""What the bindings of TensorRT and CUDA raise themselves."""


class Stream:
    """A CUDA stream with the memory that belongs to it. `close` gives everything back; errors are BackendErrors."""

    def __init__(self, runtime: Any) -> None:
        """runtime is `cuda.bindings.runtime`."""
        self._rt = runtime
        self._owned: list[Callable[[], object]] = []
        self.handle = self._done(runtime.cudaStreamCreate())
        self._owned.append(lambda: runtime.cudaStreamDestroy(self.handle))

    def on_device(self, size: int) -> int:
        """The address of size bytes on the GPU."""
        address: int = self._done(self._rt.cudaMalloc(size))
        self._owned.append(lambda: self._rt.cudaFree(address))
        return address

    def on_host(self, *shape: int) -> tuple[F32, int]:
        """A float32 array of page-locked memory, zero, which copies may read and write beside the program; its address."""
        count = int(np.prod(shape))
        address: int = self._done(self._rt.cudaHostAlloc(4 * count, 0))
        self._owned.append(lambda: self._rt.cudaFreeHost(address))
        array: F32 = np.ctypeslib.as_array((ctypes.c_float * count).from_address(int(address))).reshape(shape)
        array[...] = 0
        return array, address

    def to_device(self, device: int, host: int, size: int) -> None:
        """Queue a copy of size bytes."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._done(self._rt.cudaMemcpyAsync(device, host, size, kind, self.handle))

    def to_host(self, host: int, device: int, size: int) -> None:
        """Queue a copy of size bytes."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._done(self._rt.cudaMemcpyAsync(host, device, size, kind, self.handle))

    def wait(self) -> None:
        """Until everything queued is done."""
        self._done(self._rt.cudaStreamSynchronize(self.handle))

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """What work queues as one CUDA graph: a function that queues all of it at once."""
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._done(self._rt.cudaStreamBeginCapture(self.handle, mode))
        try:
            work()
        except BackendError:
            self._rt.cudaStreamEndCapture(self.handle)
            raise
        graph = self._done(self._rt.cudaStreamEndCapture(self.handle))
        self._owned.append(lambda: self._rt.cudaGraphDestroy(graph))
        ready = self._done(self._rt.cudaGraphInstantiate(graph, 0))
        self._owned.append(lambda: self._rt.cudaGraphExecDestroy(ready))

        def launch() -> None:
            self._done(self._rt.cudaGraphLaunch(ready, self.handle))

        return launch

    def close(self) -> None:
        """Give memory, graphs and stream back; a GPU that is gone has nothing to take."""
        while self._owned:
            with contextlib.suppress(RuntimeError):
                self._owned.pop()()

    def _done(self, answer: tuple[Any, ...]) -> Any:
        """What a call gave besides its error code. Raises BackendError for a code that is not success."""
        code, *rest = answer
        if code != self._rt.cudaError_t.cudaSuccess:
            raise BackendError(f"CUDA says {code.name.removeprefix('cudaError')}")
        return rest[0] if rest else None


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
