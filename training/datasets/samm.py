"""SAMM (Davison et al. 2016): 159 micro-expressions, 133 in the three classes."""

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

SHEET = "MICRO_ONLY"
COLUMNS = ("Subject", "Filename", "Onset Frame", "Apex Frame", "Offset Frame", "Action Units", "Estimated Emotion")

EMOTIONS: dict[str, int | None] = {
    **dict.fromkeys(("anger", "contempt", "disgust", "fear", "sadness"), NEGATIVE),
    "happiness": POSITIVE,
    "surprise": SURPRISE,
    "other": None,
}


def read(table: Path) -> Annotation:
    """The table SAMM_Micro_FACS_Codes_v2.xlsx. Raises InputError."""
    found = [
        sorted_out(row, partial(_clip, row), f"{_subject(row)}_{row.text('Filename')}", "Estimated Emotion", EMOTIONS)
        for row in read_rows(table, COLUMNS, SHEET)
    ]
    return gathered(found)


def _subject(row: Row) -> str:
    return f"{row.frame('Subject'):03d}"


def _clip(row: Row, label: int) -> Clip:
    subject, name = _subject(row), row.text("Filename")
    return Clip(
        database="samm",
        subject=f"samm/{subject}",
        name=name,
        onset=row.frame("Onset Frame"),
        apex=row.number("Apex Frame"),
        offset=row.frame("Offset Frame"),
        label=label,
        emotion=row.text("Estimated Emotion").casefold(),
        units=row.cells["Action Units"],
        fps=200.0,
        folders=(f"{subject}/{name}",),
    )


DATABASE = Database(
    name="samm",
    title="SAMM",
    table="SAMM_Micro_FACS_Codes_v2.xlsx",
    example="006/006_1_2/006_05562.jpg",
    read=read,
)
