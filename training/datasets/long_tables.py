"""Annotation tables of long videos: which expressions a video of SAMM-LV, CAS(ME)^2 or CAS(ME)^3 part A holds.

The numbers are those of the pictures. A video without a row is valid: it contains no expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import InputError
from engine.types import Kind
from training.datasets import CLASSES, casme3, samm
from training.datasets.clips import Clip, Database, Release, find_table
from training.datasets.tables import Row, read_bare, read_rows

CASME2_CLASSES = {"negative": "negative", "positive": "positive", "surprise": "surprise", "others": None}
"""CAS(ME)^2's word for an emotion -> class; its others belong to none."""


@dataclass(frozen=True)
class Annotation:
    """One true expression of a video: onset, apex (None where the table has none) and offset are frames, offset included.

    label is one of `CLASSES`, None where the emotion belongs to none of them or is not known; emotion is the table's word.
    """

    onset: int
    apex: int | None
    offset: int
    kind: Kind
    label: str | None = None
    emotion: str | None = None


Expression = tuple[str, str, Annotation]
"""Subject, video and one expression in it."""


@dataclass(frozen=True)
class LongTable:
    """A table, read: expressions by (subject, video), and a sentence on each row that is none."""

    truth: Mapping[tuple[str, str], tuple[Annotation, ...]]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LongDatabase(Release):
    """A database of long videos, and the reader of its table.

    identify gives subject and video of a picture folder's path (or a video's name in region flow), None for another folder.
    fps are pictures per second; flow_fps those of the published region flow, where there is any. emotions is the database of
    clips whose table names the emotions that the long one lacks, if one does.
    """

    fps: float
    identify: Callable[[str], tuple[str, str] | None] = field(compare=False)
    rows: Callable[[Path, Mapping[object, Clip]], list[Expression | str]] = field(compare=False)
    flow_fps: float | None = None
    emotions: Database | None = None

    def read(self, table: Path) -> LongTable:
        """The expressions of a table; emotions come from the table of `emotions` where that lies near. Raises InputError."""
        truth: dict[tuple[str, str], list[Annotation]] = {}
        left_out: list[str] = []
        for found in self.rows(table, self._named(table.parent)):
            if isinstance(found, str):
                left_out.append(found)
            else:
                truth.setdefault(found[:2], []).append(found[2])
        ordered = {video: tuple(sorted(held, key=lambda one: (one.onset, one.offset))) for video, held in truth.items()}
        return LongTable(ordered, tuple(left_out))

    def _named(self, folder: Path) -> dict[object, Clip]:
        """Clips whose emotion is known, by what names them in the long table too."""
        if self.emotions is None:
            return {}
        try:
            table = find_table(self.emotions, folder)
        except InputError:
            return {}
        return {_clip_key(clip): clip for clip in self.emotions.read(table).clips}


def _clip_key(clip: Clip) -> object:
    """SAMM numbers its expressions as SAMM-LV does; CAS(ME)^3's are known by film, onset and offset."""
    if clip.database == "samm":
        return clip.name
    return clip.subject.split("/", 1)[1], clip.name.rsplit("_", 1)[0], clip.onset, clip.offset


def _annotation(
    row: Row, frames: tuple[int | None, int | None, int | None], kind: str, label: str | None, emotion: str | None
) -> Annotation | str:
    """The expression of a row's frames, or a sentence on why there is none; an apex outside the expression is ignored."""
    onset, apex, offset = frames
    if onset is None or offset is None or offset <= onset:
        return f"{row.where}: an expression from {onset} to {offset} is impossible"
    inside = apex is not None and onset <= apex <= offset
    return Annotation(onset, apex if inside else None, offset, _kind(row, kind), label, emotion)


def _kind(row: Row, text: str) -> Kind:
    if text.casefold().startswith("micro"):
        return "micro"
    if text.casefold().startswith("macro"):
        return "macro"
    raise InputError(f"{row.where}: an expression is micro or macro, not {text!r}")


def _placed(subject: str, video: str, found: Annotation | str) -> Expression | str:
    return found if isinstance(found, str) else (subject, video, found)


# --- SAMM-LV -------------------------------------------------------------------------------------------------------------

_SAMM_COLUMNS = ("Subject", "Filename", "Onset", "Apex", "Offset", "Type")


def _samm_rows(table: Path, named: Mapping[object, Clip]) -> list[Expression | str]:
    out: list[Expression | str] = []
    for row in read_rows(table, _SAMM_COLUMNS, "FACS_Movement_Only"):
        name = row.text("Filename")
        place = _samm_video(name.rsplit("_", 1)[0])
        if place is None:
            raise InputError(f"{row.where}: a name such as 006_1_2 is expected, not {name!r}")
        clip = named.get(name)
        frames = (row.nearest("Onset"), row.nearest("Apex"), row.nearest("Offset"))
        known = (None, None) if clip is None else (CLASSES[clip.label], clip.emotion)
        out.append(_placed(*place, _annotation(row, frames, row.text("Type"), *known)))
    return out


