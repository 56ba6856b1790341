"""The content of annotation tables: clips of the three classes, and everything that is left out, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.errors import InputError
from training.datasets import CLASSES, refuse_two_spellings
from training.datasets.tables import Row

NEGATIVE, POSITIVE, SURPRISE = range(len(CLASSES))

Classes = Mapping[str, int | None]
"""Emotion -> class, None where it belongs to none."""


@dataclass(frozen=True)
class Clip:
    """One annotated expression.

    subject is written "database/subject" and name as in the composite database's table (`filename_o`). onset, apex and offset
    are the numbers in the pictures' names; all None where the table has none and the folder holds just the expression. label
    is one of CLASSES, emotion and units (facial action units) are the table's own words. folders are possible endings
    of the picture folder's path, of which the first that exists counts; fps are pictures per second.
    """

    database: str
    subject: str
    name: str
    onset: int | None
    apex: int | None
    offset: int | None
    label: int
    emotion: str
    units: str
    fps: float
    folders: tuple[str, ...]

    @property
    def key(self) -> str:
        """The name of its flow map, '<subject>_<name>', which no other clip of the database has."""
        return f"{self.subject.split('/', 1)[1]}_{self.name}"


@dataclass(frozen=True)
class LeftOut:
    """An expression that does not become a flow map: because of its class, of its row in the table, or of its pictures."""

    name: str
    why: Literal["class", "table", "pictures"]
    reason: str


@dataclass(frozen=True)
class Annotation:
    """The content of a table: the clips, what is left out, and notes on decisions."""

    clips: tuple[Clip, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Release:
    """A database as it is released: its short name, its title as its authors write it, the file name of its annotation table,
    and the path of one picture as an example.

    ignored is a regular expression for folders that hold something else (another camera).
    """

    name: str
    title: str
    table: str
    example: str
    ignored: str | None = None


@dataclass(frozen=True, kw_only=True)
class Database(Release):
    """A database of clips, and the reader of its table."""

    read: Callable[[Path], Annotation] = field(compare=False)


def find_table(database: Release, root: Path) -> Path:
    """The database's annotation table in or near root. Raises InputError where it is not there."""
    wanted = database.table.casefold()
    for pattern in ("*", "*/*", "../*", "*/*/*"):
        found = sorted(path for path in root.glob(pattern) if path.name.casefold() == wanted)
        if found:
            return found[0]
    raise InputError(f"the table {database.table} is not in or near {root}; name it with --annotations")


def class_of(row: Row, column: str, classes: Classes) -> int | None:
    """The class of the emotion that a row names, None for one outside the three classes. InputError for an unknown one."""
    emotion = row.text(column).casefold()
    if emotion not in classes:
        raise InputError(f"{row.where}: the emotion {emotion!r} is not known; {', '.join(classes)} are")
    return classes[emotion]


def badly_framed(onset: int, apex: int | None, offset: int) -> str | None:
    """Why no motion from onset to apex can be measured, None where it can."""
    if apex is None:
        return "the table has no apex"
    if apex == onset:
        return f"the apex is the onset itself ({apex}), so there is no motion to measure"
    if not onset < apex <= offset:
        return f"the apex {apex} lies outside the clip, {onset} to {offset}"
    return None


def framed(clip: Clip) -> Clip | LeftOut:
    """The clip, or why it is none: motion from its onset to its apex cannot be measured."""
    if clip.onset is None or clip.offset is None:
        return clip
    wrong = badly_framed(clip.onset, clip.apex, clip.offset)
    return LeftOut(clip.key, "table", wrong) if wrong else clip


def gathered(found: list[Clip | LeftOut], table: Path, notes: tuple[str, ...] = ()) -> Annotation:
    """Clips and what is left out, each in the table's order.

    Raises InputError where two clips have one name, or one subject is spelled in two ways.
    """
    clips = tuple(each for each in found if isinstance(each, Clip))
    refuse_two_spellings((clip.subject for clip in clips), f"the table {table}")
    seen: dict[str, Clip] = {}
    for clip in clips:
        if seen.setdefault(clip.key.casefold(), clip) is not clip:
            raise InputError(f"the table {table} has the clip {clip.key} twice")
    return Annotation(clips, tuple(each for each in found if isinstance(each, LeftOut)), notes)
