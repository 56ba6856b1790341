"""Pictures on disk: which folder holds a clip, which picture has which number, and reading one whole.

Folders are found by the end of their path, case aside, wherever they lie below the root. A picture's number is the last
integer in its name. Cropped releases call their pictures reg_...; the folders of SMIC's short clips, .../micro/<class>/<clip>,
contain only the expression and number pictures differently from the table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import InputError
from engine.types import U8
from training.datasets.clips import Clip, Release

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
FORMATS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")
"""First bytes of picture files."""


@dataclass(frozen=True)
class ClipFolder:
    """The folder with a clip's pictures: cropped to the face, and whether it holds just the expression."""

    path: Path
    cropped: bool
    just_expression: bool

    def numbered(self) -> dict[int, Path]:
        """The pictures by the number in their names, rising.

        Raises InputError where two have one number, or the folder cannot be read.
        """
        try:
            held = [path.name for path in self.path.iterdir()]
        except OSError as cause:
            raise InputError(f"the folder {self.path} cannot be read: {cause.strerror}") from cause
        out: dict[int, Path] = {}
        for name in sorted(_pictures(held)):
            found = re.findall(r"\d+", Path(name).stem)
            if not found:
                continue
            number = int(found[-1])
            if number in out:
                raise InputError(f"{self.path} holds two pictures of number {number}: {out[number].name} and {name}")
            out[number] = self.path / name
        return dict(sorted(out.items()))


class PictureFolders:
    """All folders below a root that directly hold pictures, links followed. Raises InputError where there are none."""

    def __init__(self, root: Path, database: Release) -> None:
        self._root = root.resolve()
        self._closed: list[str] = []
        self._by_name: dict[str, list[tuple[tuple[str, ...], ClipFolder]]] = {}
        ignored = re.compile(database.ignored, re.IGNORECASE) if database.ignored else None
        for place, names in _folders(self._root, ignored, self._note):
            first = next(_pictures(names), None)
            if first is not None:
                self._add(place, first)
        if not self._by_name:
            raise InputError(
                f"there is no picture below {root}; {database.title} is expected as {database.example}{self._unread()}"
            )

    def _note(self, error: OSError) -> None:
        self._closed.append(f"{error.filename} cannot be read: {error.strerror}")

    def _unread(self) -> str:
        more = f", nor can {len(self._closed) - 1} more" if len(self._closed) > 1 else ""
        return f"; {self._closed[0]}{more}" if self._closed else ""

    def _add(self, path: Path, first: str) -> None:
        just_expression = len(path.parts) > 2 and path.parts[-3].casefold() == "micro"
        folder = ClipFolder(path, first.casefold().startswith("reg_"), just_expression)
        ending = tuple(_plain(part) for part in path.parts)
        self._by_name.setdefault(ending[-1], []).append((ending, folder))

    def __iter__(self) -> Iterator[ClipFolder]:
        return (folder for same in self._by_name.values() for _, folder in same)

    def find(self, clip: Clip) -> ClipFolder:
        """The folder of a clip: uncropped before cropped, numbered as the table before just the expression.

        Raises InputError where there is none, or two of one kind.
        """
        for choice, ending in enumerate(clip.folders):
            wanted = tuple(_plain(part) for part in ending.split("/"))
            fitting = [folder for parts, folder in self._by_name.get(wanted[-1], []) if parts[-len(wanted) :] == wanted]
            if choice:  # the clip that this expression is a part of: its frames must be those of the table
                fitting = [folder for folder in fitting if not folder.just_expression]
            if clip.onset is None:
                fitting = [folder for folder in fitting if folder.just_expression]
            if fitting:
                return best(clip.name, fitting)
        missing = f"there is no folder {' or '.join(clip.folders)} with pictures below {self._root}"
        without = "; the table has no frames for it, only a folder of just this expression will do"
        raise InputError(f"{missing}{without if clip.onset is None else ''}{self._unread()}")


def best(name: str, folders: Sequence[ClipFolder]) -> ClipFolder:
    """Of the folders that hold what is called name, the one with whole pictures. InputError where two are equally good."""

    def rank(folder: ClipFolder) -> tuple[bool, bool]:
        return folder.cropped, folder.just_expression

    first = min(folders, key=rank)
    rivals = list({folder.path.resolve(): folder.path for folder in folders if rank(folder) == rank(first)}.values())
    if len(rivals) > 1:
        raise InputError(f"two folders hold {name}, {rivals[0]} and {rivals[1]}; name a root that holds one of them")
    return first


def _folders(
    root: Path, ignored: re.Pattern[str] | None, closed: Callable[[OSError], None]
) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from root downwards with its files' names; closed is called for those that cannot be read.

    A link is followed like a folder, unless it leads to a folder above it.
    """
    within: dict[str, tuple[Path, ...]] = {str(root): (root.resolve(),)}
    for place, folders, names in os.walk(root, onerror=closed, followlinks=True):
        above, kept = within.pop(place), []
        for name in sorted(folders):
            path = Path(place) / name
            if name.startswith(".") or (ignored and ignored.search(name)) or (real := path.resolve()) in above:
                continue
            within[str(path)] = (*above, real)
            kept.append(name)
        folders[:] = kept
        yield Path(place), names


def _pictures(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))


def _plain(part: str) -> str:
    """A folder's name without case and without leading zeros of a subject: S03 and s3 are one."""
    return re.sub(r"^s0+(?=\d)", "s", part.casefold())


def read_picture(path: Path) -> U8:
    """[H, W, 3] RGB. Raises InputError where the file cannot be read, is no picture, or ends too early."""
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise InputError(f"the picture {path} cannot be read: {cause.strerror}") from cause
    picture = decoded(data)
    if picture is None:
        raise InputError(f"{path} is no picture (JPEG, PNG or BMP)")
    if _cut_short(data):
        raise InputError(f"the picture {path} ends too early; copy it again")
    return picture


def decoded(data: bytes) -> U8 | None:
    """[H, W, 3] RGB; None for what is no JPEG, PNG or BMP.

    OpenCV goes by content, not by name, and knows many formats that no database has; its decoders of those, JPEG 2000 with
    CVE-2025-53644 among them, are never called.
    """
    if not data.startswith(FORMATS):
        return None
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # a header that asks for more than there can be
        return None
    return None if picture is None else np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _cut_short(data: bytes) -> bool:
    """Whether the file's end is missing, which OpenCV only warns of: it fills what is missing with grey."""
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-4096:]
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-4096:]
    return data.startswith(b"BM") and int.from_bytes(data[2:6], "little") > len(data)
