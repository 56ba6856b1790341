"""`apexstream demo`: a clip whose expressions are known, played as a live source, truth beside what was recognized."""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import say
from apexstream.commands.fetch import have_face_model
from apexstream.native_output import native_output_hidden
from engine.types import U8, Event, Mark

if TYPE_CHECKING:
    from apexstream.clips import ClipSpec, Truth
    from apexstream.clips.spec import EventTruth
    from apexstream.overview import Bar, Lane
    from apexstream.pictures import FaceTrail, Strip
    from stream.recorded.analyze import Report


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a truth with what was found for it, a truth alone, or an event alone."""

    truth: EventTruth | None
    event: Event | None
    iou: float | None = None

    @property
    def recognized(self) -> bool:
        """Found in time, and named rightly."""
        return self.truth is not None and self.event is not None and self.truth.label == self.event.label

    @property
    def verdict(self) -> str:
        """The outcome in a word or two."""
        if self.truth is None:
            return "not in the clip"
        if self.event is None:
            return "missed"
        if self.event.label == "uncertain":
            return "found, uncertain"
        return "recognized" if self.recognized else "found, wrong class"


def demo(
    ctx: typer.Context,
    *,
    headless: Annotated[bool, typer.Option("--headless", help="Open no page.")] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Keep the page until Ctrl-C.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for clip, events and pictures.")] = Path("demo-out"),
    seconds: Annotated[float, typer.Option("--seconds", min=2, max=3600, help="Length of the clip.")] = 30.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another number is another clip.")] = 0,
) -> None:
    """Render a clip with known micro-expressions, play it as a live source, and show truth beside what was recognized.

    The clip goes through the whole live service in real time, with its page open in the browser. Leaves in DIR the clip with
    its truth, the files `apexstream analyze` would write (of the events that a client received), a picture of each expression,
    and overview.png with truth above what was recognized. The last line says how many expressions were found in time and named
    rightly.
    """
    from apexstream.clips import preset
    from apexstream.pictures import check_drawing

    check_drawing()
    have_face_model()
    with native_output_hidden(not ctx.obj["debug"]):
        spec = preset("benchmark", seed=seed, duration_s=seconds)
        truth = _render(spec, out)
        asyncio.run(_play(out, truth, page=not headless and has_display(), stay=stay))


def _render(spec: ClipSpec, out: Path) -> Truth:
    from apexstream.clips import plan, write_clip
    from apexstream.display import progress_bar

    _make_folder(out)
    clip, count = out / "clip.mp4", plan(spec).frames
    say(f"rendering {spec.duration_s:g} s of a face with known expressions: {clip}")
    with progress_bar("rendering") as progress:
        return write_clip(spec, clip, lambda done: progress(done + 1, count, 0))


async def _play(out: Path, truth: Truth, *, page: bool, stay: bool) -> None:
    """Play the clip through the live service, then show what came of it."""
    from apexstream.display import progress_bar
    from apexstream.pictures import FaceTrail
    from apexstream.playback import play_clip
    from stream.service import stop_event

    trail = FaceTrail()
    with stop_event() as stop:
        async with play_clip(out / "clip.mp4", out / "store", seen=trail.note) as player:
            say(f"playing it as a live source; the page that shows it: {player.service.url}")
            if page:
                webbrowser.open(player.service.url)
            with progress_bar("playing") as progress:
                report = await player.report(out / "clip", progress, stop)
            rows = compare(truth.events, report.events)
            overview = await asyncio.to_thread(write_pictures, out, rows, report, trail)
            _show(rows, truth)
            _report(overview, player.latency_ms)
            say(f"recognized {sum(row.recognized for row in rows)} of {len(truth.events)}")
            if stay:
                say(f"the page stays at {player.service.url}; Ctrl-C ends it", err=True)
                await stop.wait()


def _report(overview: Path, latency_ms: Sequence[float]) -> None:
    if latency_ms:
        say(f"from the frame that decided to the event being sent: {median(latency_ms):.0f} ms in the median")
    say(f"truth above what was recognized: {overview.resolve()}; a picture of each beside it")


def has_display() -> bool:
    """Whether a browser with windows can be opened here."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _make_folder(out: Path) -> None:
    from engine.errors import OutputError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {out} cannot be made: {error.strerror}; choose another with --out") from error


def compare(truths: Sequence[EventTruth], events: Sequence[Event]) -> list[Row]:
    """Truth beside what was found, in order of time: the challenge's rule, an overlap of at least one half, each once."""
    from engine.intervals import Interval, match, overlap

    true = [Interval(t.onset_t, t.offset_t, t.label) for t in truths]
    ended = [(event, event.offset.t) for event in events if event.offset is not None]
    found = [Interval(event.onset.t, max(end, event.onset.t + 1e-3), event.label) for event, end in ended]
    pairs, ious = match(found, true), overlap(found, true)
    rows = [Row(truths[t], ended[p][0], float(ious[p, t])) for p, t in pairs]
    seen_p, seen_t = {p for p, _ in pairs}, {t for _, t in pairs}
    rows += [Row(truth, None) for t, truth in enumerate(truths) if t not in seen_t]
    rows += [Row(None, event) for p, (event, _) in enumerate(ended) if p not in seen_p]
    return sorted(rows, key=_when)


