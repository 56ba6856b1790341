"""Permissions of files with secrets or personal data: warn where every user of the machine has access, or remove it."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

log = logging.getLogger(__name__)


def make_private(path: Path) -> None:
    """Remove the access of users other than owner and group to a file of the service, with a warning.

    Another user's file is not changed; the warning says so. Nothing happens where there is no such file.
    """
    mode = _open_mode(path)
    if mode is None:
        return
    try:
        if path.stat().st_uid != os.geteuid():
            raise PermissionError("it is another user's")
        path.chmod(mode & ~stat.S_IRWXO)
    except OSError as error:
        reason = error.strerror or str(error)
        log.warning("%s can be used by every user of this machine (mode %04o), which cannot be changed: %s", path, mode, reason)
    else:
        log.warning("%s could be used by every user of this machine (mode %04o); their access was removed", path, mode)


def warn_if_open(path: Path) -> None:
    """Warn of a file with a secret that every user of this machine can use; its mode is not changed."""
    mode = _open_mode(path)
    if mode is not None:
        log.warning("%s holds a secret, and every user of this machine can use it (mode %04o); run chmod o= on it", path, mode)


def _open_mode(path: Path) -> int | None:
    """The mode of a file that every user of this machine can use; None for other files, and where there is none."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
    return mode if mode & stat.S_IRWXO else None


def same_file(path: Path, opened: int | os.stat_result) -> bool:
    """Whether path still names the opened file, given by its handle or by its state when it was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(opened) if isinstance(opened, int) else opened)
    except OSError:
        return False
