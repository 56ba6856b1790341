"""Files with secrets or people's data: warn where every user of the machine can use one; tighten the service's own."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

log = logging.getLogger(__name__)


def kept_private(path: Path) -> None:
    """Take from all other users of this machine what they may do with a file of the service's own, and warn of it.

    The rights of owner and group are left as they are. Another user's file is not changed, only warned of; nothing happens
    where there is no such file.
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
        log.warning("%s can be used by every user of this machine (mode %04o) and stays so: %s", path, mode, reason)
    else:
        log.warning("%s could be used by every user of this machine (mode %04o); that was taken from them", path, mode)


def warn_if_open(path: Path) -> None:
    """Warn of a file with a secret that every user of this machine can use; its mode is left as somebody set it."""
    mode = _open_mode(path)
    if mode is not None:
        log.warning("%s holds a secret, and every user of this machine can use it (mode %04o); chmod o= ends that", path, mode)


def _open_mode(path: Path) -> int | None:
    """The mode of a file that every user of this machine may read or write; None for others, and where there is none."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
    return mode if mode & stat.S_IRWXO else None


def same_file(path: Path, handle: int) -> bool:
    """Whether path still names the file that the handle has open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False
