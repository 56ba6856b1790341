from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine.types import Activity, Mark
from stream import protocol
from stream.events.store import Store
from stream.messages import Acted, Decided
from stream.outlets.lsl import QUEUED, LslOutlet, clock_difference
from stream.outlets.settings import LslSettings
from tests.events import an_event
from tests.live import PATIENCE_S
from tests.outlets import context, final, reaches, signal, started, status

EXACT_S = 0.001


class Recorder:
    """Inlets for the streams of one outlet, as a recorder opens them."""

    def __init__(self, lsl: Any, store: Store, *sorts: str, source: str = "lobby") -> None:
        self.inlets = {}
        for sort in sorts:
            found = lsl.resolve_byprop("source_id", f"apexstream-{store.identity}-{source}-{sort}", timeout=PATIENCE_S)
            assert found, f"there is a stream of {sort}"
            self.inlets[sort] = lsl.StreamInlet(found[0])
            self.inlets[sort].open_stream(timeout=PATIENCE_S)

    def next(self, sort: str) -> tuple[Any, float]:
        """The next sample and its time, by this machine's clock."""
        sample, at = self.inlets[sort].pull_sample(timeout=PATIENCE_S)
        assert sample is not None, f"a sample of {sort}"
        return sample, at


@pytest.fixture
def lsl() -> Any:
    import pylsl

    return pylsl


