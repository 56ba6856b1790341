from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import OutputError
from stream.events.lock import LOCK, FolderLock


def test_two_services_cannot_share_a_folder(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(OutputError, match="in use by another service"):
        FolderLock(tmp_path)
    lock.release()
    lock.release()
    FolderLock(tmp_path).release()


@pytest.mark.parametrize("harm", [shutil.rmtree, lambda folder: (folder / LOCK).unlink()])
def test_no_second_service_starts_where_the_lock_or_the_folder_was_removed(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "events"
    lock = FolderLock(folder)
    for renew in (lambda: None, lock.renew):
        harm(folder)
        renew()
        with pytest.raises(OutputError, match="in use by another service"):
            FolderLock(folder)
    lock.release()
    FolderLock(folder).release()


def test_a_folder_of_an_impossible_name_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder has such a name"):
        FolderLock(tmp_path / "a\0b")


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot keep events"):
        FolderLock(tmp_path / "file" / "folder")
