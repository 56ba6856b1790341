from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError
from engine.types import Activity, Mark
from stream.events.formats import Entry, Recording
from stream.events.formats import timeline as module
from stream.events.formats.timeline import SHORTEST_S, milliseconds, timeline, without_overlap
from tests.events import an_event


def live(number: int, t: float, sent: str, latency_ms: float = 0.0, **changes: Any) -> Entry:
    """An event stored live whose source's clock showed t at its onset, 0.4 s long."""
    event = an_event(number, onset=Mark(0, t), apex=Mark(6, t + 0.2), offset=Mark(12, t + 0.4), **changes)
    return Entry.stored({**event.as_dict(), "emitted_at": sent, "latency_ms": latency_ms})


def recorded(number: int, t: float, origin: float, **changes: Any) -> Entry:
    event = an_event(number, onset=Mark(0, t), apex=Mark(6, t + 0.2), offset=Mark(12, t + 0.4), **changes)
    return Entry.recorded(event, origin)


@pytest.mark.parametrize("origin", [0.0, 36_000.0, -7.25])
def test_times_of_a_recording_are_the_players(origin: float) -> None:
    found = timeline([recorded(2, origin + 5, origin), recorded(1, origin + 1.5, origin)], Recording(origin=origin))
    assert [(one.onset, one.apex, one.offset) for one in found.events] == [(1.5, 1.7, 1.9), (5.0, 5.2, 5.4)]
    assert (found.length_s, found.began) == (5.4, None)
    assert found.subjects == ["face 0"]


def test_what_ends_before_zero_is_left_out_and_what_crosses_it_is_cut() -> None:
    entries = [recorded(1, 9.0, 10.0), recorded(2, 9.9, 10.0)]
    (only,) = timeline(entries, Recording(origin=10.0)).events
    assert (only.onset, only.apex, only.offset) == (0.0, 0.1, 0.3)


def test_the_length_is_the_videos_where_it_is_known() -> None:
    assert timeline([recorded(1, 1.0, 0.0)], Recording(length_s=60.0)).length_s == 60.0
    assert timeline([recorded(1, 1.0, 0.0)], Recording(length_s=1.1)).length_s == 1.4, "no event ends after the document"
    assert timeline([], Recording()).length_s > 0


def test_an_event_of_one_frame_lasts_a_moment() -> None:
    event = an_event(1, apex=Mark(30, 1.0), offset=Mark(30, 1.0))
    (only,) = timeline([Entry.recorded(event, 0.0)], Recording()).events
    assert only.offset - only.onset == pytest.approx(SHORTEST_S)


def test_zero_of_live_events_is_the_first_onset() -> None:
    """The clock of a camera begins anywhere; what was sent 5 s late does not move the other events of that clock."""
    first = live(1, 90_001.0, "2026-01-31T09:00:01.900Z", latency_ms=500)
    late = live(2, 90_011.0, "2026-01-31T09:00:16.400Z")
    found = timeline([first, late], None)
    assert [(one.onset, one.offset) for one in found.events] == [(0.0, 0.4), (10.0, 10.4)]
    assert found.began == datetime(2026, 1, 31, 9, 0, 1, tzinfo=UTC)
    assert found.subjects == ["lobby face 0"]


def test_live_events_are_placed_by_when_their_frames_were_captured() -> None:
    first = live(1, 90_001.0, "2026-01-31T09:00:01.900Z")
    second = live(2, 90_002.0, "2026-01-31T09:00:02.950Z", stream="door")
    captured = [
        Entry.stored({**one.fields, "onset_at": at})
        for one, at in ((first, "2026-01-31T09:00:00.800Z"), (second, "2026-01-31T09:00:01.925Z"))
    ]
    found = timeline(captured, None)
    assert found.began == datetime(2026, 1, 31, 9, 0, 0, 800_000, tzinfo=UTC)
    assert [(one.subject, one.onset) for one in found.events] == [("lobby face 0", 0.0), ("door face 0", pytest.approx(1.125))]


def test_streams_and_restarts_are_placed_by_when_their_events_were_sent() -> None:
    entries = [
        live(1, 100.0, "2026-01-31T09:00:00.400Z"),
        live(2, 7.0, "2026-01-31T09:00:10.400Z", stream="door", face=3),
        live(3, 1.0, "2026-01-31T09:01:00.400Z"),
    ]
    found = timeline(entries, None)
    assert [(one.subject, one.onset) for one in found.events] == [
        ("lobby face 0", 0.0),
        ("door face 3", pytest.approx(10.0)),
        ("lobby face 0", pytest.approx(60.0)),
    ]
    assert timeline([], None).events == ()


def test_activities_are_placed_on_the_players_clock() -> None:
    speech = Activity(1, "speech", Mark(3, 10.1), Mark(9, 10.3))
    before = Activity(1, "blink", Mark(0, 9.0), Mark(1, 9.1))
    found = timeline([], Recording(origin=10.0, activities=[speech, before]))
    (only,) = found.activities
    assert (only.subject, only.kind, only.start, only.end, only.frames) == ("face 1", "speech", 0.1, 0.3, (3, 9))
    assert found.subjects == ["face 1"]


def test_more_events_than_a_document_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 2)
    entries = [recorded(number, number, 0.0) for number in range(3)]
    assert len(timeline(entries[:2], Recording()).events) == 2
    with pytest.raises(InputError, match="2 events at most: choose fewer, or export jsonl, csv or parquet"):
        timeline(entries, Recording())


def test_rows_hold_nothing_that_overlaps() -> None:
    spans = [(0, 4), (1, 2), (4, 5), (3, 6), (2, 3)]
    rows = without_overlap(spans, lambda span: span[0], lambda span: span[1])
    assert rows == [[(0, 4), (4, 5)], [(1, 2), (2, 3), (3, 6)]]
    assert without_overlap([], float, float) == [[]]


def test_milliseconds_show_the_frame_itself_not_the_one_before() -> None:
    assert [milliseconds(t) for t in (0.0, 6.833333, 6.834, 0.1 + 0.2)] == [0, 6834, 6834, 300]


def test_the_date_is_that_of_the_recording(tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(b"")
    found = timeline([], Recording(path=video))
    assert found.date == datetime.fromtimestamp(video.stat().st_mtime, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    assert timeline([], Recording(path=tmp_path / "moved.mp4")).date == "1970-01-01T00:00:00"
    assert replace(found, recording=None, began=datetime(2026, 1, 31, 9, tzinfo=UTC)).date == "2026-01-31T09:00:00"
