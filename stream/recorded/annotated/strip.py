"""The strip below the pictures: for each face its motion around this moment, with its expressions and speech; and the time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.text import plain
from engine.types import F64, Event, Mark
from stream.recorded.annotated.canvas import Canvas, fitted, text_width
from stream.recorded.annotated.findings import Findings
from stream.recorded.colours import colour_of

BEFORE_S, AFTER_S = 4.0, 2.0
"""How much of the past and of the future the curve shows."""

LOUDEST = 64.0
"""Loudness at the top of a lane; its logarithm is drawn."""

PANEL, LANE, RULE, DIM, INK, CURVE = "#14171C", "#1C2027", "#3A414C", "#98A2B0", "#F2F4F7", "#C9D3DF"
SPEECH, NOW = "#E3B341", "#FFFFFF"
MARKS = ("onset", "apex", "offset")


@dataclass(frozen=True)
class Layout:
    """Where things are: the picture's size in pixels (even), the font's size, and the number of lanes."""

    width: int
    height: int
    font: int
    lanes: int

    @classmethod
    def of(cls, width: int, height: int, lanes: int) -> Layout:
        """For pictures of a size, in pixels: text is readable on small and on large ones."""
        return cls(width + width % 2, height + height % 2, max(9, round(6 + 0.024 * min(width, height))), lanes)

    @property
    def lane(self) -> int:
        """Height of a lane."""
        return round(self.font * (4.6 if self.lanes < 2 else 3.4))

    @property
    def footer(self) -> int:
        """Height of the line with the time."""
        return round(1.8 * self.font)

    @property
    def whole(self) -> int:
        """Height of picture and strip, even."""
        whole = self.height + self.lanes * self.lane + self.footer
        return whole + whole % 2

    @property
    def stroke(self) -> float:
        """Width of a line."""
        return max(1.0, self.font / 9)


def draw_strip(canvas: Canvas, layout: Layout, findings: Findings, faces: Sequence[int], mark: Mark, *, origin: float) -> None:
    """Draw the strip at a moment of the source; origin is the source time at which a player's clock is 0."""
    canvas.fill((0, layout.height, canvas.width, canvas.height), PANEL)
    for number, face in enumerate(faces):
        top = layout.height + number * layout.lane
        _Lane(canvas, layout, top, mark.t).draw(findings, face, f"face {face}" if len(faces) > 1 else "motion")
    _draw_footer(canvas, layout, mark, origin)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03.45, hours left out where there are none."""
    sign, hundredths = "-" if seconds < -0.005 else "", round(abs(seconds) * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{sign}{start}:{rest / 100:05.2f}"


class _Lane:
    """One face's lane at a moment; x is time."""

    def __init__(self, canvas: Canvas, layout: Layout, top: int, now: float) -> None:
        self.canvas, self.layout, self.now = canvas, layout, now
        font = layout.font
        self.top, self.bottom = top + round(0.25 * font), top + layout.lane
        self.highest, self.lowest = self.top + 1.5 * font, self.bottom - 0.55 * font

    def draw(self, findings: Findings, face: int, name: str) -> None:
        canvas, font, start, end = self.canvas, self.layout.font, self.now - BEFORE_S, self.now + AFTER_S
        canvas.fill((0, self.top, canvas.width, self.bottom), LANE)
        for activity in findings.activities(face, start, end):
            if activity.kind == "speech":
                self._speech(activity.start.t, activity.end.t)
        threshold = self._y(1.0)
        canvas.fill((0, threshold, canvas.width, threshold + 1), RULE)
        events = findings.events(face, start, end)
        for event in events:
            self._span(event)
        curve = [self._placed(piece) for piece in findings.curve(face, start, end)]
        canvas.lines(curve, CURVE, self.layout.stroke)
        for event in events:
            self._marks(event)
        canvas.text((0.5 * font, self.top + 1.1 * font), name, DIM, max(8, round(0.85 * font)))
        x, wide = self._x(self.now), round(1.5 * self.layout.stroke)
        canvas.fill((round(x) - wide // 2, self.top, round(x) - wide // 2 + wide, self.bottom), NOW)
        canvas.area(np.array([(-0.4, 0), (0.4, 0), (0, 0.5)]) * font + (x, self.top), NOW)
        limits = [self._x(event.onset.t) for event in events[1:]] + [float(canvas.width)]
        for event, limit in zip(events, limits, strict=False):
            self._caption(event, limit)

    def _x(self, t: float) -> float:
        return (t - self.now + BEFORE_S) / (BEFORE_S + AFTER_S) * self.canvas.width

    def _y(self, loudness: float) -> float:
        share = math.log1p(min(max(loudness, 0.0), LOUDEST)) / math.log1p(LOUDEST)
        return self.lowest - share * (self.lowest - self.highest)

    def _placed(self, piece: F64) -> F64:
        return np.array([(self._x(t), self._y(loudness)) for t, loudness in piece.tolist()]).reshape(-1, 2)

    def _speech(self, start: float, end: float) -> None:
        left, right, font = self._x(start), self._x(end), self.layout.font
        self.canvas.fill((left, self.top, right, self.bottom), SPEECH, 0.12)
        self.canvas.fill((left, self.bottom - 0.25 * font, right, self.bottom), SPEECH, 0.8)
        size = max(8, round(0.75 * font))
        shown = max(left, 0.0) + 0.3 * font
        if text_width("speech", size) < right - shown:
            self.canvas.text((shown, self.bottom - 0.45 * font), "speech", SPEECH, size)

    def _span(self, event: Event) -> None:
        end = event.apex if event.offset is None else event.offset
        self.canvas.fill((self._x(event.onset.t), self.top, self._x(end.t), self.bottom), colour_of(event.label), 0.45)

    def _marks(self, event: Event) -> None:
        stroke, half = self.layout.stroke, 0.32 * self.layout.font
        for name, mark in zip(MARKS, (event.onset, event.apex, event.offset), strict=True):
            if mark is not None:
                x = self._x(mark.t)
                self.canvas.fill((round(x), self.top, round(x + stroke), self.bottom), INK, 0.8 if name == "apex" else 0.55)
                draw_mark(self.canvas, name, x, self.bottom - half, half)

    def _caption(self, event: Event, limit: float) -> None:
        font, left = self.layout.font, max(0.0, self._x(event.onset.t))
        size = max(8, round(0.85 * font))
        text = fitted(plain(event.label), min(limit, self.canvas.width) - left - 0.8 * font, size, 600)
        if text:
            right = left + text_width(text, size, 600) + 0.6 * font
            self.canvas.fill((left, self.top, right, self.top + 1.3 * font), colour_of(event.label))
            self.canvas.text((left + 0.3 * font, self.top + 1.0 * font), text, ink_on(colour_of(event.label)), size, 600)


def draw_mark(canvas: Canvas, name: str, x: float, y: float, half: float) -> None:
    """Draw the sign of onset (pointing right), apex (a diamond) or offset (pointing left) around a place."""
    shapes = {
        "onset": [(0, -1), (1.2, 0), (0, 1)],
        "apex": [(0, -1.2), (1, 0), (0, 1.2), (-1, 0)],
        "offset": [(0, -1), (-1.2, 0), (0, 1)],
    }
    canvas.area(np.array(shapes[name]) * half + (x, y), INK)


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour."""
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#FFFFFF"


def _draw_footer(canvas: Canvas, layout: Layout, mark: Mark, origin: float) -> None:
    font = layout.font
    base = canvas.height - 0.55 * font
    now, number = clock(mark.t - origin), f"frame {mark.frame}"
    canvas.text((0.5 * font, base), now, INK, font, 600)
    x = 0.5 * font + max(text_width(now, font, 600), text_width("0" * len(now), font, 600)) + 0.8 * font
    canvas.text((x, base), number, DIM, font)
    used = x + text_width("frame 000000", font) + font
    widths = [text_width(name, font) for name in MARKS]
    left = canvas.width - sum(widths) - len(MARKS) * 1.9 * font
    if left < used:
        return
    for name, width in zip(MARKS, widths, strict=True):
        draw_mark(canvas, name, left + 0.5 * font, base - 0.35 * font, 0.32 * font)
        canvas.text((left + 1.1 * font, base), name, DIM, font)
        left += width + 1.9 * font
