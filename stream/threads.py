"""What the process as a whole is told: how many threads libraries may start, what it need not load, collect or keep."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from contextlib import AbstractContextManager, suppress
from types import TracebackType

import cv2


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


def numba_alone() -> None:
    """numba comes without scipy, whose linear algebra it would load in case it is asked for it, as nothing here does. Saves
    a fifth of a second and 12 MB.

    For a process that is this project's own, before it loads anything: numba's products of matrices are not to be had in it.
    Where one of the two is loaded already, or numba cannot be, all stays as it is.
    """
    if "numba" in sys.modules or "scipy" in sys.modules:
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        with suppress(ImportError, OSError):  # told by `engine.kernels.refusal` to whoever asks
            import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules["scipy"]


def loaded_for_good() -> None:
    """What lives now lives as long as the process: Python's collector need not go through it again, and what loading needed
    besides goes back to the machine.

    Going through it would hold up every thread for some 80 ms, now and then, for nothing. The price: of a pipeline that fails
    later and is replaced, what refers to itself in a circle stays in memory; of the pipelines that follow it, nothing does.
    """
    gc.collect()
    gc.freeze()
    if sys.platform == "linux":
        give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own; musl has none
        if give_back is not None:
            give_back(ctypes.c_size_t(0))
