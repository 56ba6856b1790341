"""What the process as a whole is told: how many threads libraries may start, what need not be collected or kept."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

import cv2

SWEPT, SWEEP_S = 256, 5.0


class _OneThread(AbstractContextManager[None]):
    """Counts the blocks that run; the first and the last of them change OpenCV's setting."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._inside = self._before = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._inside += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                cv2.setNumThreads(self._before)


_one_thread = _OneThread()


def opencv_on_one_thread() -> AbstractContextManager[None]:
    """OpenCV computes on the thread that calls it while any such block runs; afterwards as before.

    The stages of the analysis share the cores among themselves already. OpenCV's helpers would take a core from another stage
    for work of a tenth of a millisecond, and keep it busy for a while after, waiting for more.
    """
    return _one_thread


def loaded_for_good() -> None:
    """What lives now lives as long as the process: Python's collector need not go through it again, and what loading needed
    besides goes back to the machine.

    Going through it would hold up every thread for some 80 ms, now and then, for nothing. The price: of a pipeline that fails
    later and is replaced, what refers to itself in a circle stays in memory; of the pipelines that follow it, nothing does.
    """
    gc.collect()
    gc.freeze()
    give_back_memory()


def collect_garbage() -> None:
    """Free what refers to itself in circles, and give it back."""
    gc.collect()
    give_back_memory()


def give_back_memory() -> None:
    """Return to the machine what was freed: glibc keeps it, in an arena a thread, and threads that come and go pile it up."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own; musl has none
        if trim is not None:
            trim(ctypes.c_size_t(0))


class Sweep:
    """Frees what connections leave behind that ended in TLS's handshake.

    asyncio leaves 0.3 MB of each in a circle, until Python's collector comes by, which may take thousands of them. act is done
    on a thread, for SWEPT of them at the latest, and SWEEP_S after the first.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def note(self) -> None:
        """One more; nothing happens once no event loop runs any more."""
        self._count += 1
        with contextlib.suppress(RuntimeError):  # the loop, or its executor, has ended
            if self._count >= SWEPT:
                self._run()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._run)

    def _run(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._count, self._timer = 0, None
        asyncio.get_running_loop().run_in_executor(None, self._act)
