"""Figures -> tables and lists on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from apexstream.clips.spec import EventTruth
from lab.clip_bench.score import ABSTAIN, Case, Stray, compare, intervals, nearest
from lab.clip_bench.watch import Found, Watched

WAYS_IN_WORDS = {
    "keypoints": "keypoints of every frame",
    "first": "keypoints of the first frame",
    "registrar": "registration (Registrar)",
    "best": "best similarity on the truth",
}
_NEAR_BLINK_S = 0.25


def spotting_tables(lines: Sequence[Mapping[str, Any]]) -> list[Table]:
    """What was found, and how well it was named and timed."""
    counted = ("truths", "found", "spotted", "precision", "recall", "F1")
    found = new_table(*counted, title="spotting (overlap of at least one half)")
    columns = ("class right", "uncertain", "micro/macro", "onset ms", "apex ms", "offset ms", "announced after ms")
    named = new_table(*columns, title="of the spotted; mean absolute error (mean error)")
    for f in lines:
        counts = ("" if f[name] is None else str(f[name]) for name in ("truths", "found", "tp"))
        found.add_row(f["group"], *counts, *(share(f[name]) for name in ("precision", "recall", "f1")))
        right = f"{share(f['class_accuracy'])} ({f['right']}/{f['named']})"
        times = [_timing(f[mark]) for mark in ("onset", "apex", "offset")]
        delay = "" if f["announced_ms"] is None else f"{f['announced_ms']:.0f}"
        named.add_row(f["group"], right, f"{f['uncertain']}/{f['tp']}", share(f["kind_accuracy"]), *times, delay)
    return [found, named]


def confusion_table(counts: Mapping[str, Mapping[str, int]], title: str = "class: true down, event across") -> Table:
    """True classes down, event classes across."""
    named = list(next(iter(counts.values()), {}))
    table = new_table(*named, title=title)
    for true, row in counts.items():
        table.add_row(true, *(str(row[guess]) for guess in named))
    return table


def still_table(summary: Mapping[str, Any]) -> Table:
    """False events on faces without expression."""
    columns = ("minutes", "false events", "in 10 min", "of them micro", "withdrawn", "blinks true", "recognized")
    table = new_table(*columns, title="faces without expression")
    for g in summary["groups"]:
        counts = (str(g[name]) for name in ("false_micro", "withdrawn", "blinks_true", "blinks_recognized"))
        table.add_row(g["group"], f"{g['minutes']:.1f}", str(g["false_events"]), f"{g['false_per_10_min']:.2f}", *counts)
    return table


def registration_table(summary: Mapping[str, Any]) -> Table:
    """Residual motion by way of holding the face."""
    lag = f"{summary['lag_s']:g} s"
    columns = ("true points: spread", f"change in {lag}", f"flow between crops {lag} apart")
    table = new_table(*columns, title="a still face, root mean square, px of the 128 px crop")
    rows = {WAYS_IN_WORDS[way]: px for way, px in summary["ways"].items()} | {"motion reported by region": summary["regions"]}
    for name, px in rows.items():
        table.add_row(name, *(f"{px[key]:.3f}" if key in px else "" for key in ("spread_px", "change_px", "flow_px")))
    return table


def miss_lines(cases: Sequence[Case], strays: Sequence[Stray]) -> Iterator[str]:
    """Every miss, false event and wrong class in a sentence, clip by clip."""
    lines = [(c.clip.name, c.truth.onset_t, _case_line(c)) for c in cases]
    lines += [(clip.name, found.onset, _stray_line(clip, found)) for clip, found in strays]
    yield from (f"{name}: {line}" for name, _, line in sorted(lines) if line)


def _case_line(case: Case) -> str:
    if case.found is None:
        near = nearest(case.truth.onset_t, case.truth.offset_t, intervals(case.clip)[0])
        reason = "nothing was found there" if near is None else f"overlap {near[1]:.2f} with {_event(case.clip.found[near[0]])}"
        return f"missed {_truth(case.truth)}; {reason}"
    if case.found.label not in (ABSTAIN, case.truth.label):
        return f"wrong class for {_truth(case.truth)}: {_event(case.found)}"
    return ""


def _stray_line(clip: Watched, found: Found) -> str:
    near = nearest(found.onset, found.offset, intervals(clip)[1])
    if near is not None:
        return f"false {_event(found)}; overlap {near[1]:.2f} with {_truth(clip.truths[near[0]])}"
    blinks = [b for b in clip.blinks if b.start_t < found.offset + _NEAR_BLINK_S and b.end_t > found.onset - _NEAR_BLINK_S]
    cause = f"a blink at {blinks[0].closed_t:.2f} s" if blinks else "the face is still there"
    return f"false {_event(found)}; {cause}"


def clip_line(clip: Watched) -> str:
    """A clip done, in a sentence's length."""
    cases, strays = compare([clip])
    hit = sum(c.found is not None for c in cases)
    return f"{clip.name}: {hit} of {len(cases)} spotted, {len(strays)} false; {clip.pipeline_s:.0f} s"


def _truth(e: EventTruth) -> str:
    return f"{e.action} ({e.kind}, {e.amplitude:.1f} px, {e.onset_t:.2f}-{e.apex_t:.2f}-{e.offset_t:.2f} s)"


def _event(f: Found) -> str:
    cut = ", cut short" if f.truncated else ""
    times = f"{f.onset:.2f}-{f.apex:.2f}-{f.offset:.2f} s"
    return f"{f.label} {f.confidence:.2f} ({f.kind}, {f.intensity:.2f} px of flow, {times}{cut})"


def new_table(*columns: str, title: str) -> Table:
    """An empty table: a column for the group, then the columns of figures."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def share(value: float | None) -> str:
    """A share in per cent; nothing for None."""
    return "" if value is None else f"{100 * value:.1f} %"


def _timing(timing: Mapping[str, float] | None) -> str:
    return "" if timing is None else f"{timing['absolute_ms']:.0f} ({timing['signed_ms']:+.0f})"
