"""The page of real clips: every event as a strip of pictures, clip by clip, with what is known of it.

OUT/index.html reads offline and needs only OUT/pictures beside it. It shows people: share it as the videos may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from engine.errors import OutputError
from lab.clip_bench.real.folder import KINDS
from lab.clip_bench.real.score import RealEvent, RealResult
from lab.clip_bench.tables import share
from stream.recorded.colours import colour_of


def write_page(out: Path, results: Sequence[RealResult], summary: dict[str, Any]) -> Path:
    """Write OUT/index.html and return its path; OutputError where that, or jinja2, fails."""
    try:
        jinja2 = import_module("jinja2")
    except ImportError as error:
        raise OutputError(f"the page needs jinja2 ({error}): pip install 'apexstream[train]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = share
    sections = [(g, [_clip(r) for r in results if r.clip.kind == g["group"]]) for g in summary["kinds"] if g["group"] in KINDS]
    path = out / "index.html"
    try:
        path.write_text(environment.get_template("page.html.j2").render(s=summary, sections=sections), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the page cannot be written to {path}: {error.strerror or error}; choose another --out") from error
    return path


def _clip(result: RealResult) -> dict[str, Any]:
    found = {*result.by_overlap.values(), *result.by_apex.values()}
    return {
        "clip": result.clip,
        "record": result.record,
        "events": [_event(result, number) for number in range(len(result.events))],
        "missed": [truth for number, truth in enumerate(result.clip.truths) if number not in found],
    }


def _event(result: RealResult, number: int) -> dict[str, Any]:
    event = result.events[number]
    return {
        "event": event,
        "colour": colour_of(event.label),
        "picture": event.details["picture"],
        "notes": _notes(event),
        "truth": _truth(result, number) if result.clip.truths else "",
        "other": bool(result.clip.truths) and event in result.others,
        "best": bool(result.clip.label) and event is result.best,
    }


def _truth(result: RealResult, number: int) -> str:
    """How an event lies to the known expressions of its clip."""
    overlap, apex = result.by_overlap.get(number), result.by_apex.get(number)
    which = apex if overlap is None else overlap
    if which is None:
        return "matches no known expression" if result.events[number] in result.others else "inside one that has its event"
    truth = result.clip.truths[which]
    ways = [way for way, pair in (("overlap", overlap), ("apex inside", apex)) if pair is not None]
    times = f"{truth.onset:.2f}-{truth.apex:.2f}-{truth.offset:.2f} s"
    return f"{' and '.join(ways)}: {truth.source} {truth.label or 'without a class'}, {times}"


def _notes(event: RealEvent) -> list[str]:
    """The other facts of an event."""
    details = event.details
    notes = [f"face {details['face']}", str(details["kind"]), f"{details['intensity']:.2f} px"]
    if details.get("expression_probability") is not None:
        notes.append(f"expression {details['expression_probability']:.2f}")
    if details.get("speaking"):
        notes.append("speaking")
    if details.get("why"):
        notes.append(f"uncertain: {details['why']}")
    return [*notes, "cut short"] if details.get("truncated") else notes
