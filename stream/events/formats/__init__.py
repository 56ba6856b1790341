"""Formats in which events are exported: live (/api/events), from the store (`apexstream events`), and of recorded videos.

A new format is a module here that defines FORMAT, and a line in the table.
"""

from __future__ import annotations

from stream.events.formats import csv, jsonl, vtt
from stream.events.formats.format import Entry, Format

__all__ = ["FORMATS", "Entry", "Format"]

FORMATS: dict[str, Format] = {
    "jsonl": jsonl.FORMAT,
    "csv": csv.FORMAT,
    "vtt": vtt.FORMAT,
}
"""By the name that `--format` and ?format= take, which is the file's ending, too."""
