"""Files that hold what is not everybody's: seen to be their owner's alone."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

log = logging.getLogger(__name__)


def kept_private(path: Path) -> None:
    """Take a file from everybody but its owner where all of this machine's users may read or write it, and warn of it.

    Rights of a group alone are left: somebody gave them. Nothing happens where there is no such file.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if not mode & stat.S_IRWXO:
        return
    try:
        path.chmod(mode & stat.S_IRWXU)
    except OSError as error:
        log.warning(
            "%s can be used by every user of this machine (mode %04o) and that cannot be changed: %s", path, mode, error
        )
    else:
        log.warning("%s could be used by every user of this machine (mode %04o); now by its owner alone", path, mode)


def same_file(path: Path, handle: int) -> bool:
    """Whether path still names the file that the handle has open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False
