"""JSON lines: the JSON form of an event on each line."""

from __future__ import annotations

from engine.text import json_line
from stream.events.formats.format import LineFormat

JSONL = LineFormat("application/jsonl; charset=utf-8", lambda entry: json_line(entry.fields) + "\n")
