"""Figures -> tables and lists on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from apexstream.clips.spec import EventTruth
from lab.clip_bench.score import ABSTAIN, Case, Figures, Stray, Timing, nearest
from lab.clip_bench.watch import Found, Watched

WAYS_IN_WORDS = {
    "keypoints": "keypoints of every frame",
    "first": "keypoints of the first frame",
    "registrar": "registration (Registrar)",
    "best": "best similarity on the truth",
}
_NEAR_BLINK_S = 0.25


def spotting_tables(lines: Sequence[Figures]) -> list[Table]:
    """What was found, and how well it was named and timed."""
    found = new_table("truths", "found", "spotted", "precision", "recall", "F1")
    named = new_table("class right", "uncertain", "micro/macro", "onset ms", "apex ms", "offset ms", "announced after ms")
    found.title, named.title = "spotting (overlap of at least one half)", "of the spotted; mean absolute error (mean error)"
    for f in lines:
        found.add_row(f.group, str(f.truths), _cell(f.found), str(f.tp), share(f.precision), share(f.recall), share(f.f1))
        right = f"{share(f.class_accuracy)} ({f.right}/{f.named})"
        times = [_timing(t) for t in (f.onset, f.apex, f.offset)]
        delay = "" if f.announced_ms is None else f"{f.announced_ms:.0f}"
        named.add_row(f.group, right, f"{f.uncertain}/{f.tp}", share(f.kind_accuracy), *times, delay)
    return [found, named]


def confusion_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """True classes down, event classes across."""
    named = list(next(iter(counts.values()), {}))
    table = new_table(*named)
    table.title = "class: true down, event across"
    for true, row in counts.items():
        table.add_row(true, *(str(row[guess]) for guess in named))
    return table


def still_table(summary: Mapping[str, Any]) -> Table:
    """False events on faces without expression."""
    table = new_table("minutes", "false events", "in 10 min", "of them micro", "withdrawn", "blinks true", "recognized")
    table.title = "faces without expression"
    for g in summary["groups"]:
        false = (str(g["false_events"]), f"{g['false_per_10_min']:.2f}", str(g["false_micro"]), str(g["withdrawn"]))
        table.add_row(g["group"], f"{g['minutes']:.1f}", *false, str(g["blinks_true"]), str(g["blinks_recognized"]))
    return table


def registration_table(summary: Mapping[str, Any]) -> Table:
    """Residual motion by way of holding the face."""
    lag = f"{summary['lag_s']:g} s"
    table = new_table("true points: spread", f"change in {lag}", f"flow between crops {lag} apart")
    table.title = "a still face, root mean square, px of the 128 px crop"
    for way, px in summary["ways"].items():
        table.add_row(WAYS_IN_WORDS[way], f"{px['spread_px']:.3f}", f"{px['change_px']:.3f}", f"{px['flow_px']:.3f}")
    regions = summary["regions"]
    table.add_row("motion reported by region", f"{regions['spread_px']:.3f}", f"{regions['change_px']:.3f}", "")
    return table


def miss_lines(cases: Sequence[Case], strays: Sequence[Stray]) -> Iterator[str]:
    """Every miss, false event and wrong class in a sentence, clip by clip."""
    lines = [(c.clip.name, c.truth.onset_t, _case_line(c)) for c in cases]
    lines += [(s.clip.name, s.found.onset, _stray_line(s)) for s in strays]
    yield from (f"{name}: {line}" for name, _, line in sorted(lines) if line)


def _case_line(case: Case) -> str:
    if case.found is None:
        near = nearest(case.clip, case.truth.onset_t, case.truth.offset_t, "found")
        reason = "nothing was found there" if near is None else f"overlap {near[1]:.2f} with {_event(case.clip.found[near[0]])}"
        return f"missed {_truth(case.truth)}; {reason}"
    if case.found.label not in (ABSTAIN, case.truth.label):
        return f"wrong class for {_truth(case.truth)}: {_event(case.found)}"
    return ""


def _stray_line(stray: Stray) -> str:
    found, clip = stray.found, stray.clip
    near = nearest(clip, found.onset, found.offset, "true")
    if near is not None:
        return f"false {_event(found)}; overlap {near[1]:.2f} with {_truth(clip.truths[near[0]])}"
    blinks = [b for b in clip.blinks if b.start_t < found.offset + _NEAR_BLINK_S and b.end_t > found.onset - _NEAR_BLINK_S]
    cause = f"a blink at {blinks[0].closed_t:.2f} s" if blinks else "the face is still there"
    return f"false {_event(found)}; {cause}"


def clip_line(clip: Watched) -> str:
    """A clip done, in a sentence's length."""
    from lab.clip_bench.score import compare

    cases, strays = compare([clip])
    hit = sum(c.found is not None for c in cases)
    return f"{clip.name}: {hit} of {len(cases)} spotted, {len(strays)} false; {clip.pipeline_s:.0f} s"


def _truth(e: EventTruth) -> str:
    return f"{e.action} ({e.kind}, {e.amplitude:.1f} px, {e.onset_t:.2f}-{e.apex_t:.2f}-{e.offset_t:.2f} s)"


def _event(f: Found) -> str:
    cut = ", cut short" if f.truncated else ""
    times = f"{f.onset:.2f}-{f.apex:.2f}-{f.offset:.2f} s"
    return f"{f.label} {f.confidence:.2f} ({f.kind}, {f.intensity:.2f} px of flow, {times}{cut})"


def new_table(*columns: str, title: str | None = None) -> Table:
    """An empty table: a column for the group, then the columns of figures."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)


def share(value: float | None) -> str:
    """A share in per cent; nothing for None."""
    return "" if value is None else f"{100 * value:.1f} %"


def _timing(timing: Timing | None) -> str:
    return "" if timing is None else f"{timing.absolute_ms:.0f} ({timing.signed_ms:+.0f})"
