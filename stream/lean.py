"""What numba loads in case it is asked of it, and nothing here asks: left out of a process that is this project's own."""

from __future__ import annotations

import sys
from contextlib import suppress


def load_less() -> None:
    """Load numba without scipy's linear algebra, which it would have at hand: that saves a start some time and memory.

    For a process that is this project's own and will have a pipeline, before anything else is loaded: numba's products of
    matrices are not to be had in it. What is loaded already stays as it is.
    """
    if "numba" in sys.modules or "scipy" in sys.modules:
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        with suppress(ImportError, OSError):  # told by `engine.kernels.refusal` to whoever asks
            import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules["scipy"]
