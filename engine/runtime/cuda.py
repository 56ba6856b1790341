"""The few calls to the CUDA runtime that a compiled network needs, each checked: buffers, copies, one stream, graphs."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.errors import BackendError
from engine.types import F32


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