def _samm_video(path: str) -> tuple[str, str] | None:
    match = re.search(r"(?:^|/)(\d{3})_(\d+)$", path)
    return match and (match[1], f"{match[1]}_{match[2]}")


SAMM_LV = LongDatabase(
    name="samm-lv",
    title="SAMM Long Videos",
    table="SAMM_LongVideos_V3_Release.xlsx",
    example="SAMM_longvideos/006_1/006_1_0001.jpg",
    fps=200.0,
    identify=_samm_video,
    rows=_samm_rows,
    flow_fps=25.0,
    emotions=samm.DATABASE,
)

# --- CAS(ME)^2 -----------------------------------------------------------------------------------------------------------

_CASME2_COLUMNS = ("participant", "clip", "onset", "apex", "offset", "units", "emotion", "type")


def _casme2_rows(table: Path, _: Mapping[object, Clip]) -> list[Expression | str]:
    """The table numbers its participants and names its films; two sheets translate both to the folders' numbers."""
    people = {row.text("table"): row.frame("folder") for row in read_bare(table, ("folder", "name", "table"), "naming rule1")}
    films = {row.text("name").casefold(): row.text("code") for row in read_bare(table, ("code", "name"), "naming rule2")}
    out: list[Expression | str] = []
    for row in read_bare(table, _CASME2_COLUMNS):
        film = row.text("clip").rsplit("_", 1)[0].casefold()
        if row.text("participant") not in people or film not in films:
            raise InputError(f"{row.where}: the sheets of naming rules lack {row.text('participant')} or {film}")
        emotion = row.text("emotion").casefold()
        if emotion not in CASME2_CLASSES:
            raise InputError(f"{row.where}: the emotion {emotion!r} is not known; {', '.join(CASME2_CLASSES)} are")
        found = _annotation(row, _casme2_frames(row), row.text("type"), CASME2_CLASSES[emotion], emotion)
        subject = people[row.text("participant")]
        out.append(_placed(f"s{subject}", f"{subject}_{films[film]}", found))
    return out


def _casme2_frames(row: Row) -> tuple[int | None, int | None, int | None]:
    """0 stands for nothing. Where there is no offset, the fall is assumed as long as the rise, as is usual."""
    onset, apex, offset = (row.nearest(column) or None for column in ("onset", "apex", "offset"))
    if offset is None and onset is not None and apex is not None:
        offset = 2 * apex - onset
    return onset, apex, offset


def _casme2_video(path: str) -> tuple[str, str] | None:
    match = re.search(r"(?:^|/)0*(\d+)_(\d{4})(?!\d)[^/]*$", path)
    return match and (f"s{match[1]}", f"{match[1]}_{match[2]}")


CASME2_SQUARED = LongDatabase(
    name="casme2-squared",
    title="CAS(ME)^2",
    table="CAS(ME)^2code_final.xlsx",
    example="rawpic/s15/15_0101disgustingteeth/img1.jpg",
    fps=30.0,
    identify=_casme2_video,
    rows=_casme2_rows,
    flow_fps=30.0,
)

# --- CAS(ME)^3 part A ----------------------------------------------------------------------------------------------------

_CASME3_COLUMNS = ("Subject", "Filename", "Onset", "Apex", "Offset", "Expression type")


def _casme3_rows(table: Path, named: Mapping[object, Clip]) -> list[Expression | str]:
    out: list[Expression | str] = []
    for row in read_rows(table, _CASME3_COLUMNS, "AU+Emotion"):
        subject, film = row.text("Subject"), row.text("Filename")
        frames = (row.number("Onset"), row.number("Apex"), row.number("Offset"))
        clip = named.get((subject, film, frames[0], frames[2]))
        known = (None, None) if clip is None else (CLASSES[clip.label], clip.emotion)
        out.append(_placed(subject, f"{subject}_{film}", _annotation(row, frames, row.text("Expression type"), *known)))
    return out


def _casme3_video(path: str) -> tuple[str, str] | None:
    match = re.search(r"(?:^|/)spno\.(\d+)/([^/]+)/color$", path, re.IGNORECASE)
    return match and (f"spNO.{match[1]}", f"spNO.{match[1]}_{match[2].lower()}")


CASME3 = LongDatabase(
    name="casme3",
    title="CAS(ME)^3 part A",
    table="CAS(ME)3_part_A_v2.xls",
    example="part_A/spNO.1/b/color/175.jpg",
    fps=30.0,
    identify=_casme3_video,
    rows=_casme3_rows,
    emotions=casme3.DATABASE,
)

LONG_DATABASES: dict[str, LongDatabase] = {each.name: each for each in (CASME2_SQUARED, SAMM_LV, CASME3)}
"""Databases of long videos, by short name."""
