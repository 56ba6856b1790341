"""Figures of real clips -> tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from lab.clip_bench.real.score import RealResult
from lab.clip_bench.tables import confusion_table, new_table, share


def real_tables(summary: Mapping[str, Any]) -> list[Table]:
    """All tables that there is something for."""
    tables = [_rates("events by kind of clip (others match no known expression)", summary["kinds"])]
    if summary["people"]:
        tables.append(_rates("events by person", summary["people"]))
    if summary["truths"]:
        tables += [
            _found("known expressions found: overlap of at least one half", summary["truths"], "overlap"),
            _found("known expressions found: apex inside", summary["truths"], "apex"),
        ]
    if summary["labelled"]:
        title = "surest named event of a clip: class of the clip down, event across"
        tables.append(confusion_table(summary["labelled"]["answers"], title))
    return tables


def result_line(result: RealResult) -> str:
    """A clip done, in a sentence's length."""
    record, events = result.record, result.events
    problem = f"; {record['problem']}" if record["problem"] else ""
    hits = f", {len(result.by_overlap)} of {len(result.clip.truths)} known found" if result.clip.truths else ""
    counts = f"{len(events)} events, {sum(e.named for e in events)} named, {record['blinks']} blinks{hits}"
    return (
        f"{result.clip.name} ({result.clip.kind}): {counts} in {record['seconds']:.1f} s; {record['pipeline_s']:.0f} s{problem}"
    )


def _rates(title: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("clips", "minutes", "events", "named", "events/min", "named/min", "others/min", "named", "blinks/min")
    table = new_table(*columns, "face", title=title)
    for g in groups:
        counts = (str(g["clips"]), f"{g['minutes']:.2f}", str(g["events"]), str(g["named"]))
        per_minute = [g[f"{name}_per_min"] for name in ("events", "named", "others", "others_named", "blinks")]
        rates = ["" if rate is None else f"{rate:.1f}" for rate in per_minute]
        table.add_row(g["group"], *counts, *rates, share(g["frames_with_face"] / g["frames"] if g["frames"] else None))
    return table


def _found(title: str, groups: Sequence[Mapping[str, Any]], way: str) -> Table:
    table = new_table("truths", "found", "hits", "recall", "precision", "F1", "named", "class right", title=title)
    for g in groups:
        f = g[way]
        found = "" if g["found"] is None else str(g["found"])
        right = f"{share(f['class_accuracy'])} ({f['right']}/{f['judged']})" if f["judged"] else ""
        scores = (share(f["recall"]), share(f["precision"]), share(f["f1"]))
        table.add_row(g["group"], str(g["truths"]), found, str(f["hits"]), *scores, str(f["named"]), right)
    return table
