"""Long videos with annotated micro- and macro-expressions, from a database's pictures or from published region flow.

Region flow is the motion of twelve facial regions from frame to frame, as measured for AUW-GCN on CAS(ME)^2 and SAMM-LV:
NAME.npz with one array [frames, 12, 2] a video and NAME.csv with its expressions. Both forms call subjects and videos alike.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from engine.errors import InputError
from engine.types import F32
from training.datasets.clips import find_table
from training.datasets.long_tables import LONG_DATABASES, Annotation, LongDatabase, LongTable
from training.datasets.pictures import ClipFolder, PictureFolders, best
from training.datasets.tables import Row

REGIONS = 12
"""Regions of the published flow: left brow 0-2, right brow 3-5, nose 6-7, mouth 8-11 (corner, upper lip, corner, lower lip)."""

UNIT_PX = 20.0
"""Pixels of the authors' face crop in one unit of the published flow."""

_CSV_COLUMNS = ("video", "type", "onset", "apex", "offset")


@dataclass(frozen=True, eq=False)
class LongVideo:
    """One video and its true expressions.

    source is the motion [frames, 12, 2] float32 (u, v) of the regions from the frame before, in pixels of a face crop, or the
    folder of its pictures. Frames of truth are rows of the one or numbers of the other; fps of them make a second.
    """

    database: str
    subject: str
    name: str
    fps: float
    source: F32 | ClipFolder
    truth: tuple[Annotation, ...]


@dataclass(frozen=True, eq=False)
class LongVideos:
    """The videos of one database. absent are videos that the table names and the folder lacks; left_out says of each row that
    cannot be judged why."""

    database: LongDatabase
    videos: tuple[LongVideo, ...]
    absent: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def has_pictures(self) -> bool:
        """Whether the videos are pictures, not region flow."""
        return isinstance(self.videos[0].source, ClipFolder)

    @property
    def summary(self) -> str:
        """What there is, in one line."""
        kinds = [truth.kind for video in self.videos for truth in video.truth]
        form = "pictures" if self.has_pictures else "region flow"
        people = len({video.subject for video in self.videos})
        held = f"{len(self.videos)} videos ({form}) of {people} subjects, {kinds.count('micro')} micro- and "
        return f"{self.database.title}: {held}{kinds.count('macro')} macro-expressions"


def load(database: str, folder: Path, annotations: Path | None = None) -> LongVideos:
    """The long videos in a folder: region flow where it holds that database's (`.npz`), else pictures at any depth.

    annotations is the database's table. Where it is None, the one of the pictures is looked for in folder (two deep, and beside
    it), and region flow has its own (`.csv`). Raises InputError for an unknown database, a folder without either, or a table or
    flow that cannot be read.
    """
    chosen = LONG_DATABASES.get(database.casefold())
    if chosen is None:
        raise InputError(f"there is no database of long videos {database!r}; choose {', '.join(LONG_DATABASES)}")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; {chosen.title} is expected there, as pictures or region flow")
    if (folder / f"{chosen.name}.npz").is_file():
        return load_flow(chosen, folder, annotations)
    return load_pictures(chosen, folder, annotations)


def load_flow(database: LongDatabase, folder: Path, annotations: Path | None = None) -> LongVideos:
    """Region flow, without the zeros that pad a video's end; its expressions are those published with it, or the table's.

    Raises InputError.
    """
    if database.flow_fps is None:
        raise InputError(f"there is no published region flow of {database.title}; name the folder of its pictures")
    table = LongTable(_flow_truth(database, folder / f"{database.name}.csv"))
    if annotations is not None:
        table = database.read(annotations)
        step = database.fps / database.flow_fps
        table = replace(table, truth={place: _every(held, step) for place, held in table.truth.items()})
    truth = dict(table.truth)
    videos = []
    for written, motion in _flow_arrays(folder / f"{database.name}.npz").items():
        place = _flow_place(database, written, folder / f"{database.name}.npz")
        held = truth.pop(place, ())
        videos.append(LongVideo(database.name, *place, database.flow_fps, _unpadded(motion, held), held))
    absent = tuple(name for _, name in truth)
    return _checked(LongVideos(database, tuple(videos), absent, table.left_out), folder)


