"""Settings of the whole process: threads of libraries, garbage collection, and what numba loads."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator

import cv2

SWEEP_COUNT, SWEEP_S = 256, 5.0


def load_less() -> None:
    """Load numba without scipy's linear algebra, which it would keep ready: that saves some time and memory at the start.

    For a process of this project that will run a pipeline, before anything else is loaded: products of matrices are not
    available in numba code then. What is loaded already stays as it is.
    """
    if "numba" in sys.modules or "scipy" in sys.modules:
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # Python's way to say that there is no such module
    try:
        with contextlib.suppress(ImportError, OSError):  # reported by `engine.kernels.refusal` where numba is needed
            import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules["scipy"]


def core_count() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_threads_before: list[int] = []  # OpenCV's number of threads before each running block: the first one's, then 1
_lock = threading.Lock()  # guards it


@contextlib.contextmanager
def opencv_on_one_thread() -> Iterator[None]:
    """A context in which OpenCV computes on the calling thread only; contexts may overlap.

    The stages of the analysis use all cores already. OpenCV's own threads would take a core from another stage for work of a
    tenth of a millisecond, and then keep it busy waiting for more.
    """
    with _lock:
        _threads_before.append(cv2.getNumThreads())
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        with _lock:
            cv2.setNumThreads(_threads_before.pop())


def freeze_loaded() -> None:
    """Exclude all present objects from garbage collection, and return the memory that only loading needed.

    Collecting them would stop every thread for some 80 ms, now and then, for nothing. The price: the reference cycles of a
    pipeline that fails later and is replaced stay in memory; those of the pipelines after it do not.
    """
    gc.collect()
    gc.freeze()
    return_memory()


def collect_garbage() -> None:
    """Free reference cycles, and return their memory."""
    gc.collect()
    return_memory()


def return_memory() -> None:
    """Return freed memory to the system: glibc keeps it, in an arena per thread, which adds up as threads come and go."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; musl has none
        if trim is not None:
            trim(ctypes.c_size_t(0))


class Sweep:
    """Collects garbage after connections that ended during the TLS handshake.

    asyncio leaves 0.3 MB of each in a reference cycle, and Python may not collect it for thousands of connections. collect runs
    on a thread, after SWEEP_COUNT connections or SWEEP_S after the first.
    """

    def __init__(self, collect: Callable[[], None]) -> None:
        self._collect = collect
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def note(self) -> None:
        """Count a connection; does nothing once the event loop has ended."""
        self._count += 1
        with contextlib.suppress(RuntimeError):  # the loop, or its executor, has ended
            if self._count >= SWEEP_COUNT:
                self._run()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._run)

    def _run(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._count, self._timer = 0, None
        asyncio.get_running_loop().run_in_executor(None, self._collect)
