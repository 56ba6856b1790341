"""Keep the native libraries' own messages off the user's terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def native_output_hidden(enabled: bool = True) -> Iterator[None]:
    """While inside, what C and C++ libraries print to file descriptor 2 is dropped; Python's sys.stderr still reaches the user.

    MediaPipe and TensorFlow Lite announce themselves and warn of internals there, whatever their settings say. A stderr that is
    no real file (a test's, a notebook's) is left as it is.
    """
    if not enabled or not _is_real(sys.stderr):
        yield
        return
    python_side = sys.stderr
    python_side.flush()
    terminal = os.dup(2)
    kept = os.fdopen(terminal, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    with kept, Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = kept
        try:
            yield
        finally:
            kept.flush()
            os.dup2(terminal, 2)
            sys.stderr = python_side


def _is_real(stream: object) -> bool:
    try:
        return stream is not None and stream.fileno() == 2  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
