"""A task: one video to be analysed, and the folder of its results."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from stream.recorded.folders.finding import FoundVideo
from stream.recorded.folders.records import belongs

TABLE, INDEX = "summary.csv", "index.html"
"""The table over all videos and its page, in the output folder: names that no folder of results takes."""


@dataclass(frozen=True)
class Task:
    """One video to be analysed. Can be sent to another process.

    name is the folder of its results relative to the output folder, with / between names; it names the events' source, too, so
    that ids of events differ between videos. size is in bytes. reason says why the video is analysed, "" for a new one.
    """

    video: Path
    name: str
    folder: Path
    size: int
    reason: str = ""


def make_tasks(videos: Sequence[FoundVideo], out: Path) -> list[Task]:
    """A task for each video, in order, with folders below out that mirror those of the videos.

    A video's folder is called like the video without its ending; with it where several videos in a folder would have the same
    name, or a folder has it; and numbered where that is not enough. Upper and lower case make no difference. Results of an
    earlier run keep their folder, and those of other videos are never replaced.
    """
    names = _Names(out, videos)
    tasks = []
    for found in videos:
        name = names.of(found)
        tasks.append(Task(found.path, name.as_posix(), out / name, found.size))
    return tasks


class _Names:
    """Which names are taken in each folder below out, by their keys; folders of videos take theirs first."""

    def __init__(self, out: Path, videos: Sequence[FoundVideo]) -> None:
        self._out = out
        self._taken: dict[PurePosixPath, set[str]] = {PurePosixPath(): {_key(name) for name in (TABLE, INDEX)}}
        self._folders: dict[PurePosixPath, PurePosixPath] = {PurePosixPath(): PurePosixPath()}
        self._stems = Counter((found.place.parent, _key(_stem(found.place))) for found in videos)
        for parent in sorted({found.place.parent for found in videos}):
            self._folder(parent)

    def of(self, found: FoundVideo) -> PurePosixPath:
        """The folder of a video's results, relative to out."""
        parent, stem, name = self._folder(found.place.parent), _stem(found.place), found.place.name.strip(".")
        shared = self._stems[found.place.parent, _key(stem)] > 1
        for candidate in (stem, name):
            if self._is_free(parent, candidate) and belongs(self._out / parent / candidate, found.path):
                return self._take(parent, candidate)
        for candidate in chain([] if shared else [stem], _numbered(name)):
            if self._is_free(parent, candidate) and belongs(self._out / parent / candidate, found.path) is not False:
                return self._take(parent, candidate)
        raise AssertionError("numbers end never")

    def _folder(self, place: PurePosixPath) -> PurePosixPath:
        """The folder below out that mirrors a folder of videos."""
        if place not in self._folders:
            parent = self._folder(place.parent)
            for candidate in _numbered(place.name):
                if self._is_free(parent, candidate) and belongs(self._out / parent / candidate, None) is None:
                    self._folders[place] = self._take(parent, candidate)
                    break
        return self._folders[place]

    def _is_free(self, parent: PurePosixPath, name: str) -> bool:
        return _key(name) not in self._taken.setdefault(parent, set())

    def _take(self, parent: PurePosixPath, name: str) -> PurePosixPath:
        self._taken[parent].add(_key(name))
        return parent / name


def _stem(place: PurePosixPath) -> str:
    return place.stem.strip(".") or "video"


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _key(name: str) -> str:
    """The same for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", name).casefold()
