"""SMIC-HS (Li et al. 2013): the 164 expressions of the composite database, from the table of its extended release (HS-E).

The table has 157 long clips, which may hold several expressions, so seven names of SMIC are not in it. Where a clip tells the
frames of a second or third expression and the next number is no other clip's, that expression is the one of that number: four
of the seven. The other three (`WITHOUT_FRAMES`) are only in SMIC's own short clips, whose folders contain just the
expression. The table has no apex; the middle frame is used for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.errors import InputError
from training.datasets import CLASSES
from training.datasets.clips import (
    NEGATIVE,
    POSITIVE,
    SURPRISE,
    Annotation,
    Clip,
    Database,
    LeftOut,
    class_of,
    framed,
    gathered,
)
from training.datasets.tables import Row, read_rows

SHEET = "HS"
FURTHER = (("Onset2F", "Offset2F"), ("Onset3F", "Offset3F"))
COLUMNS = ("Subject", "Filename", "OnsetF", "OffsetF", *FURTHER[0], *FURTHER[1], "FirstF", "LastF", "Emotion")
ORDINALS = ("second", "third")

EMOTIONS: dict[str, int | None] = {"negative": NEGATIVE, "positive": POSITIVE, "surprise": SURPRISE}
CODES = {"ne": NEGATIVE, "po": POSITIVE, "sur": SURPRISE}
NAME = re.compile(r"s0*(\d+)_(ne|po|sur)_(\d+)", re.IGNORECASE)

WITHOUT_FRAMES = ("s01_ne_02", "s02_sur_05", "s03_ne_20")
"""Clips of SMIC-HS without frames in the extended release's table."""


def read(table: Path) -> Annotation:
    """The table SMIC-HS-E_annotation.xlsx. Raises InputError."""
    rows = _by_name(read_rows(table, COLUMNS, SHEET))
    found: list[Clip | LeftOut] = []
    notes: list[str] = []
    for name, row in rows.items():
        further = list(_further(name, row, frozenset(rows)))
        found += [framed(_clip(name, (row.frame("OnsetF"), row.frame("OffsetF")), (_folder(name),))), *further]
        by_table, by_name = class_of(row, "Emotion", EMOTIONS), CODES[_parts(name)[1]]
        if by_table != by_name:
            conflict = f"{name}: the table says {row.text('Emotion')}, its name {CLASSES[by_name]}"
            notes.append(f"{conflict}; the name is used, as in the composite")
        notes += [f"{other.name} is a further expression of the clip {name}" for other in further if isinstance(other, Clip)]
    found += [_clip(name, None, (_folder(name),)) for name in WITHOUT_FRAMES if name not in rows]
    return gathered(found, table, tuple(notes))


def _by_name(rows: Iterable[Row]) -> dict[str, Row]:
    out: dict[str, Row] = {}
    for row in rows:
        name = _name(row)
        if name in out:
            raise InputError(f"{row.where}: the clip {name} has a row already, {out[name].where}; a clip has one row")
        out[name] = row
    return out


def _name(row: Row) -> str:
    """The clip's name as the composite writes it: s1_ne_01 is s01_ne_01."""
    match = NAME.fullmatch(row.text("Filename"))
    if match is None:
        raise InputError(f"{row.where}: a clip's name such as s1_ne_01 is expected, not {row.text('Filename')!r}")
    if row.frame("Subject") != int(match[1]):
        raise InputError(f"{row.where}: the subject is {row.frame('Subject')}, the clip's name {match[0]} says {match[1]}")
    return _written(int(match[1]), match[2].lower(), int(match[3]))


def _written(subject: int, code: str, number: int) -> str:
    return f"s{subject:02d}_{code}_{number:02d}"


def _parts(name: str) -> tuple[int, str, int]:
    subject, code, number = name[1:].split("_")
    return int(subject), code, int(number)


def _folder(name: str) -> str:
    """The folder's name in the releases, the subject without a leading zero."""
    subject, code, number = _parts(name)
    return f"s{subject}_{code}_{number:02d}"


def _clip(name: str, frames: tuple[int, int] | None, folders: tuple[str, ...]) -> Clip:
    subject, code, _ = _parts(name)
    onset, offset = frames or (None, None)
    label = CODES[code]
    return Clip(
        database="smic",
        subject=f"smic/s{subject:02d}",
        name=name,
        onset=onset,
        apex=None if frames is None else sum(frames) // 2,
        offset=offset,
        label=label,
        emotion=CLASSES[label],
        units="",
        fps=100.0,
        folders=folders,
    )


def _further(name: str, row: Row, named: frozenset[str]) -> Iterator[Clip | LeftOut]:
    """The second and third expression of a clip: those of the composite, and why the others are not."""
    subject, code, number = _parts(name)
    before = [(row.frame("OnsetF"), row.frame("OffsetF"))]
    for step, columns in enumerate(FURTHER, start=1):
        onset, offset = (row.number(column) for column in columns)
        if onset is None or offset is None:
            continue
        this, own = f"s{subject:02d}_{name}, {ORDINALS[step - 1]} expression", _written(subject, code, number + step)
        if (onset, offset) in before:
            yield LeftOut(this, "table", f"its frames, {onset} to {offset}, are those of the one before")
        elif not row.frame("FirstF") <= onset < offset <= row.frame("LastF"):
            reach = f"{row.frame('FirstF')} to {row.frame('LastF')}"
            yield LeftOut(this, "table", f"its frames, {onset} to {offset}, lie outside the clip, {reach}")
        elif own in named:
            yield LeftOut(this, "table", f"it is none of the composite's: {own} is another clip")
        else:
            yield framed(_clip(own, (onset, offset), (_folder(own), _folder(name))))
        before.append((onset, offset))


DATABASE = Database(
    name="smic",
    title="SMIC-HS",
    table="SMIC-HS-E_annotation.xlsx",
    example="s03/s3_sur_01/image308866.jpg (HS_long) or s1/micro/negative/s1_ne_01/reg_image013604.bmp (cropped)",
    read=read,
    ignored=r"(^|[^a-z])(vis|nir)([^a-z]|$)|^non.?micro",
)
