"""The events of a video as a coder reviewed them, ready for export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from engine.types import MICRO_LIMIT_S, Event, Kind, Mark
from stream.events.formats import Entry
from stream.recorded.results import Results, read_results
from stream.review.codes import Code
from stream.review.database import Blind, ReviewDatabase


def reviewed_entries(folder: Path, coder: str) -> list[Entry]:
    """The events of the results in folder as the coder left them, by onset: accepted ones with the coder's marks, relabelled
    ones with the coder's class, those added; rejected ones and those without a decision (`undecided`) are left out.

    fields["review"] is {"coder", "decision", "action_units", "note"}. Where the class is the coder's, its probability and the
    confidence are 1, and model names the coder. Raises InputError where there are no results, or nothing by that coder.
    """
    results, codes, _ = _coded(folder, coder)
    machine = {entry.event.id: entry for entry in results.entries}
    entries = [entry for code in codes if code.is_expression for entry in _entry(code, machine, results)]
    return sorted(entries, key=lambda entry: (entry.event.onset.t, entry.event.face, entry.event.id))


def undecided(folder: Path, coder: str) -> list[Entry]:
    """The machine's events that the coder has not decided about; none where the coder was not shown any. Raises as
    `reviewed_entries`."""
    results, codes, blind = _coded(folder, coder)
    decided = {code.event for code in codes if code.decision != "open"}
    return [entry for entry in results.entries if blind != "machine" and entry.event.id not in decided]


def _coded(folder: Path, coder: str) -> tuple[Results, list[Code], Blind]:
    results = read_results(folder)
    with ReviewDatabase.open_existing(folder) as database:
        blind = database.blind_of(coder)
        database.require_same_events(results.entries)
        return results, database.codes(coder), blind


def _entry(code: Code, machine: dict[str, Entry], results: Results) -> Iterator[Entry]:
    """The entry of a code; none where the machine's event that it is about is no longer there."""
    if code.onset is None or code.apex is None or code.offset is None:
        return
    if code.event is None:
        event = coded_event(code, results.stream, code.onset, code.apex, code.offset)
    elif code.event in machine:
        event = _changed_event(machine[code.event].event, code, code.onset, code.apex, code.offset)
    else:
        return
    entry = Entry.recorded(event, results.origin)
    review = {
        "coder": code.coder,
        "decision": code.decision,
        "action_units": list(code.action_units),
        "note": code.note,
    }
    yield Entry(entry.event, {**entry.fields, "review": review}, entry.origin)


def _changed_event(event: Event, code: Code, onset: Mark, apex: Mark, offset: Mark) -> Event:
    if code.label != event.label:
        coded = coded_event(code, event.stream, onset, apex, offset)
        return replace(coded, intensity=event.intensity, speaking=event.speaking)
    changed = (onset, apex, offset) != (event.onset, event.apex, event.offset)
    return replace(event, onset=onset, apex=apex, offset=offset, kind=_kind(onset, offset) if changed else event.kind)


def coded_event(code: Code, stream: str, onset: Mark, apex: Mark, offset: Mark) -> Event:
    """A code as an event with these marks, whose class is certain."""
    return Event(
        id=code.id,
        stream=stream,
        face=code.face,
        state="final",
        kind=_kind(onset, offset),
        onset=onset,
        apex=apex,
        offset=offset,
        label=code.label,
        probabilities={code.label: 1.0},
        confidence=1.0,
        intensity=0.0,
        model=f"coder {code.coder}",
    )


def _kind(onset: Mark, offset: Mark) -> Kind:
    return "micro" if offset.t - onset.t <= MICRO_LIMIT_S + 1e-6 else "macro"
