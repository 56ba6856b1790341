"""What a check is, and how it says that it cannot be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ApexError, BackendError

Entry = dict[str, Any]
"""A result as it stands in the record."""


class NoGpuError(BackendError):
    """There is no GPU to measure."""


@dataclass(frozen=True)
class Job:
    """What a check may know: the folder of flow maps, if one was named, the record's path, and how many seconds are left."""

    data: Path | None
    out: Path
    left: Callable[[], float]


@dataclass(frozen=True)
class Check:
    """One result of a part. run returns its figures; "right": False says that they are wrong, "finished": False that there is
    more to do. least is how many seconds it takes at least."""

    name: str
    run: Callable[[Job], Entry]
    least: float = 5.0


class SkippedError(ApexError):
    """A check that cannot be done here; its text is the reason."""


def say(line: str) -> None:
    """A line of progress, seen at once."""
    print(line, flush=True)
