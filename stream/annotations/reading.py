"""Annotations of any known kind of file, by the ending of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.errors import InputError
from stream.annotations.boris import read_project
from stream.annotations.elan import read_elan
from stream.annotations.praat import read_praat
from stream.annotations.table import read_table
from stream.annotations.timed_label import TimedLabel, Wanted

READERS: dict[str, Callable[[Path, Wanted], list[TimedLabel]]] = {
    ".eaf": read_elan,
    ".textgrid": read_praat,
    ".boris": read_project,
    ".boris.gz": read_project,
    ".csv": read_table,
    ".tsv": read_table,
    ".txt": read_table,
}
"""By the ending of the file's name."""


def read_annotations(path: Path, wanted: Wanted | None = None) -> list[TimedLabel]:
    """The labels that a coder gave parts of a video, in ascending order of their starts.

    Raises InputError in one sentence where the file is missing, damaged, of no known kind, or where it is not clear what in it
    is wanted.
    """
    reader = next((reader for ending, reader in READERS.items() if path.name.lower().endswith(ending)), None)
    if reader is None:
        raise InputError(f"{path} is of no known kind: {', '.join(READERS)} and a folder with review.sqlite are")
    try:
        path.open("rb").close()
        found = reader(path, wanted or Wanted())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return sorted(found, key=lambda one: (one.start, one.end))
