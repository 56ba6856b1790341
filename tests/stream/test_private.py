from __future__ import annotations

import os
from pathlib import Path

import pytest

from stream.private import kept_private, same_file


@pytest.mark.parametrize(("mode", "left"), [(0o644, 0o600), (0o666, 0o600), (0o604, 0o600), (0o640, 0o640), (0o600, 0o600)])
def test_what_everybody_may_read_becomes_its_owners(
    mode: int, left: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text("word")
    path.chmod(mode)
    kept_private(path)
    assert path.stat().st_mode & 0o777 == left
    assert ("could be used by every user of this machine" in caplog.text) is (mode != left)


def test_a_file_that_is_not_there_is_nobodys(tmp_path: Path) -> None:
    kept_private(tmp_path / "none")


def test_one_that_cannot_be_changed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError("not yours")

    path = tmp_path / "token"
    path.write_text("word")
    path.chmod(0o644)
    monkeypatch.setattr(Path, "chmod", refuse)
    kept_private(path)
    assert "cannot be changed: not yours" in caplog.text


def test_a_file_is_itself_until_it_is_removed_or_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        assert same_file(path, handle)
        path.rename(tmp_path / "elsewhere")
        assert not same_file(path, handle)
        path.write_text("another")
        assert not same_file(path, handle)
    finally:
        os.close(handle)
    assert not same_file(path, -1)
