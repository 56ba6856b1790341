"""The finished results of an earlier run, set aside in their folder while the video is analysed again.

The names of their files begin with EARLIER meanwhile. The record goes first and comes back last, so that it is known at each
moment, also after a kill, which results are the finished ones: those that are set aside with their record, unless the new
record is finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from engine.errors import OutputError
from stream.files import folder_lock, write_errors
from stream.recorded.folders.records import EARLIER, RECORD, Record, is_result, read_record, write_record


def set_aside(folder: Path, names: Iterable[str]) -> None:
    """Set aside the record of finished results and files with these names; the new record says that there are none. Raises
    OutputError."""
    names = tuple(sorted(names))
    with write_errors(folder):
        (folder / RECORD).rename(folder / f"{EARLIER}{RECORD}")
        for name in names:
            if (folder / name).is_file():
                (folder / name).rename(folder / f"{EARLIER}{name}")
    write_record(folder, Record(False, names))


def is_set_aside(folder: Path) -> bool:
    """Whether finished results are set aside."""
    return (folder / f"{EARLIER}{RECORD}").is_file()


def bring_back(folder: Path) -> None:
    """Give what was set aside its names again, in place of what has them. Raises OutputError."""
    with write_errors(folder):
        for path in _set_aside(folder):
            path.rename(folder / path.name.removeprefix(EARLIER))
        (folder / f"{EARLIER}{RECORD}").rename(folder / RECORD)


def remove_earlier(folder: Path) -> None:
    """Remove what was set aside. Raises OutputError."""
    with write_errors(folder):
        (folder / f"{EARLIER}{RECORD}").unlink(missing_ok=True)
        for path in _set_aside(folder):
            path.unlink()


def settle(folder: Path) -> None:
    """After a run that was killed: bring back what it had set aside, or remove that where it was done. Nobody else may write
    into the folder meanwhile. Raises OutputError."""
    record = read_record(folder)
    if is_set_aside(folder) and not (record is not None and record.finished):
        bring_back(folder)
    else:
        remove_earlier(folder)


def settle_if_idle(folder: Path) -> None:
    """The same, but nothing where another process uses the folder or it cannot be written."""
    with suppress(OSError, OutputError):
        if is_set_aside(folder):
            with folder_lock(folder):
                settle(folder)


def _set_aside(folder: Path) -> Iterator[Path]:
    """The files that are set aside, but for the record: those of a person's own with such names are none."""
    for path in list(folder.glob(f"{EARLIER}*")):
        if is_result(path.name.removeprefix(EARLIER)) and path.is_file():
            yield path
