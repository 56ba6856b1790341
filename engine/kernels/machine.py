"""Python functions -> machine code by numba, kept on disk. Imported only where numba can be used (`engine.kernels.refusal`).

Nothing compiled here starts a thread or holds the interpreter's lock, so that streams run side by side, one core each.
"""

from __future__ import annotations

from collections.abc import Callable
from pickle import PickleError
from typing import Any

from numba import njit

FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
FAST: dict[str, Any] = {**FLAGS, "fastmath": True}
SUMS: dict[str, Any] = {**FLAGS, "fastmath": {"reassoc", "contract", "nsz"}}
"""Sums may be taken in another order, so that they become SIMD; what is no number stays none."""


def part(flags: dict[str, Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a function that compiled ones of the same file call.

    It becomes one with them: else they would call what was compiled of it alone as long as that is at hand, and their own
    copies when they come from the disk, whose sums are taken in another order: the first run would give other digits.
    Of the same file, because what is kept on disk is renewed when the file of the compiled function changes, and only then.
    """
    mark: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(**flags, forceinline=True)
    return mark


def compiled(function: Callable[..., Any], signature: Any, flags: dict[str, Any]) -> Callable[..., Any]:
    """The function compiled for one signature, from the disk where it was kept there.

    What cannot be read there or written there (no such folder, no room, no right, a file cut short) costs the time to compile.
    """
    try:
        return njit(signature, cache=True, **flags)(function)  # type: ignore[no-any-return]
    except (OSError, RuntimeError, EOFError, PickleError, ValueError, LookupError, AttributeError, ImportError):
        return njit(signature, **flags)(function)  # type: ignore[no-any-return]
