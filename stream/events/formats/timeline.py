"""Events on one clock that starts at zero, as players and annotation tools count it.

Of a recorded video that is the player's clock. Streams stored live have clocks of their own, which begin anywhere: they are
placed by when frames were captured, or, where that is not known, by when their events were sent, and zero is the first onset;
within a stream the distances are those of its own clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from engine.errors import InputError
from engine.text import plain
from stream.events.formats.entry import Entry, Recording

if TYPE_CHECKING:
    from engine.types import Mark

MAX_EVENTS = 20_000
"""The most events of one document, all of which are in memory while it is made."""
SHORTEST_S = 0.04
"""What lasts no time, or less than it, is shown so long."""
SAME_CLOCK_S = 10.0
"""How much the delay of events of one clock may vary; a larger change is another clock."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
T = TypeVar("T")


@dataclass(frozen=True)
class Placed:
    """An event in seconds of the timeline, 0 <= onset <= apex <= offset and onset < offset; subject names whose face it is."""

    entry: Entry
    subject: str
    onset: float
    apex: float
    offset: float


@dataclass(frozen=True)
class Doing:
    """An activity of a face in seconds of the timeline, 0 <= start < end, and in frames."""

    subject: str
    kind: str
    start: float
    end: float
    frames: tuple[int, int]


@dataclass(frozen=True)
class Timeline:
    """Events and activities in ascending order; length_s is no less than the end of the last of them. began is when zero was,
    for events stored live; to a second or so where their onset_at is missing."""

    events: tuple[Placed, ...]
    activities: tuple[Doing, ...]
    length_s: float
    recording: Recording | None
    began: datetime | None = None

    @property
    def subjects(self) -> list[str]:
        """Whose faces are in it, one at least."""
        found = {one.subject for one in self.events} | {one.subject for one in self.activities}
        return sorted(found) or ["face 0"]

    @property
    def date(self) -> str:
        """When the events were recorded, UTC: zero of those stored live, else when the video was written last; 1970 where that
        is not known. As 2026-01-31T09:00:00."""
        moment, path = self.began, None if self.recording is None else self.recording.path
        if path is not None:
            with suppress(OSError):
                moment = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return (moment or EPOCH).replace(tzinfo=None).isoformat(timespec="seconds")


def timeline(entries: Iterable[Entry], recording: Recording | None) -> Timeline:
    """The events of a recording, or (None) those stored live, on one clock; those that end before zero are left out.

    Raises InputError where there are more than MAX_EVENTS.
    """
    collected: list[Entry] = []
    for entry in entries:
        if len(collected) == MAX_EVENTS:
            raise InputError(
                f"a file of this format holds {MAX_EVENTS:,} events at most: choose fewer, or export jsonl, csv or parquet"
            )
        if entry.event.offset is not None:
            collected.append(entry)
    if recording is None:
        zeros, began = _live_zeros(collected)
    else:
        zeros, began = [entry.origin or 0.0 for entry in collected], None
    pairs = zip(collected, zeros, strict=True)
    placed = [one for entry, zero in pairs if (one := _placed(entry, zero, several=recording is None)) is not None]
    placed.sort(key=lambda one: (one.onset, one.subject))
    doing = [] if recording is None else _doing(recording)
    ends = [0.0, *(one.offset for one in placed), *(one.end for one in doing)]
    declared = (recording and recording.length_s) or 0.0
    return Timeline(tuple(placed), tuple(doing), max(declared, *ends, SHORTEST_S), recording, began)


def without_overlap(items: Sequence[T], start: Callable[[T], float], end: Callable[[T], float]) -> list[list[T]]:
    """The items in as few rows as keep items of one row from overlapping, each row in ascending order; one row at least."""
    rows: list[list[T]] = [[]]
    for item in sorted(items, key=start):
        row = next((row for row in rows if not row or end(row[-1]) <= start(item)), None)
        if row is None:
            rows.append(row := [])
        row.append(item)
    return rows


def milliseconds(t: float) -> int:
    """Seconds in whole milliseconds, rounded up: there a player shows the frame that begins at t, not the one before."""
    return math.ceil(round(t * 1000, 3))


def seconds(t: float) -> float:
    """Seconds with three decimals, rounded as `milliseconds`."""
    return milliseconds(t) / 1000


def _placed(entry: Entry, zero: float, *, several: bool) -> Placed | None:
    event = entry.event
    assert event.offset is not None
    if event.offset.t < zero:
        return None
    subject = f"{plain(event.stream)} face {event.face}" if several else f"face {event.face}"
    onset = max(event.onset.t - zero, 0.0)
    offset = max(event.offset.t - zero, onset + SHORTEST_S)
    apex = min(max(event.apex.t - zero, onset), offset)
    return Placed(entry, subject, round(onset, 6), round(apex, 6), round(offset, 6))


def _doing(recording: Recording) -> list[Doing]:
    def played(mark: Mark) -> float:
        return round(max(mark.t - recording.origin, 0.0), 6)

    found = [
        Doing(
            f"face {one.face}",
            one.kind,
            played(one.start),
            max(played(one.end), played(one.start) + SHORTEST_S),
            (one.start.frame, one.end.frame),
        )
        for one in recording.activities
        if one.end.t >= recording.origin
    ]
    return sorted(found, key=lambda one: (one.start, one.subject, one.kind))


def _live_zeros(entries: Sequence[Entry]) -> tuple[list[float], datetime | None]:
    """For each event the time of its stream's clock at the timeline's zero, and when that was.

    A clock is placed by when the frames of onsets were captured, else by its least delay from the end of an event to when it
    was sent.
    """
    clocks: list[float] = []
    of_stream: dict[str, int] = {}
    of_entry: list[int] = []
    for entry in entries:
        event = entry.event
        assert event.offset is not None
        if (captured := entry.fields.get("onset_at")) is not None:
            shift = datetime.fromisoformat(captured).timestamp() - event.onset.t
        else:
            sent = datetime.fromisoformat(entry.fields["emitted_at"]).timestamp()
            shift = sent - (entry.fields["latency_ms"] or 0.0) / 1000 - event.offset.t
        clock = of_stream.get(event.stream)
        if clock is None or abs(shift - clocks[clock]) > SAME_CLOCK_S:
            clock = of_stream[event.stream] = len(clocks)
            clocks.append(shift)
        clocks[clock] = min(clocks[clock], shift)
        of_entry.append(clock)
    if not entries:
        return [], None
    began = min(clocks[clock] + entry.event.onset.t for entry, clock in zip(entries, of_entry, strict=True))
    return [began - clocks[clock] for clock in of_entry], EPOCH + timedelta(seconds=began)
