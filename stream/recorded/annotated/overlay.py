"""What is drawn over a picture: the regions of each face, what it does, and its expression while it lasts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.text import plain
from engine.types import F64, ActivityKind, Event, Mark
from stream.recorded.annotated.canvas import Canvas, fitted, text_width
from stream.recorded.annotated.findings import Findings
from stream.recorded.annotated.spool import Place
from stream.recorded.annotated.strip import PANEL, SPEECH, Layout, ink_on
from stream.recorded.colours import colour_of

QUIET = "#E8EDF3"
"""Colour of a face without an expression."""

DOES: dict[ActivityKind, str] = {
    "speech": "speaks",
    "eyes_closed": "eyes closed",
    "blink": "blinks",
    "covered": "covered",
    "head_turn": "turns the head",
}
"""Activities that are named below a face."""


def draw_face(canvas: Canvas, layout: Layout, place: Place, findings: Findings, mark: Mark, *, named: bool) -> None:
    """Draw one face of the frame at a moment; named: its id is shown, as there are several."""
    events = findings.events(place.face, mark.t, mark.t)
    event = events[-1] if events else None
    colour = QUIET if event is None else colour_of(event.label)
    canvas.lines(place.contours[1:], colour, layout.stroke, alpha=0.55, closed=True)
    canvas.lines([_corners(*region) for region in place.regions.tolist()], colour, layout.stroke, alpha=0.65, closed=True)
    canvas.lines(_brackets(*place.box), colour, 2 * layout.stroke)
    lines = [] if event is None else describe(event, mark)
    if lines:
        _chip(canvas, layout, place, lines, colour)
    _note(canvas, layout, place, findings, mark, named=named)


def describe(event: Event, mark: Mark) -> tuple[str, str]:
    """An expression in two lines: its class and how sure it is; its kind, length and phase, or why it is uncertain."""
    length = "" if event.offset is None else f" {event.offset.t - event.onset.t:.2f} s"
    phase = "rises" if mark.frame < event.apex.frame else "apex" if mark.frame == event.apex.frame else "falls"
    cut = ", cut short" if event.truncated else ""
    second = event.why or f"{event.kind or 'open'}{length}{cut} · {phase}"
    return plain(event.label) if event.why else f"{plain(event.label)} {event.confidence:.2f}", plain(second)


def _chip(canvas: Canvas, layout: Layout, place: Place, lines: Sequence[str], colour: str) -> None:
    """Two lines on the colour of the class, above the face or, where there is no room, at the top of the picture."""
    font, small = layout.font, max(8, round(0.8 * layout.font))
    x, y, _, _ = place.box
    room = layout.width - 1.0 * font
    texts = [(fitted(lines[0], room, font, 700), font, 700), (fitted(lines[1], room, small, 400), small, 400)]
    width = max(text_width(*text) for text in texts) + font
    left = min(max(x, 0.0), max(0.0, layout.width - width))
    top = max(0.0, min(y - 2.9 * font, layout.height - 2.6 * font))
    ink = ink_on(colour)
    canvas.fill((left, top, left + width, top + 2.6 * font), colour)
    canvas.text((left + 0.5 * font, top + 1.15 * font), *_in(texts[0], ink))
    canvas.text((left + 0.5 * font, top + 2.2 * font), *_in(texts[1], ink))


def _in(text: tuple[str, int, int], ink: str) -> tuple[str, str, int, int]:
    return text[0], ink, text[1], text[2]


def _note(canvas: Canvas, layout: Layout, place: Place, findings: Findings, mark: Mark, *, named: bool) -> None:
    """The face's number, if there are several, and what it does, below it."""
    kinds = {one.kind for one in findings.activities(place.face, mark.t, mark.t)}
    words = [f"face {place.face}"] if named else []
    words += [word for kind, word in DOES.items() if kind in kinds]
    if not words:
        return
    font = max(8, round(0.85 * layout.font))
    x, y, _, height = place.box
    text = fitted(" · ".join(words), layout.width - font, font)
    width = text_width(text, font) + 0.8 * font
    left, top = min(max(x, 0.0), max(0.0, layout.width - width)), min(y + height + 0.3 * font, layout.height - 1.5 * font)
    canvas.fill((left, top, left + width, top + 1.5 * font), PANEL, 0.75)
    canvas.text((left + 0.4 * font, top + 1.1 * font), text, SPEECH if "speech" in kinds else QUIET, font)


def _corners(x: float, y: float, width: float, height: float) -> F64:
    return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])


def _brackets(x: float, y: float, width: float, height: float) -> list[F64]:
    """The corners of a box as four short angles."""
    arm = 0.12 * min(width, height)
    return [
        np.array([(cx + dx * arm, cy), (cx, cy), (cx, cy + dy * arm)])
        for cx, dx in ((x, 1), (x + width, -1))
        for cy, dy in ((y, 1), (y + height, -1))
    ]
