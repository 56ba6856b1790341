"""What libraries load in case it is asked of them, and nothing here asks: left out of a process that is this project's own."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import ModuleType

_OTHER_SOLUTIONS = ("mediapipe.tasks", "mediapipe.tasks.python", "mediapipe.python.solutions.objectron")


def load_less() -> None:
    """Have numba and MediaPipe leave out what nothing here needs: a third of a second of every start, and 15 MB.

    For a process that is this project's own, before it loads anything: numba's products of matrices and MediaPipe's tasks are
    not to be had in it. What is loaded already stays as it is.
    """
    _mediapipe_without_other_solutions()
    _numba_without_scipy()


def _mediapipe_without_other_solutions() -> None:
    """Empty modules stand in for them, for good."""
    if "mediapipe" not in sys.modules:
        sys.modules.update({name: ModuleType(name) for name in _OTHER_SOLUTIONS})


def _numba_without_scipy() -> None:
    """numba would load scipy's linear algebra, to have it at hand."""
    if "numba" in sys.modules or "scipy" in sys.modules:
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        with suppress(ImportError, OSError):  # told by `engine.kernels.refusal` to whoever asks
            import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules["scipy"]
