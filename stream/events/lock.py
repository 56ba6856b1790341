"""The lock on a store's folder: one service at a time may use it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from engine.errors import OutputError
from stream.permissions import same_file

LOCK = "events.lock"


class FolderLock:
    """Held from its creation, which creates the folder if needed, until `release` or the end of the process, however it ends.
    Raises OutputError where another service holds it.

    A second lock, on a temporary file named by a hash of the folder's path, is still held after the folder was removed; where
    that file cannot be created there is only the first.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._handle = _locked(folder)
        try:
            self._by_path = _locked_by_path(folder)
        except BaseException:
            os.close(self._handle)
            raise

    def renew(self) -> None:
        """Lock the folder again where its lock, or the folder, was removed. Raises OutputError."""
        if not same_file(self._path, self._handle):
            handle = _locked(self._path.parent)
            os.close(self._handle)
            self._handle = handle

    def release(self) -> None:
        """Let others use the folder; may be called more than once."""
        if self._by_path is not None:
            handle, path = self._by_path
            self._by_path = None
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _locked(folder: Path) -> int:
    """The handle of the locked file in folder. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise OutputError(f"{folder} cannot keep events: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise OutputError(f"{str(folder)!r} cannot keep events: no folder has such a name ({error})") from error
    try:
        _lock(handle, folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be locked: {(error.strerror or str(error)).lower()}; use a local folder") from error
    return handle


def _lock(handle: int, folder: Path) -> None:
    """Lock an open file, or close it and raise: OutputError where another service has locked it, else OSError."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise OutputError(f"{folder} is in use by another service; stop that one or choose another folder") from error
        raise


def _locked_by_path(folder: Path) -> tuple[int, Path] | None:
    """The handle and path of the locked temporary file; None where it cannot be created. Raises OutputError."""
    place = Path(tempfile.gettempdir()) / f"apexstream-{os.getuid()}"
    path = place / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.lock"
    while True:
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            owned = place.lstat()
            if not stat.S_ISDIR(owned.st_mode) or owned.st_uid != os.getuid():
                return None
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            _lock(handle, folder)
        except OSError:
            return None
        if same_file(path, handle):
            return handle, path
        os.close(handle)  # another process removed the file between opening and locking
