"""The page of a report: template, style and scripts in one file with the data, which opens from disk and requests nothing.

Its content security policy lets it run and show only what is in it. The data are JSON in elements that are not run: `summary`,
then `events`, one a line. The pictures of each event are an element of their own, base64 in two lines (strip and flow), and
become pictures only when they are looked at; they follow the scripts, so that the page is there before they are read.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator
from typing import Any

from stream.recorded.single_page import THEME, filled, packaged, policy

STYLES = ("dashboard/style.css", "recorded/report/report.css")
SCRIPTS = (
    "dashboard/display.js",
    *(f"recorded/report/{name}.js" for name in ("data", "seen", "timeline", "curve", "card", "list", "main")),
)
"""Joined in this order; what one exports the later ones use."""


def page(title: str, summary: dict[str, Any], events: Iterable[str], pictures: Iterable[str]) -> Iterator[str]:
    """The page, piece by piece. summary is what the page shows besides events; events are lines of `data_line`, pictures are
    elements of `picture_element`."""
    theme, style = packaged(THEME), "\n".join(map(packaged, STYLES))
    script = "\n".join(['(() => {\n"use strict";', *(_plain_script(packaged(name)) for name in SCRIPTS), "})();"])
    head, _, body = packaged("recorded/report/page.html").partition("<!-- data -->")
    named = {
        "policy": policy([style], [theme, script]),
        "title": html.escape(title),
        "style": style,
        "theme": theme,
        "script": script,
    }
    yield filled(head, named)
    yield f'<script type="application/json" id="summary">{data_line(summary)}</script>\n'
    yield '<script type="application/json" id="events">'
    yield from events
    yield "</script>\n"
    yield filled(body, named)
    yield from pictures
    yield "</body>\n</html>\n"


def data_line(value: Any) -> str:
    """A value as JSON in one line that may stand in an element of a page."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def picture_element(number: int, strip: str, flow: str) -> str:
    """The pictures of event `number`, in base64."""
    return f'<script type="text/plain" id="pictures-{number}">{strip}\n{flow}</script>\n'


def _plain_script(module: str) -> str:
    """A module as part of one script: without its imports from the others, and its exports as plain names."""
    lines = [line for line in module.split("\n") if not (line.startswith("import ") and line.endswith(";"))]
    return "\n".join(line.removeprefix("export ") for line in lines)