@pytest.fixture
def sender(store: Store, lsl: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    settings = LslSettings(**getattr(request, "param", {}))
    with started(LslOutlet(settings, context(store))) as outlet:
        reaches(outlet, lambda now: now.state == "working", "the streams")
        yield outlet


def test_marks_have_the_time_at_which_their_frame_was_captured(sender: LslOutlet, store: Store, lsl: Any) -> None:
    recorder = Recorder(lsl, store, "markers", "events")
    for number in (3, 1000):
        captured = lsl.local_clock() - 5.0  # the onset was five seconds ago
        message = final(store, number, clock_offset=captured - number - clock_difference(lsl.local_clock))
        sender.offer(message)
        for moment, after in (("onset", 0.0), ("apex", 0.2), ("offset", 0.4)):
            sample, at = recorder.next("markers")
            assert sample == [f"{moment}/micro/surprise/face0"]
            assert at == pytest.approx(captured + after, abs=EXACT_S)
        sample, at = recorder.next("events")
        fields = json.loads(sample[0])
        assert at == pytest.approx(captured, abs=EXACT_S)
        assert fields.pop("lsl") == pytest.approx({"onset": at, "apex": at + 0.2, "offset": at + 0.4}, abs=EXACT_S)
        assert fields == message.body
    reaches(sender, lambda now: now.sent == 2, "the count")


def test_the_last_events_are_received_though_the_stream_ends(store: Store, lsl: Any) -> None:
    messages = [final(store, number) for number in range(20)]
    with started(LslOutlet(LslSettings(events=False), context(store))) as outlet:
        reaches(outlet, lambda now: now.state == "working", "the streams")
        recorder = Recorder(lsl, store, "markers")
        for message in messages:
            outlet.offer(message)
    assert [recorder.next("markers")[0][0].partition("/")[0] for _ in range(60)] == ["onset", "apex", "offset"] * 20


def test_two_clocks_are_compared_by_the_reading_that_was_interrupted_least() -> None:
    steps = iter([0.0, 0.05, 0.0, 0.02, 0.0])

    def clock() -> float:
        time.sleep(next(steps))  # as when the system runs another program between two readings
        return time.monotonic() + 7.0

    assert clock_difference(clock) == pytest.approx(7.0, abs=EXACT_S)


@pytest.mark.parametrize("sender", [{"motion": True, "delay_ms": 80.0}], indirect=True)
def test_the_motion_of_every_frame_and_the_cameras_delay(sender: LslOutlet, store: Store, lsl: Any) -> None:
    recorder = Recorder(lsl, store, "motion")
    offset = time.monotonic() - 2.0
    sender.offer(signal("speech", clock_offset=offset))
    shift = clock_difference(lsl.local_clock) + offset - 0.08
    for values, t in (([2, 0.1, 0.01], 1.0), ([2, 0.5, 0.02], 1.04), ([2, 2.0, 0.3], 1.08)):
        sample, at = recorder.next("motion")
        assert sample == pytest.approx(values) and at == pytest.approx(t + shift, abs=EXACT_S)


def test_a_whole_day_of_messages_without_pylsl_takes_no_more_memory(store: Store) -> None:
    outlet = LslOutlet(LslSettings(), context(store))
    event = final(store, 1)
    for _ in range(QUEUED + 5):
        outlet.offer(event)
    assert len(outlet._queue) == QUEUED and outlet.status.dropped == 5


@pytest.mark.parametrize("sender", [{"activities": True, "provisional": True}], indirect=True)
def test_activities_and_provisional_events_on_request(sender: LslOutlet, store: Store, lsl: Any) -> None:
    recorder = Recorder(lsl, store, "markers")
    activity = Activity(1, "speech", Mark(30, 1.0), Mark(60, 2.0))
    sender.offer(protocol.activity(Acted("lobby", activity, time.monotonic())))
    decided = Decided(an_event(4, state="provisional"), time.monotonic())
    sender.offer(protocol.expression(decided.event.as_dict(), origin=decided))
    got = [recorder.next("markers") for _ in range(4)]
    assert [sample[0] for sample, _ in got] == [
        "start/speech/face1",
        "end/speech/face1",
        "provisional/onset/surprise/face0",
        "provisional/apex/surprise/face0",
    ]
    assert got[1][1] - got[0][1] == pytest.approx(1.0, abs=EXACT_S)


def test_without_them_only_final_events_are_sent(sender: LslOutlet, store: Store, lsl: Any) -> None:
    recorder = Recorder(lsl, store, "markers")
    decided = Decided(an_event(4, state="provisional"), time.monotonic())
    sender.offer(protocol.expression(decided.event.as_dict(), origin=decided))
    sender.offer(protocol.activity(Acted("lobby", Activity(1, "speech", Mark(30, 1.0), Mark(60, 2.0)))))
    sender.offer(signal())
    sender.offer(final(store, 5, label="positive"))
    assert recorder.next("markers")[0] == ["onset/micro/positive/face0"]
    assert not lsl.resolve_byprop("source_id", f"apexstream-{store.identity}-lobby-motion", timeout=0.1)


@pytest.mark.parametrize("sender", [{"motion": True}], indirect=True)
def test_streams_describe_themselves(sender: LslOutlet, store: Store, lsl: Any) -> None:
    recorder = Recorder(lsl, store, "markers", "motion")
    info = recorder.inlets["motion"].info(timeout=PATIENCE_S)
    assert (info.name(), info.type(), info.nominal_srate()) == ("apexstream lobby motion", "Motion", 0.0)
    channels, labels = info.desc().child("channels").child("channel"), []
    while not channels.empty():
        labels.append((channels.child_value("label"), channels.child_value("unit")))
        channels = channels.next_sibling()
    assert labels == [("face", ""), ("loudness", "thresholds"), ("moved", "px")]
    acquisition = info.desc().child("acquisition")
    assert acquisition.child_value("network") == "ahmsa-3db@sha256:0123456789ab"
    assert acquisition.child_value("source") == "lobby"
    assert recorder.inlets["markers"].info(timeout=PATIENCE_S).type() == "Markers"


def test_a_browsers_camera_gets_streams_with_its_first_status_until_it_is_removed(
    sender: LslOutlet, store: Store, lsl: Any
) -> None:
    sender.offer(status("phone"))
    Recorder(lsl, store, "markers", source="phone")
    sender.offer(protocol.removed("phone"))
    until = time.monotonic() + PATIENCE_S
    while lsl.resolve_byprop("source_id", f"apexstream-{store.identity}-phone-markers", timeout=0.1):
        assert time.monotonic() < until, "the stream ends with its source"


def test_a_missing_package_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with started(LslOutlet(LslSettings(), context(store))) as outlet:
        reported = reaches(outlet, lambda now: now.state == "off", "the end")
        assert reported.detail == "pylsl is not installed; run pip install 'apexstream[lsl]'"
        outlet.offer(final(store, 1))
