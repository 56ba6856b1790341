"""CAS(ME)^3 part A (Li et al. 2022), its micro-expressions: 860 rows, 670 in the three classes and measurable.

One film (a letter) of a subject holds several expressions, so a clip is named by film and apex. Rows whose apex is the onset
or lies outside the clip are left out.
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

SHEET = "label"
COLUMNS = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "emotion")

EMOTIONS: dict[str, int | None] = {
    **dict.fromkeys(("disgust", "fear", "anger", "sad"), NEGATIVE),
    "happy": POSITIVE,
    "surprise": SURPRISE,
    "others": None,
}


def read(table: Path) -> Annotation:
    """The table cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx. Raises InputError."""
    found = [
        sorted_out(row, partial(_clip, row), f"{row.text('Subject')}_{_name(row)}", "emotion", EMOTIONS)
        for row in read_rows(table, COLUMNS, SHEET)
    ]
    return gathered(found)


def _name(row: Row) -> str:
    return f"{row.text('Filename')}_{row.frame('Apex')}"


def _clip(row: Row, label: int) -> Clip:
    subject = row.text("Subject")
    return Clip(
        database="casme3",
        subject=f"casme3/{subject}",
        name=_name(row),
        onset=row.frame("Onset"),
        apex=row.frame("Apex"),
        offset=row.frame("Offset"),
        label=label,
        emotion=row.text("emotion").casefold(),
        units=row.cells["AU"],
        fps=30.0,
        folders=(f"{subject}/{row.text('Filename')}/color",),
    )


DATABASE = Database(
    name="casme3",
    title="CAS(ME)^3 part A",
    table="cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
    example="spNO.1/b/color/175.jpg",
    read=read,
)
