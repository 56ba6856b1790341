"""One picture of a whole video: a lane for each face, a bar for each event, the face at its apex above it.

Heights are pixels of the picture; along the time axis, seconds become pixels by `_Scale`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from apexstream.pictures import FaceTrail, Strip, write_strips
from engine.errors import OutputError
from engine.text import plain
from engine.types import U8, Event
from stream.recorded.colours import colour_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stream.recorded.analyze import Report

WIDTH = 1600
MAX_LANES = 12
_LEFT, _RIGHT, _TOP, _BOTTOM = 140, 30, 96, 62
_THUMB, _SLOT, _LINE, _LEADER, _BAR, _PAD = 116, 124, 18, 20, 32, 20
_LETTERS = 16  # of a line of text, so that it is no wider than a slot
_SHORTEST_BAR = 4
_DPI = 100


@dataclass(frozen=True)
class Bar:
    """One event on a lane: seconds, class, some short lines of text, the face at the apex [H, H, 3] RGB, and how strong."""

    onset: float
    apex: float
    offset: float
    label: str
    text: str
    picture: U8 | None = None
    strength: float = 1.0


@dataclass(frozen=True)
class Lane:
    """A row of bars; seen holds from when to when there was a face. below puts the text under the bars."""

    name: str
    bars: tuple[Bar, ...]
    seen: tuple[tuple[float, float], ...] = ()
    below: bool = False

    @property
    def text_height(self) -> int:
        """Pixels that text takes."""
        return 4 + _LINE * max(1 + bar.text.count("\n") for bar in self.bars)

    @property
    def note_height(self) -> int:
        """Pixels that text and pictures take."""
        if not self.bars:
            return 0
        return self.text_height + _LEADER + (_THUMB + 4) * any(bar.picture is not None for bar in self.bars)

    @property
    def height(self) -> int:
        """Pixels of the whole lane."""
        return self.note_height + _BAR + _PAD


@dataclass(frozen=True)
class _Scale:
    """Seconds to pixels from the left end of the axis."""

    start: float
    end: float

    @property
    def width(self) -> int:
        return WIDTH - _LEFT - _RIGHT

    def pixels(self, t: float) -> float:
        return (t - self.start) / (self.end - self.start) * self.width


def bar_of(event: Event, picture: U8 | None = None, mark: str = "") -> Bar:
    """The bar of a recognized event; mark is put behind its kind, or behind the reason in its place why it is uncertain."""
    end = event.apex if event.offset is None else event.offset
    named = f"{event.label} {event.confidence:.2f}\n{event.kind or 'open'}"
    text = (f"{event.label}\n{fill(event.why, _LETTERS)}" if event.why else named) + mark
    return Bar(event.onset.t, event.apex.t, end.t, event.label, text, picture, event.intensity)


def write_report_pictures(report: Report, trail: FaceTrail) -> Path:
    """Pictures of all events of an analysed video, and their overview, into its folder; returns the overview's path."""
    strips = [Strip.of(event, number) for number, event in enumerate(report.events, start=1)]
    faces = write_strips(report.path, report.folder, strips, trail)
    bars = [(event.face, bar_of(event, face)) for event, face in zip(report.events, faces, strict=True)]
    lanes = face_lanes(bars, trail)
    path = report.folder / "overview.png"
    more = len(trail.faces) - len(lanes)
    counts = [_count(len(report.events), "event"), _count(len(trail.faces), "face") + (f" ({more} not shown)" if more else "")]
    if not lanes:
        lanes = [Lane("no face", ())]
    start, end = video_times(report.summary)
    draw_overview(path, lanes, title=report.path.name, facts=facts_line(report.summary, counts), start=start, end=end)
    return path


def face_lanes(bars: Sequence[tuple[int, Bar]], trail: FaceTrail) -> list[Lane]:
    """A lane for each face; where there are too many, those with most events."""
    of_face = {face: tuple(bar for owner, bar in bars if owner == face) for face in trail.faces}
    chosen = sorted(sorted(of_face, key=lambda face: -len(of_face[face]))[:MAX_LANES])
    return [Lane(f"face {face}", of_face[face], tuple(trail.spells(face))) for face in chosen]


def facts_line(summary: dict[str, Any], more: Sequence[str] = ()) -> str:
    """Length, frame rate, the given counts and the model, in a line."""
    video = summary["video"]
    rate = video["fps"] or video["measured_fps"]
    parts = [f"{video['duration'] or 0.0:.1f} s", f"{rate:.4g} frames/s" if rate else "", *more]
    name, _, digest = str(summary["model"]).partition("@sha256:")
    parts.append(f"model {name}@{digest[:8]}" if digest else f"model {name}")
    return "  ·  ".join(part for part in parts if part)


def video_times(summary: dict[str, Any]) -> tuple[float, float]:
    """First and last moment of an analysed video, in seconds."""
    video = summary["video"]
    return video["start"] or 0.0, video["end"] or 0.0


