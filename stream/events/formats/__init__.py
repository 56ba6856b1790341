"""Formats in which events are exported: live (/api/events), from the store (`apexstream events`), and of recorded videos.

A new format is a module here and a line in FORMATS.
"""

from __future__ import annotations

from stream.events.formats.boris import BORIS
from stream.events.formats.csv import CSV
from stream.events.formats.eaf import EAF
from stream.events.formats.entry import Entry, Recording
from stream.events.formats.format import Format, LineFormat
from stream.events.formats.jsonl import JSONL
from stream.events.formats.parquet import PARQUET
from stream.events.formats.textgrid import TEXTGRID
from stream.events.formats.vtt import VTT

__all__ = ["FORMATS", "Entry", "Format", "LineFormat", "Recording", "file_name"]

FORMATS: dict[str, Format] = {
    "jsonl": JSONL,
    "csv": CSV,
    "vtt": VTT,
    "eaf": EAF,
    "textgrid": TEXTGRID,
    "boris": BORIS,
    "parquet": PARQUET,
}
"""By the name that `--format` and ?format= take."""


def file_name(name: str) -> str:
    """The name of a file of events in the format of that name."""
    return f"events.{FORMATS[name].ending or name}"
