"""JSON lines: the JSON form of an event on each line."""

from __future__ import annotations

from engine.text import json_line
from stream.events.formats.format import Format

JSONL = Format("application/jsonl; charset=utf-8", lambda entry: json_line(entry.fields) + "\n")