def load_pictures(database: LongDatabase, folder: Path, annotations: Path | None = None) -> LongVideos:
    """Pictures below a folder and their table. Videos that the table does not name hold no expression. Raises InputError."""
    table = database.read(annotations or find_table(database, folder))
    truth = {(subject.casefold(), name.casefold()): held for (subject, name), held in table.truth.items()}
    wanted = {(subject.casefold(), name.casefold()): name for subject, name in table.truth}
    folders: dict[tuple[str, str], list[ClipFolder]] = {}
    for each in PictureFolders(folder, database):
        place = database.identify(each.path.as_posix())
        if place is not None:
            folders.setdefault(place, []).append(each)
    videos = []
    for (subject, name), same in sorted(folders.items()):
        key = subject.casefold(), name.casefold()
        wanted.pop(key, None)
        source = best(name, same)
        if source.cropped:
            raise InputError(f"{source.path} holds cropped pictures; the videos as they were recorded are needed")
        videos.append(LongVideo(database.name, subject, name, database.fps, source, truth.get(key, ())))
    return _checked(LongVideos(database, tuple(videos), tuple(sorted(wanted.values())), table.left_out), folder)


def _checked(found: LongVideos, folder: Path) -> LongVideos:
    if not found.videos:
        raise InputError(f"no video of {found.database.title} is below {folder}; {found.database.example} is expected")
    return found


def _flow_place(database: LongDatabase, written: str, path: Path) -> tuple[str, str]:
    """Subject and video of a name such as casme_015_0101."""
    place = database.identify(written.split("_", 1)[-1])
    if place is None:
        raise InputError(f"{path} holds {written!r}, which names no video of {database.title}")
    return place


def _every(held: tuple[Annotation, ...], step: float) -> tuple[Annotation, ...]:
    """Expressions in rows of a flow that was measured on one picture in so many."""
    return tuple(
        replace(
            one,
            onset=int(one.onset // step),
            apex=None if one.apex is None else int(one.apex // step),
            offset=int(one.offset // step),
        )
        for one in held
    )


def _flow_truth(database: LongDatabase, path: Path) -> dict[tuple[str, str], tuple[Annotation, ...]]:
    out: dict[tuple[str, str], list[Annotation]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise InputError(f"the expressions of the region flow, {path}, cannot be read: {cause}") from cause
    for number, cells in enumerate(rows, start=2):
        row = Row(f"{path}, row {number}", {column: (cells.get(column) or "").strip() for column in _CSV_COLUMNS})
        out.setdefault(_flow_place(database, row.text("video"), path), []).append(_flow_annotation(row))
    return {place: tuple(sorted(held, key=lambda one: (one.onset, one.offset))) for place, held in out.items()}


def _flow_annotation(row: Row) -> Annotation:
    onset, apex, offset, kind = row.frame("onset"), row.frame("apex"), row.frame("offset"), row.text("type")
    if not 0 <= onset <= offset:
        raise InputError(f"{row.where}: an expression ends after it starts, not {onset} to {offset}")
    if kind == "micro":
        return Annotation(onset, apex if apex >= 0 else None, offset, "micro")
    if kind == "macro":
        return Annotation(onset, apex if apex >= 0 else None, offset, "macro")
    raise InputError(f"{row.where}: an expression is micro or macro, not {kind!r}")


def _flow_arrays(path: Path) -> Mapping[str, F32]:
    """Motion in pixels by the videos' written names."""
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (OSError, ValueError, EOFError, BadZipFile) as cause:
        raise InputError(f"the region flow {path} cannot be read: {cause}") from cause
    for name, array in arrays.items():
        if array.ndim != 3 or array.shape[1:] != (REGIONS, 2) or array.dtype.kind != "f":
            raise InputError(f"{path}: {name} is {array.dtype} {list(array.shape)}; float [frames, {REGIONS}, 2] is expected")
    return {name: np.asarray(array, np.float32) * np.float32(UNIT_PX) for name, array in arrays.items()}


def _unpadded(motion: F32, truth: tuple[Annotation, ...]) -> F32:
    """The frames up to the last with any motion, and to the last expression's end."""
    moving = np.flatnonzero(motion.any((1, 2)))
    last = max([int(moving[-1]) if len(moving) else 0, *(each.offset for each in truth)])
    return np.ascontiguousarray(motion[: last + 1])
