from __future__ import annotations

import os
from pathlib import Path

import pytest

from stream.permissions import make_private, same_file, warn_if_open


def written(folder: Path, mode: int) -> Path:
    path = folder / "token"
    path.write_text("word")
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("mode", "left"), [(0o644, 0o640), (0o664, 0o660), (0o666, 0o660), (0o604, 0o600), (0o640, 0o640), (0o600, 0o600)]
)
def test_only_other_users_lose_access(mode: int, left: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, mode)
    make_private(path)
    assert mode_of(path) == left
    assert ("could be used by every user of this machine" in caplog.text) is (mode != left)


def test_another_users_file_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, 0o644)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    make_private(path)
    assert mode_of(path) == 0o644 and "it is another user's" in caplog.text


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False)])
def test_an_open_secret_gives_a_warning_and_keeps_its_mode(
    mode: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, mode)
    warn_if_open(path)
    assert mode_of(path) == mode and ("every user of this machine can use it" in caplog.text) is warned


def test_a_missing_file_is_no_error(tmp_path: Path) -> None:
    make_private(tmp_path / "none")
    warn_if_open(tmp_path / "none")


def test_a_mode_that_cannot_be_changed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError("not yours")

    path = written(tmp_path, 0o644)
    monkeypatch.setattr(Path, "chmod", refuse)
    make_private(path)
    assert "cannot be changed: not yours" in caplog.text


def test_a_file_is_the_same_until_it_is_moved_or_replaced(tmp_path: Path) -> None:
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
