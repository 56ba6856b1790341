from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from stream.recorded.folders.finding import Found, find_videos, shows_pictures, skipped
from tests.videos import stepping, write_video


def places(found: Found) -> list[str]:
    return [video.place.as_posix() for video in found.videos]


def filled(path: Path, content: bytes = b"content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_videos_are_found_by_their_endings_in_the_order_of_their_places(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.mkv", "notes.txt", "sound.wav", "s1/c.avi", "s1/deep/d.webm", "s10/e.mov", "s1.mp4"):
        filled(tmp_path / name)
    shallow = find_videos([tmp_path])
    assert (places(shallow), shallow.folders, shallow.other) == (["a.mkv", "b.MP4", "s1.mp4"], 2, 2)
    deep = find_videos([tmp_path], recursive=True)
    assert places(deep) == ["a.mkv", "b.MP4", "s1/c.avi", "s1/deep/d.webm", "s1.mp4", "s10/e.mov"]
    assert deep.videos[2].path == tmp_path / "s1" / "c.avi"
    assert {video.size for video in deep.videos} == {7}


def test_hidden_and_empty_files_are_counted(tmp_path: Path) -> None:
    for name in ("._clip.mp4", ".hidden/clip.mp4", ".DS_Store", "a.mp4"):
        filled(tmp_path / name)
    filled(tmp_path / "empty.mp4", b"")
    found = find_videos([tmp_path], recursive=True)
    assert (places(found), found.hidden, found.empty) == (["a.mp4"], 3, [tmp_path / "empty.mp4"])
    assert list(skipped(found)) == ["3 hidden files or folders", f"1 empty file ({tmp_path / 'empty.mp4'})"]


def test_files_of_ambiguous_endings_are_opened(tmp_path: Path) -> None:
    filled(tmp_path / "program.ts", b"export const a = 1;\n" * 50)
    filled(tmp_path / "noise.dat", bytes(range(256)) * 8)
    write_video(tmp_path / "clip.ts", stepping(64, 48, 5))
    write_video(tmp_path / "clip.mkv", stepping(64, 48, 5)).rename(tmp_path / "without_ending")
    found = find_videos([tmp_path])
    assert (places(found), found.other) == (["clip.ts", "without_ending"], 2)


def test_a_picture_is_no_video(tmp_path: Path) -> None:
    assert not shows_pictures(write_video(tmp_path / "a.jpg", stepping(64, 48, 1), codec="mjpeg", pix_fmt="yuvj420p"))


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    filled(tmp_path / "s1" / "a.mp4")
    (tmp_path / "s1" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "s0").symlink_to(tmp_path / "s1", target_is_directory=True)
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    found = find_videos([tmp_path], recursive=True)
    assert places(found) == ["s1/a.mp4"], "a video has the place of its own folder, not that of a link"
    assert sorted(found.repeated) == [tmp_path / "s0", tmp_path / "s1" / "up"]
    assert found.unreadable == [
        f"{tmp_path / 'gone.mp4'} cannot be read: no such file or directory",
        f"{tmp_path / 'loop.mp4'} cannot be read: too many levels of symbolic links",
    ]
    assert found.other == 1


def test_links_to_other_places_are_followed(tmp_path: Path) -> None:
    filled(tmp_path / "elsewhere" / "a.mp4")
    filled(tmp_path / "b.mp4")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "disk").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "videos" / "b.mp4").symlink_to(tmp_path / "b.mp4")
    assert places(find_videos([tmp_path / "videos"], recursive=True)) == ["b.mp4", "disk/a.mp4"]


def test_results_are_not_searched_for_videos(tmp_path: Path) -> None:
    filled(tmp_path / "a.mp4")
    filled(tmp_path / "out" / "x.mp4")
    for name in ("summary.json", "events.jsonl", "annotated.mp4"):
        filled(tmp_path / "other" / "clip" / name)
    found = find_videos([tmp_path], recursive=True, out=tmp_path / "out")
    assert (places(found), found.results) == (["a.mp4"], 2)


def test_results_may_be_written_among_the_videos(tmp_path: Path) -> None:
    filled(tmp_path / "a.mp4")
    for name in ("summary.json", "events.jsonl", "annotated.mp4"):
        filled(tmp_path / "a" / name)
    assert places(find_videos([tmp_path], recursive=True, out=tmp_path)) == ["a.mp4"]


def test_several_folders_and_files(tmp_path: Path) -> None:
    for name in ("a/x.mp4", "b/x.mp4", "c/notes.txt"):
        filled(tmp_path / name)
    found = find_videos([tmp_path / "b", tmp_path / "a", tmp_path / "c" / "notes.txt", tmp_path / "none.mp4"])
    assert places(found) == ["b/x.mp4", "a/x.mp4", "notes.txt", "none.mp4"], "what is named itself is taken, whatever it is"


def test_what_is_no_plain_file_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    found = find_videos([tmp_path])
    assert (places(found), found.other) == ([], 1)


def test_a_folder_that_cannot_be_searched_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "closed" / "a.mp4")
    filled(tmp_path / "b.mp4")
    scandir = os.scandir

    def denied(path: Path) -> Any:
        if path.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)  # as root may search everything
    found = find_videos([tmp_path], recursive=True)
    assert places(found) == ["b.mp4"]
    assert found.unreadable == [f"{tmp_path / 'closed'} cannot be searched: permission denied"]


def test_what_may_not_be_looked_at_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that may be listed, but not entered."""
    for name in ("closed/a.mp4", "closed/notes.txt", "b.mp4"):
        filled(tmp_path / name)
    status = os.stat

    def denied(path: Any, **options: Any) -> os.stat_result:
        if Path(path).parent.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return status(path, **options)

    monkeypatch.setattr(os, "stat", denied)
    found = find_videos([tmp_path], recursive=True, out=tmp_path / "closed" / "out")
    assert (places(found), found.other) == (["b.mp4"], 1)
    assert found.unreadable == [f"{tmp_path / 'closed' / 'a.mp4'} cannot be read: permission denied"]
    assert places(find_videos([tmp_path / "closed" / "a.mp4"])) == ["a.mp4"], "its analysis says why it cannot be opened"


def test_a_link_in_a_circle_that_is_named_is_taken(tmp_path: Path) -> None:
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    assert places(find_videos([tmp_path / "loop.mp4"], out=tmp_path / "out")) == ["loop.mp4"]
