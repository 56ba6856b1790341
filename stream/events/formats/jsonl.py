"""JSON lines: an event's JSON form in a line."""

from __future__ import annotations

from engine.text import json_line
from stream.events.formats.format import Entry, Format


def _line(entry: Entry) -> str:
    return json_line(entry.fields) + "\n"


FORMAT = Format("application/jsonl; charset=utf-8", _line)
