"""What libraries load in case it is asked of them, and nothing here asks: left out of a process that is this project's own."""

from __future__ import annotations

import sys
from contextlib import suppress

from engine.landmarks import mediapipe_solutions

_OTHER_SOLUTIONS = ("mediapipe.tasks", "mediapipe.tasks.python", "mediapipe.python.solutions.objectron")


def load_less() -> None:
    """Load numba and MediaPipe without what nothing here needs of them: that saves a third of a second of a start, and 15 MB.

    For a process that is this project's own and will have a pipeline, before anything else is loaded: numba's products of
    matrices are not to be had in it. What is loaded already stays as it is.
    """
    with suppress(ImportError, OSError):  # told to whoever needs it
        mediapipe_solutions(also_not=_OTHER_SOLUTIONS)
    _numba_without_scipy()


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
