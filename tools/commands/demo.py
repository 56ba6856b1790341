"""`apexstream demo`: a clip whose expressions are known, analysed like any other video, truth beside what was recognized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.types import U8, Event
from tools.quiet import native_noise_hidden

if TYPE_CHECKING:
    from tools.clips import ClipSpec, Truth
    from tools.clips.spec import EventTruth

CHANGE_GAIN = 4.0
"""How much the change from onset to apex is enlarged in the pictures: it is too small to be seen as it is."""


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
    headless: Annotated[bool, typer.Option("--headless", help="Open no page.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for clip, events and pictures.")] = Path("demo-out"),
    seconds: Annotated[float, typer.Option("--seconds", min=2, max=3600, help="Length of the clip.")] = 30.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another number is another clip.")] = 0,
) -> None:
    """Render a clip with known micro-expressions, analyse it, and show truth beside what was recognized.

    Leaves in DIR the clip with its truth, the files `apexstream analyze` would write, and a picture of each expression. The
    last line says how many expressions were found in time and named rightly.
    """
    from tools.clips import preset

    with native_noise_hidden(not ctx.obj["debug"]):
        spec = preset("benchmark", seed=seed, duration_s=seconds)
        truth, events = _render_and_analyse(spec, out)
        rows = compare(truth.events, events)
        pictures = write_pictures(spec, out, rows)
    _show(rows, truth)
    typer.echo(f"pictures: {pictures} in {out.resolve()} (onset, apex, and the change between them x {CHANGE_GAIN:.0f})")
    typer.echo(f"recognized {sum(row.recognized for row in rows)} of {len(truth.events)}")


def _render_and_analyse(spec: ClipSpec, out: Path) -> tuple[Truth, tuple[Event, ...]]:
    from stream.analysis import analyze
    from tools.clips import plan, write_clip
    from tools.commands.analyze import stopped_by_signals
    from tools.display import progress_bar

    _make_folder(out)
    clip, count = out / "clip.mp4", plan(spec).frames
    typer.echo(f"rendering {spec.duration_s:g} s of a face with known expressions: {clip}")
    with progress_bar("rendering") as progress:
        truth = write_clip(spec, clip, lambda done: progress(done + 1, count, 0))
    typer.echo("analysing it like any other video")
    with stopped_by_signals() as stop, progress_bar("analysing") as progress:
        report = analyze(clip, out / "clip", progress=progress, stop=stop)
    if report.problem is not None:
        from engine.errors import SourceError

        raise SourceError(report.problem)
    speed, times = report.summary["frames_per_s"], report.summary["times_real_time"]
    typer.echo(f"{report.summary['video']['frames']} frames at {speed:.0f} frames/s ({times:.1f} x real time)")
    return truth, report.events


def _make_folder(out: Path) -> None:
    from engine.errors import OutputError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {out} cannot be made: {error.strerror}; choose another with --out") from error


def compare(truths: Sequence[EventTruth], events: Sequence[Event]) -> list[Row]:
    """Truth beside what was found, in order of time: the challenge's rule, an overlap of at least one half, each once."""
    from training.spotting import Interval, match, overlap

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

    from tools.display import table_console

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


def write_pictures(spec: ClipSpec, out: Path, rows: Sequence[Row]) -> int:
    """A PNG for each row: the face at onset, at apex, and the change enlarged, under a line of truth and verdict."""
    import cv2

    from engine.errors import OutputError

    for old in out.glob("event-*.png"):
        old.unlink()
    wanted = [_frames(row) for row in rows]
    frames = _frames_of(out / "clip.mp4", {index for pair in wanted for index in pair})
    for number, (row, (onset, apex)) in enumerate(zip(rows, wanted, strict=True), start=1):
        path = out / f"event-{number:02d}.png"
        picture = _picture(_face(frames[onset], spec), _face(frames[apex], spec), _caption(row))
        if not cv2.imwrite(str(path), picture):
            raise OutputError(f"the picture {path} cannot be written; choose another folder with --out")
    return len(rows)


def _frames(row: Row) -> tuple[int, int]:
    """(onset, apex) frame of the truth where there is one, else of the event."""
    if row.truth is not None:
        return row.truth.onset_frame, row.truth.apex_frame
    return (row.event.onset.frame, row.event.apex.frame) if row.event is not None else (0, 0)


def _frames_of(clip: Path, indices: set[int]) -> dict[int, Any]:
    """BGR pictures of these frames."""
    import cv2

    from stream.source import open_video

    with open_video(clip) as source:
        return {frame.index: cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR) for frame in source if frame.index in indices}


def _face(frame: U8, spec: ClipSpec) -> U8:
    """The middle of the frame, where the clips have the face."""
    height, width = frame.shape[:2]
    half = round(1.6 * spec.eye_px)
    return frame[max(0, height // 2 - half) : height // 2 + half, max(0, width // 2 - half) : width // 2 + half]


def _picture(onset: U8, apex: U8, caption: str) -> U8:
    import cv2
    import numpy as np

    change = np.clip(128 + CHANGE_GAIN * (apex.astype(np.float32) - onset), 0, 255).astype(np.uint8)
    row = np.hstack([onset, apex, change])
    bar = np.zeros((28, row.shape[1], 3), np.uint8)
    cv2.putText(bar, caption, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([bar, row])


def _caption(row: Row) -> str:
    parts = []
    if row.truth is not None:
        action = row.truth.action.replace("_", " ")
        parts.append(f"truth: {row.truth.label}, {row.truth.kind} ({action}) at {row.truth.apex_t:.2f} s")
    if row.event is not None:
        parts.append(f"found: {row.event.label} {row.event.confidence:.2f} at {row.event.apex.t:.2f} s")
    return " | ".join([*parts, row.verdict])
