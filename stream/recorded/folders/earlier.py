"""The finished results of an earlier run, set aside in their folder while the video is analysed again.

The names of their files begin with EARLIER meanwhile. They come back where no new results are made: at once, or, where the
process was killed, when the next run makes none either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from stream.files import write_errors
from stream.recorded.folders.records import EARLIER, RECORD, Record, write_record


def set_aside(folder: Path, record: Record, names: Iterable[str]) -> None:
    """Set aside the files with these names if the results are finished, by their record; it says from then on that there are
    none. Raises OutputError."""
    names = tuple(sorted(names))
    if record.finished:
        remove_earlier(folder)  # a kill came after these had replaced them
    write_record(folder, Record(False, names))
    if record.finished:
        with write_errors(folder):
            for name in names:
                if (folder / name).is_file():
                    (folder / name).rename(folder / f"{EARLIER}{name}")
        write_record(folder, record, f"{EARLIER}{RECORD}")
    elif not is_set_aside(folder):  # a kill came while they were set aside, before anything new was made
        bring_back(folder)


def is_set_aside(folder: Path) -> bool:
    """Whether finished results are set aside."""
    return (folder / f"{EARLIER}{RECORD}").exists()


def bring_back(folder: Path) -> None:
    """Give what was set aside its names again, in place of what has them. Raises OutputError."""
    with write_errors(folder):
        for path in sorted(_set_aside(folder), key=lambda path: path.name == f"{EARLIER}{RECORD}"):
            path.rename(folder / path.name.removeprefix(EARLIER))


def remove_earlier(folder: Path) -> None:
    """Remove what was set aside, the record first. Raises OutputError."""
    with write_errors(folder):
        for path in sorted(_set_aside(folder), key=lambda path: path.name != f"{EARLIER}{RECORD}"):
            path.unlink()


def _set_aside(folder: Path) -> Iterator[Path]:
    return folder.glob(f"{EARLIER}*")
