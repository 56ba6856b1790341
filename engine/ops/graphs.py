"""Work on a GPU that is queued by one call: buffers that keep their place, and a CUDA graph of everything done on them.

A queue of hundreds of small launches costs the host more than it costs the GPU. So the launches are recorded once for each size
and replayed as one. What is recorded must not allocate outside of torch, copy from pageable memory or wait for the GPU; sizes
that are powers of two let few graphs serve batches of any length.

Graphs are replayed on the stream that is current, one after the other; torch gives all threads the same one, so that two graphs
of a process never share a library's workspace at the same time. PyTorch allows a process one recording at a time: callers on
several threads see to it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import prod
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

WARM_UPS = 2
"""Runs before a recording: the first compiles kernels and loads libraries, which a recording may not."""

Result = TypeVar("Result")
Plan = TypeVar("Plan")


def room_for(number: int) -> int:
    """The least power of two that holds so many."""
    return 1 << (number - 1).bit_length()


def on_gpu(where: torch.device) -> bool:
    """Whether work there is recorded as a graph."""
    return where.type == "cuda"


class Recorded(Generic[Result]):
    """Work on tensors that keep their place, recorded as one CUDA graph when it is first done; without a GPU it is just done.

    The work takes nothing and returns the same tensors each time, whose contents the next call replaces.
    """

    def __init__(self, where: torch.device) -> None:
        self._where = where
        self._graph: Any = None
        self._result: Result

    def __call__(self, work: Callable[[], Result]) -> Result:
        """Queue the work, the same at every call. Raises what torch raises where the GPU fails."""
        if not on_gpu(self._where):
            return work()
        with torch.cuda.device(self._where):
            if self._graph is None:
                self._graph, self._result = _record(work)
            self._graph.replay()
        return self._result


def _record(work: Callable[[], Result]) -> tuple[Any, Result]:
    """The work as a graph, and what it returned.

    It is warmed up on the stream of the replays: on another one it could use a library's workspace at the same time as they.
    """
    here = torch.cuda.current_stream()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with full_precision():
        for _ in range(WARM_UPS):
            work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        recorder = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        with torch.cuda.stream(here), recorder:  # a recorder that fails leaves its own stream current
            result = work()
    return graph, result


@contextmanager
def full_precision() -> Iterator[None]:
    """Products and convolutions of float32 in float32, not in the 19 bits of TF32."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


class Buffers:
    """Float32 tensors of given shapes on one device, side by side, so that one copy from page-locked memory fills them all."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], where: torch.device) -> None:
        self._sizes, self._shapes = [prod(shape) for shape in shapes], shapes
        self._device = torch.zeros(sum(self._sizes), device=where)
        self._pinned: Tensor | None = None
        self._copied: Any = None
        self.parts = self._views(self._device)

    def fill(self, given: Sequence[Tensor]) -> None:
        """Copy tensors that have as many rows as there are, or fewer, of any type, from this device or the host's memory."""
        if all(part.device.type == "cpu" for part in given) and self._device.is_cuda:
            self._upload(given)
            return
        for part, source in zip(self.parts, given, strict=True):
            part[: len(source)].copy_(source)

    def _upload(self, given: Sequence[Tensor]) -> None:
        if self._pinned is None:
            self._pinned, self._copied = torch.zeros(len(self._device), pin_memory=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
        else:
            self._copied.synchronize()  # the last copy may still read what is written now
        for part, source in zip(self._views(self._pinned), given, strict=True):
            part[: len(source)].copy_(source)
        self._device.copy_(self._pinned, non_blocking=True)
        self._copied.record()

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = torch.split(flat, self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]


class Store(Generic[Plan]):
    """Plans (buffers with their graphs) that are idle, the ones used last.

    A caller takes a plan out while it uses it, so two callers never share one; a plan whose use failed is not put back.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._idle: OrderedDict[Hashable, tuple[Plan, Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._idle)

    def clear(self) -> None:
        """Give the memory of all idle plans back."""
        self._idle.clear()

    def run(self, key: Hashable, where: torch.device, make: Callable[[], Plan], use: Callable[[Plan], Result]) -> Result:
        """What `use` makes of the plan of a key, which `make` makes where none is idle; where memory is short, the idle ones
        make room. All of it with `where` as the current device."""
        with _current(where):
            return self._run(key, where, make, use)

    def _run(self, key: Hashable, where: torch.device, make: Callable[[], Plan], use: Callable[[Plan], Result]) -> Result:
        plan, done = self._idle.pop(key, (None, None))
        if done is not None:
            done.wait()  # another stream may have used the buffers last
        try:
            plan = make() if plan is None else plan
            result = use(plan)
        except torch.OutOfMemoryError:
            if not self._idle:
                raise
            plan = None
        if plan is None:  # outside of the handler, whose traceback holds what was made
            self._idle.clear()
            plan = make()
            result = use(plan)
        self._idle[key] = plan, _recorded_event(where)
        while len(self._idle) > self._kept:
            self._idle.popitem(last=False)
        return result


def _recorded_event(where: torch.device) -> Any:
    if not on_gpu(where):
        return None
    event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


def _current(where: torch.device) -> AbstractContextManager[object]:
    """Within this, streams and events are those of the device."""
    return torch.cuda.device(where) if on_gpu(where) else nullcontext()
