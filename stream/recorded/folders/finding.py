"""Videos in folders: by the endings of their names, where these are ambiguous by opening them."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from engine.errors import SourceError

VIDEO_ENDINGS = frozenset(
    {
        *("3g2", "3gp", "asf", "avi", "dav", "divx", "dv", "f4v", "flv", "h264", "h265", "hevc", "m1v", "m2ts", "m2v", "m4v"),
        *("mjpeg", "mjpg", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mpv", "mxf", "nut", "ogm", "ogv", "qt", "rm", "rmvb"),
        *("vob", "webm", "wmv", "y4m"),
    }
)
"""Endings of names that only videos have, in small letters."""
AMBIGUOUS_ENDINGS = frozenset(("", "dat", "mod", "mts", "tod", "ts"))
"""Endings that videos share with other files, such as programs in TypeScript: these files are opened to see."""
RESULTS = "summary.json"
"""A folder with this file and events.jsonl holds results of an analysis; videos in it are not searched for."""


@dataclass(frozen=True)
class FoundVideo:
    """A video: where to open it, its place relative to the folder that was searched (of a file that was named itself: its
    name), its size in bytes."""

    path: Path
    place: PurePosixPath
    size: int


@dataclass
class Found:
    """What a search found: videos in the order of their places; of the rest how many there are, or which.

    other: files that are no videos. hidden: files and folders whose names begin with a dot. results: folders with results of an
    analysis. folders: those that were not searched because the search was not to go deeper. repeated: links to what is found
    elsewhere or leads in a circle. empty: files of 0 bytes. unreadable: sentences on what could not be looked at.
    """

    videos: list[FoundVideo] = field(default_factory=list)
    other: int = 0
    hidden: int = 0
    results: int = 0
    folders: int = 0
    repeated: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def find_videos(arguments: Iterable[Path], *, recursive: bool = False, out: Path | None = None) -> Found:
    """The videos that arguments name: files as they are, whatever they are, and the videos in folders.

    The places of videos are relative to the folder they were searched in; with several arguments, they begin with its name. The
    folder out is not searched, unless it is an argument itself; results in it are then left out.
    """
    arguments, found = list(arguments), Found()
    if out is not None and any(os.path.realpath(argument) == os.path.realpath(out) for argument in arguments):
        out = None
    search = _Search(found, recursive, out)
    for argument in arguments:
        if _is_folder(argument):
            name = argument.resolve().name
            search.folder(argument, PurePosixPath(name) if len(arguments) > 1 and name else PurePosixPath())
        else:
            found.videos.append(FoundVideo(argument, PurePosixPath(argument.name), _size(argument)))
    return found


class _Search:
    """Links to folders are followed last, so that what has a place of its own is found there."""

    def __init__(self, found: Found, recursive: bool, out: Path | None) -> None:
        self._found, self._recursive = found, recursive
        self._out = None if out is None or not _is_folder(out) else _identity(out.stat())
        self._seen: set[tuple[int, int]] = set()

    def folder(self, path: Path, place: PurePosixPath) -> None:
        """Add what is in a folder, and in those below it where the search is recursive."""
        before = len(self._found.videos)
        links: deque[tuple[Path, PurePosixPath]] = deque([(path, place)])
        while links:
            folders = deque([links.popleft()])
            while folders:
                at, of = folders.popleft()
                for entry in self._entries(at):
                    self._add(entry, of / entry.name, folders, links)
        self._found.videos[before:] = sorted(self._found.videos[before:], key=lambda video: video.place)

    def _entries(self, path: Path) -> list[os.DirEntry[str]]:
        """What is in a folder, sorted by name; nothing where it was searched before or must not be."""
        try:
            identity = _identity(path.stat())
            if identity in self._seen:
                self._found.repeated.append(path)
                return []
            self._seen.add(identity)
            if identity == self._out:
                self._found.results += 1
                return []
            with os.scandir(path) as entries:
                content = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._found.unreadable.append(f"{path} cannot be searched: {(error.strerror or str(error)).lower()}")
            return []
        if {RESULTS, "events.jsonl"} <= {entry.name for entry in content}:
            self._found.results += 1
            return [entry for entry in content if _is_folder(Path(entry.path))]  # folders in it may be results, too
        return content

    def _add(
        self,
        entry: os.DirEntry[str],
        place: PurePosixPath,
        folders: deque[tuple[Path, PurePosixPath]],
        links: deque[tuple[Path, PurePosixPath]],
    ) -> None:
        path = Path(entry.path)
        if entry.name.startswith("."):
            self._found.hidden += 1
        elif _is_folder(path):
            if self._recursive:
                (links if entry.is_symlink() else folders).append((path, place))
            else:
                self._found.folders += 1
        else:
            self._add_file(path, place)

    def _add_file(self, path: Path, place: PurePosixPath) -> None:
        ending = path.suffix.removeprefix(".").lower()
        if ending not in VIDEO_ENDINGS and ending not in AMBIGUOUS_ENDINGS:
            self._found.other += 1
            return
        try:
            facts = path.stat()
        except OSError as error:  # a link that leads nowhere
            if ending in VIDEO_ENDINGS:
                self._found.unreadable.append(f"{path} cannot be read: {(error.strerror or str(error)).lower()}")
            else:
                self._found.other += 1
            return
        if not stat.S_ISREG(facts.st_mode):
            self._found.other += 1
        elif not facts.st_size:
            self._found.empty.append(path)
        elif ending in AMBIGUOUS_ENDINGS and not shows_pictures(path):
            self._found.other += 1
        else:
            self._found.videos.append(FoundVideo(path, place, facts.st_size))


def shows_pictures(path: Path) -> bool:
    """Whether a file opens as a video of more than one picture."""
    from stream.sources.file import open_video  # here, as it loads the decoder

    try:
        with open_video(path) as source:
            return (source.expected_frames or 0) > 1
    except SourceError:
        return False


def _is_folder(path: Path) -> bool:
    """False, too, where that cannot be seen."""
    with suppress(OSError):
        return path.is_dir()
    return False


def _size(path: Path) -> int:
    """Of a plain file that can be seen; else 0."""
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def skipped(found: Found) -> Iterator[str]:
    """What was found besides videos, in words: counts, and names where there are few."""
    for number, one, many in (
        (found.other, "other file", "other files"),
        (found.hidden, "hidden file or folder", "hidden files or folders"),
        (found.results, "folder of results", "folders of results"),
    ):
        if number:
            yield f"{number} {one if number == 1 else many}"
    for paths, one, many in (
        (found.empty, "empty file", "empty files"),
        (found.repeated, "link to a folder that was searched already", "links to folders that were searched already"),
    ):
        if paths:
            shown = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
            yield f"{len(paths)} {one if len(paths) == 1 else many} ({shown})"
