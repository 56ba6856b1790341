"""Foreign text made safe for where it is shown: names of files and streams, of networks and their classes, messages of servers.

    plain      one line for a terminal, a log or a message       no control characters, no escapes, no reversed direction
    csv_line   a row of a table                                  no cell is a formula
    cue        words of a WebVTT cue                             no markup, no end of the cue
    xml_text   text that an XML library escapes                  no character that XML cannot hold

    json_line  a value as JSON in one line                       the same text, what `plain` would change escaped

HTML is escaped by the templates that make it.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterable
from typing import Any

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def plain(text: object) -> str:
    r"""The text in one line, what would steer a terminal or hide text written as in Python (\x1b)."""
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), str(text))


def plain_lines(text: object) -> str:
    """As `plain`, line by line."""
    return "\n".join(map(plain, str(text).split("\n")))


def csv_line(values: Iterable[object]) -> str:
    """A row of a table (RFC 4180, ended by a line feed); text that a spreadsheet would run as a formula begins with '."""
    row = io.StringIO()
    csv.writer(row, lineterminator="\n").writerow([_cell(value) for value in values])
    return row.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    shown = plain(value)
    return f"'{shown}" if _FORMULA.match(shown) and not _is_number(shown) else shown


def cell_text(cell: str) -> str:
    """What `csv_line` was given, where it was one line of text."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) and not _is_number(cell[1:]) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def json_line(value: Any) -> str:
    """A value as JSON in one line; other letters than ASCII as they are."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(value, ensure_ascii=False))


def cue(text: object) -> str:
    """Words of a cue of WebVTT."""
    return html.escape(plain(text), quote=False)


def xml_text(text: object) -> str:
    """Text for a library that writes XML: as `plain`, without the two characters that XML has none for either."""
    return plain(text).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