def _when(row: Row) -> float:
    if row.truth is not None:
        return row.truth.onset_t
    return row.event.onset.t if row.event is not None else 0.0


def _show(rows: Sequence[Row], truth: Truth) -> None:
    from rich import box
    from rich.table import Table

    from apexstream.display import table_console

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="truth beside what was recognized (times in seconds)")
    for name in ("truth", "kind", "onset-apex-offset", "recognized as", "kind", "onset-apex-offset", "IoU", "verdict"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        iou = "" if row.iou is None else f"{row.iou:.2f}"
        table.add_row(*_truth_cells(row.truth), *_event_cells(row.event), iou, row.verdict)
    console = table_console()
    console.print(table)
    found = sum(row.iou is not None for row in rows)
    extra = sum(row.truth is None for row in rows)
    console.print(f"found in time {found} of {len(truth.events)}; found what is not in the clip {extra} times")
    console.print(f"blinks in the clip, which are no expressions: {len(truth.blinks)}")


def _truth_cells(truth: EventTruth | None) -> tuple[str, str, str]:
    if truth is None:
        return "", "", ""
    return truth.label, truth.kind, f"{truth.onset_t:.2f}-{truth.apex_t:.2f}-{truth.offset_t:.2f}"


def _event_cells(event: Event | None) -> tuple[str, str, str]:
    if event is None or event.offset is None:
        return "", "", ""
    times = f"{event.onset.t:.2f}-{event.apex.t:.2f}-{event.offset.t:.2f}"
    return f"{event.label} {event.confidence:.2f}", event.kind or "", times


def write_pictures(out: Path, rows: Sequence[Row], report: Report, trail: FaceTrail) -> Path:
    """A picture for each row, and the overview: truth above what was recognized; returns the overview's path."""
    from apexstream.overview import draw_overview, facts_line, video_times
    from apexstream.pictures import write_strips

    faces = write_strips(report.path, out, [_strip(row, trail) for row in rows], trail)
    lanes = _lanes(rows, faces, trail)
    true, recognized = sum(row.truth is not None for row in rows), sum(row.recognized for row in rows)
    facts = facts_line(report.summary, [f"recognized {recognized} of {true}"])
    start, end = video_times(report.summary)
    path = out / "overview.png"
    draw_overview(path, lanes, title="Known expressions, and what was recognized", facts=facts, start=start, end=end)
    return path


def _strip(row: Row, trail: FaceTrail) -> Strip:
    """The moments of the truth where there is one, else of the event."""
    from apexstream.pictures import Strip

    if row.truth is not None:
        known = row.truth
        marks = Mark(known.onset_frame, known.onset_t), Mark(known.apex_frame, known.apex_t)
        face = row.event.face if row.event is not None else next(iter(trail.faces), None)
        return Strip(_caption(row), known.label, face, *marks, change=True)
    assert row.event is not None
    return Strip(_caption(row), row.event.label, row.event.face, row.event.onset, row.event.apex, change=True)


def _lanes(rows: Sequence[Row], faces: Sequence[U8], trail: FaceTrail) -> list[Lane]:
    """The truth, with faces above it; under it, for each face seen, what was recognized on it."""
    from apexstream.overview import Lane, bar_of

    known = tuple(_truth_bar(row, row.truth, face) for row, face in zip(rows, faces, strict=True) if row.truth is not None)
    marks = {True: " ✓", False: " ✗"}
    found = [(row.event.face, bar_of(row.event, mark=marks[row.recognized])) for row in rows if row.event is not None]
    ids = trail.faces or [0]
    names = [f"on face {face}" if len(ids) > 1 else "recognized" for face in ids]
    below = [
        Lane(name, tuple(bar for owner, bar in found if owner == face), tuple(trail.spells(face)), below=True)
        for face, name in zip(ids, names, strict=True)
    ]
    return [Lane("truth", known), *below]


def _truth_bar(row: Row, truth: EventTruth, face: U8) -> Bar:
    from apexstream.overview import Bar

    text = f"{truth.label}\n{truth.kind}{', missed' if row.event is None else ''}"
    return Bar(truth.onset_t, truth.apex_t, truth.offset_t, truth.label, text, face, truth.amplitude)


def _caption(row: Row) -> str:
    parts = []
    if row.truth is not None:
        parts.append(f"truth: {row.truth.label}, {row.truth.kind} ({row.truth.action.replace('_', ' ')})")
    if row.event is not None:
        parts.append(f"found: {row.event.label} {row.event.confidence:.2f}")
    return "  ·  ".join([*parts, row.verdict])
