"""Tables with one row per expression, which CASME II, SAMM and CAS(ME)^3 have: what differs between them is a table too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.datasets.clips import Annotation, Classes, Clip, LeftOut, class_of, framed, gathered
from training.datasets.tables import Row, read_rows


@dataclass(frozen=True)
class Columns:
    """What a table calls its columns."""

    subject: str
    name: str
    onset: str
    apex: str
    offset: str
    units: str
    emotion: str

    def all(self) -> tuple[str, ...]:
        """Every column, in the order above."""
        return (self.subject, self.name, self.onset, self.apex, self.offset, self.units, self.emotion)


@dataclass(frozen=True)
class Coding:
    """How the table of a database is read.

    emotions name each emotion's class; sheet None is the first one; fps are pictures per second. A subject is written as
    prefix and its number in so many digits, or, where digits is None, as the table has it. A clip is called by the table's
    name, and by its apex too where one name holds several; below is what lies between the folder <subject>/<name> and the
    pictures.
    """

    database: str
    columns: Columns
    emotions: Classes
    fps: float
    sheet: str | None = None
    prefix: str = ""
    digits: int | None = None
    named_by_apex: bool = False
    below: str = ""

    def read(self, table: Path) -> Annotation:
        """The clips of a table and what is left out. Raises InputError."""
        return gathered([self._sorted(row) for row in read_rows(table, self.columns.all(), self.sheet)], table)

    def _sorted(self, row: Row) -> Clip | LeftOut:
        label = class_of(row, self.columns.emotion, self.emotions)
        if label is None:
            reason = f"{row.text(self.columns.emotion).casefold()} belongs to none of the three classes"
            return LeftOut(f"{self._subject(row)}_{self._name(row)}", "class", reason)
        return framed(self._clip(row, label))

    def _clip(self, row: Row, label: int) -> Clip:
        columns, subject = self.columns, self._subject(row)
        return Clip(
            database=self.database,
            subject=f"{self.database}/{subject}",
            name=self._name(row),
            onset=row.frame(columns.onset),
            apex=row.number(columns.apex),
            offset=row.frame(columns.offset),
            label=label,
            emotion=row.text(columns.emotion).casefold(),
            units=row.cells[columns.units],
            fps=self.fps,
            folders=(f"{subject}/{row.text(columns.name)}{self.below}",),
        )

    def _subject(self, row: Row) -> str:
        if self.digits is None:
            return row.text(self.columns.subject)
        return f"{self.prefix}{row.frame(self.columns.subject):0{self.digits}d}"

    def _name(self, row: Row) -> str:
        name = row.text(self.columns.name)
        return f"{name}_{row.frame(self.columns.apex)}" if self.named_by_apex else name
