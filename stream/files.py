"""Files that are replaced as a whole, and the errors of writing them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.errors import OutputError
from stream.backoff import Backoff

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_LEFTOVER = re.compile(r"\.(?P<file>.+)\.[a-z0-9_]{8}")
"""The names of temporary folders of `replacing`, which hold nothing but the file."""


def write_atomically(path: Path, pieces: Iterable[str | bytes], *, changed_ns: int | None = None) -> None:
    """Replace path by a file of these pieces, or leave it unchanged; text as UTF-8. Raises OutputError.

    changed_ns is the time of change that it is given, nanoseconds since 1970; None: now.
    """
    with write_errors(path), replacing(path) as temporary:
        with temporary.open("wb") as file:
            file.writelines(piece if isinstance(piece, bytes) else piece.encode(errors="backslashreplace") for piece in pieces)
        if changed_ns is not None:
            os.utime(temporary, ns=(changed_ns, changed_ns))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of a file to be written in the block, which then replaces path; after an error path is unchanged.

    Raises OSError.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder, path.name)
        yield temporary
        temporary.replace(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what `replacing` leaves in a folder where the process was killed. Nobody else may write into it meanwhile.

    A folder of a user's with such a name holds something else, and stays.
    """
    for path in folder.glob(".*"):
        found = _LEFTOVER.fullmatch(path.name)
        if found and path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                if all(one.name == found["file"] and one.is_file() for one in path.iterdir()):
                    shutil.rmtree(path)


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise OSError as OutputError with the path and the system's reason."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error


class LineFile:
    """A file written line by line; when append returns, a line survives a kill of the process (not a loss of power).

    Raises OutputError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with write_errors(path):
            self._file = path.open("wb", buffering=0)
        self._end = 0

    def append(self, line: str) -> None:
        """Write a line, its end included. Raises OutputError; the file then keeps whole lines only."""
        data = line.encode()
        with write_errors(self._path):
            try:
                rest = data
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._end)
                raise
        self._end += len(data)

    def close(self) -> None:
        """Close the file."""
        with write_errors(self._path):
            self._file.close()


@contextlib.contextmanager
def folder_lock(folder: Path, *, shared: bool = False, wait_s: float = 0.0) -> Iterator[None]:
    """Keep other processes that ask for the lock of a folder from it while the block runs, and after it was killed no longer.

    shared: others may hold it at the same time, if they share it, too. The folder must exist; nothing is written into it.
    Raises BlockingIOError where another process holds the lock and does not release it within wait_s seconds. Where there are
    no locks, as on some network file systems, nothing is locked.
    """
    if fcntl is None:
        yield
        return
    with contextlib.ExitStack() as opened:
        handle = os.open(folder, os.O_RDONLY)
        opened.callback(os.close, handle)
        _lock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait_s)
        yield


def _lock(handle: int, kind: int, wait_s: float) -> None:
    """Attempts are repeated, as a wait for a lock has no time limit. Raises BlockingIOError."""
    until, pauses = time.monotonic() + wait_s, Backoff(0.05, 1.0, jitter=0.5)
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(pauses.next())
        except OSError:  # no locks here
            return