def draw_overview(path: Path, lanes: Sequence[Lane], *, title: str, facts: str, start: float, end: float) -> None:
    """Draw the lanes from start to end (seconds) as a PNG, 1600 pixels wide; raises OutputError when it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scale = _Scale(start, max(end, start + 1.0))
    inner = sum(lane.height for lane in lanes)
    height = _TOP + inner + _BOTTOM
    figure = Figure(figsize=(WIDTH / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    place = (_LEFT / WIDTH, _BOTTOM / height, scale.width / WIDTH, inner / height)
    axes = figure.add_axes(place)
    _frame(axes, scale, inner)
    top = 0.0
    for lane in lanes:
        _draw_lane(axes, lane, scale, top)
        top += lane.height
    figure.text(24 / WIDTH, 1 - 30 / height, plain(title), fontsize=19, weight="bold", va="center", parse_math=False)
    figure.text(24 / WIDTH, 1 - 64 / height, facts, fontsize=13, color="#555555", va="center", parse_math=False)
    _legend(figure, lanes, height)
    try:
        figure.savefig(path, format="png", facecolor="white")
    except OSError as error:
        raise OutputError(f"the picture {path} cannot be written: {error.strerror or error}; choose another folder") from error


def spread(centres: Sequence[float], slot: float, low: float, high: float) -> list[float]:
    """Places for things `slot` wide, in the order of their centres, inside low..high, moved as little as can be.

    Least squares under an order (pool adjacent violators) of centre - rank * slot. What fits is up to the caller.
    """
    pools: list[tuple[float, int]] = []
    for rank, centre in enumerate(centres):
        mean, size = centre - rank * slot, 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    flat = [mean for mean, size in pools for _ in range(size)]
    lowest, highest = low + slot / 2, high - slot / 2 - (len(centres) - 1) * slot
    return [min(max(place, lowest), highest) + rank * slot for rank, place in enumerate(flat)]


def _frame(axes: Axes, scale: _Scale, inner: int) -> None:
    """The time axis."""
    axes.set_xlim(scale.start, scale.end)
    axes.set_ylim(inner, 0)
    axes.set_yticks([])
    axes.set_xlabel("time (s)", fontsize=12)
    axes.tick_params(axis="x", labelsize=12)
    axes.grid(axis="x", color="#E8E8E8", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _draw_lane(axes: Axes, lane: Lane, scale: _Scale, top: float) -> None:
    bar_top = top + (0 if lane.below else lane.note_height)
    middle, thin = bar_top + _BAR / 2, 0.5 * _BAR
    for begin, end in lane.seen:
        axes.broken_barh([(begin, max(end - begin, 1e-3))], (middle - thin / 2, thin), color="#E4E4E4", zorder=1)
    shortest = _SHORTEST_BAR / scale.width * (scale.end - scale.start)
    for bar in lane.bars:
        length = max(bar.offset - bar.onset, shortest)
        axes.broken_barh([(bar.onset, length)], (bar_top, _BAR), facecolor=colour_of(bar.label), edgecolor="white", zorder=3)
        axes.vlines(bar.apex, bar_top - 3, bar_top + _BAR + 3, color="black", linewidth=1.4, zorder=4)
    axes.text(-14 / scale.width, middle, lane.name, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=13)
    _draw_notes(axes, lane, scale, bar_top)


def _draw_notes(axes: Axes, lane: Lane, scale: _Scale, bar_top: float) -> None:
    """Text and faces of as many events as there is room for, the strongest first, each tied to its apex by a line."""
    room = scale.width // _SLOT
    strongest = sorted(lane.bars, key=lambda bar: -bar.strength)[:room]
    shown = sorted(strongest, key=lambda bar: bar.apex)
    places = spread([scale.pixels(bar.apex) for bar in shown], _SLOT, -_LEFT / 4, scale.width + _RIGHT)
    for bar, place in zip(shown, places, strict=True):
        x = scale.start + place / scale.width * (scale.end - scale.start)
        near, far = (bar_top + _BAR + 4, bar_top + _BAR + _LEADER) if lane.below else (bar_top - 4, bar_top - _LEADER)
        colour = colour_of(bar.label)
        axes.plot([bar.apex, x], [near, far], color=colour, linewidth=1.1, zorder=2, clip_on=False)
        text_top = far + 2 if lane.below else far - lane.text_height + 1
        style: dict[str, Any] = {"fontsize": 11, "color": _darker(colour), "linespacing": 1.15, "clip_on": False}
        axes.text(x, text_top, bar.text, ha="center", va="top", parse_math=False, **style)
        if bar.picture is not None:
            _draw_face(axes, replace(bar, apex=x), scale, text_top - 4)


def _draw_face(axes: Axes, bar: Bar, scale: _Scale, bottom: float) -> None:
    """The bar's picture above `bottom`, around its apex, framed in the colour of its class."""
    half = _THUMB / 2 / scale.width * (scale.end - scale.start)
    small = cv2.resize(np.asarray(bar.picture), (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    left, right, top = bar.apex - half, bar.apex + half, bottom - _THUMB
    limits = axes.axis()
    axes.imshow(small, extent=(left, right, bottom, top), aspect="auto", zorder=5, clip_on=False)
    axes.axis(limits)
    frame = ([left, right, right, left, left], [bottom, bottom, top, top, bottom])
    axes.plot(*frame, color=colour_of(bar.label), linewidth=2.2, zorder=6, clip_on=False)


def _legend(figure: Any, lanes: Sequence[Lane], height: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    labels = sorted({bar.label for lane in lanes for bar in lane.bars})
    if not labels:
        return
    tick = Line2D([], [], color="black", marker="|", markersize=12, markeredgewidth=1.4, linestyle="none", label="apex")
    handles = [*(Patch(color=colour_of(label), label=label) for label in labels), tick]
    corner = (1 - 24 / WIDTH, 1 - 8 / height)
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=corner,
        ncols=len(handles),
        frameon=False,
        fontsize=13,
        handlelength=1.2,
    )


def _darker(colour: str) -> str:
    """The colour dark enough to be read as small letters on white."""
    parts = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(0.72 * part):02X}" for part in parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
