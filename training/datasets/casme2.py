"""CASME II (Yan et al. 2014): 255 expressions, 145 in the three classes.

Of the 63 of disgust, the two whose table has no apex or has it on the onset give no motion; the composite database leaves them
out too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from training.datasets.clips import (
    NEGATIVE,
    POSITIVE,
    SURPRISE,
    Annotation,
    Clip,
    Database,
    gathered,
    sorted_out,
)
from training.datasets.tables import Row, read_rows

COLUMNS = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion")

EMOTIONS: dict[str, int | None] = {
    "disgust": NEGATIVE,
    "repression": NEGATIVE,
    "happiness": POSITIVE,
    "surprise": SURPRISE,
    "others": None,
    "sadness": None,
    "fear": None,
}


def read(table: Path) -> Annotation:
    """The table CASME2-coding-20140508.xlsx. Raises InputError."""
    found = [
        sorted_out(row, partial(_clip, row), f"{_subject(row)}_{row.text('Filename')}", "Estimated Emotion", EMOTIONS)
        for row in read_rows(table, COLUMNS)
    ]
    return gathered(found)


def _subject(row: Row) -> str:
    return f"sub{row.frame('Subject'):02d}"


def _clip(row: Row, label: int) -> Clip:
    subject, name = _subject(row), row.text("Filename")
    return Clip(
        database="casme2",
        subject=f"casme2/{subject}",
        name=name,
        onset=row.frame("OnsetFrame"),
        apex=row.number("ApexFrame"),
        offset=row.frame("OffsetFrame"),
        label=label,
        emotion=row.text("Estimated Emotion").casefold(),
        units=row.cells["Action Units"],
        fps=200.0,
        folders=(f"{subject}/{name}",),
    )


DATABASE = Database(
    name="casme2",
    title="CASME II",
    table="CASME2-coding-20140508.xlsx",
    example="sub01/EP02_01f/img46.jpg (raw) or sub01/EP02_01f/reg_img46.jpg (cropped)",
    read=read,
)
