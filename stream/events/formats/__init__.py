"""Formats in which events are exported: live (/api/events), from the store (`apexstream events`), and of recorded videos.

A new format is a module here and a line in FORMATS.
"""

from __future__ import annotations

from stream.events.formats.csv import CSV
from stream.events.formats.format import Entry, Format
from stream.events.formats.jsonl import JSONL
from stream.events.formats.vtt import VTT

__all__ = ["FORMATS", "Entry", "Format"]

FORMATS: dict[str, Format] = {"jsonl": JSONL, "csv": CSV, "vtt": VTT}
"""By the name that `--format` and ?format= take, which is the file's ending, too."""
