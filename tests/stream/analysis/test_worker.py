from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from apexstream.clips import preset
from engine import Pipeline
from engine.config import PipelineSettings
from engine.errors import WeightsError
from engine.types import Event, Face, Frame
from stream.analysis.worker import Make, Worker, made
from stream.mailbox import Mailbox
from stream.messages import Arrival, PreviewWish
from tests.faces import Clip, grey_picture, render
from tests.live import PATIENCE_S, Collected, arrivals


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Six seconds with one expression."""
    face = {"size": (360, 300), "eye_px": 80.0, "noise_sigma": 2.0}
    return render(preset("clean", "hopper", 30, seed=1, duration_s=6, n_events=1, macro_fraction=1.0, **face))


@pytest.fixture(scope="module")
def expected(clip: Clip) -> list[dict[str, Any]]:
    """What the pipeline makes of it, without its ids."""
    one = Pipeline.from_config(stream="clip")
    events = [event for frame in clip.frames for event in one.feed(frame)] + one.flush()
    one.close()
    return [without_id(event) for event in events]


def without_id(event: Event) -> dict[str, Any]:
    return {key: value for key, value in event.as_dict().items() if key != "id"}


class Breaking(Pipeline):
    """Fails at one frame, once in the process's life or always."""

    def __init__(self, *args: Any, at: float, broken: list[float], **names: Any) -> None:
        super().__init__(*args, **names)
        self.at, self.broken = at, broken

    def advance(self, frame: Frame, faces: list[Face]) -> list[Event]:
        if frame.t >= self.at and not self.broken:
            self.broken.append(frame.t)
            raise ValueError("a frame that nobody foresaw")
        return super().advance(frame, faces)


def work(frames: Sequence[Arrival], sink: Collected, *, make: Make = made, stream: str = "clip") -> tuple[Worker, list[str]]:
    """A worker that was given these frames and has ended, and what it told."""
    mailbox: Mailbox[Arrival] = Mailbox(max(1, len(frames)), newest=False)
    told: list[str] = []
    worker = Worker(stream, PipelineSettings(), mailbox, sink, session="a", told=told.append, make=make)
    worker.start()
    for arrival in frames:
        mailbox.put(arrival)
    mailbox.close()
    assert worker.join(PATIENCE_S)
    return worker, told


Whole = tuple[list[Arrival], Collected, list[str]]


@pytest.fixture(scope="module")
def whole(clip: Clip) -> Whole:
    """The clip worked through: the frames given, what the sink got, and what was told."""
    sink, given = Collected(), arrivals(clip.frames)
    _, told = work(given, sink)
    return given, sink, told


def test_events_are_those_of_the_pipeline_with_the_arrival_of_what_decided(
    whole: Whole, expected: list[dict[str, Any]]
) -> None:
    given, sink, told = whole
    assert [without_id(one.event) for one in sink.events] == expected
    assert [one.event.state for one in sink.events][:2] == ["provisional", "final"]
    for one in sink.events:
        seen_by_then = [arrival for arrival in given if arrival.arrived <= one.arrived]
        last = one.event.offset or one.event.apex
        assert seen_by_then[-1].arrived == one.arrived and seen_by_then[-1].frame.t >= last.t
    assert told == []


def test_the_signal_carries_every_frame_ten_times_a_second(clip: Clip, whole: Whole) -> None:
    _, sink, _ = whole
    times = [t for signal in sink.signals for face in signal.faces for t in face.t]
    assert times == sorted(set(times))
    assert len(times) >= len(clip.frames) - 3, "the first frames only find the face"
    assert 48 <= len(sink.signals) <= 62
    for signal in sink.signals:
        for face in signal.faces:
            assert len(face.t) == len(face.loudness) == len(face.moved_px) > 0
            assert face.t[-1] == signal.t
    loudest = max((value, t) for s in sink.signals for f in s.faces for value, t in zip(f.loudness, f.t, strict=True))
    (truth,) = clip.truth.events
    assert loudest[0] > 1 and truth.onset_t < loudest[1] < truth.offset_t


def test_activities_are_those_of_the_pipeline(clip: Clip, whole: Whole) -> None:
    one = Pipeline.from_config(stream="clip")
    for frame in clip.frames:
        one.feed(frame)
    one.flush()
    expected = one.activities()
    one.close()
    assert [acted.activity for acted in whole[1].activities] == expected
    assert {acted.stream for acted in whole[1].activities} <= {"clip"}


def test_a_picture_without_a_face_has_an_empty_signal() -> None:
    sink = Collected()
    work(arrivals([Frame(k, k / 30, grey_picture(120, 160)) for k in range(12)]), sink)
    assert len(sink.signals) >= 3
    assert all(signal.faces == () for signal in sink.signals)


def test_each_event_has_its_evidence(whole: Whole) -> None:
    _, sink, _ = whole
    for one in sink.events:
        seen = one.event.evidence
        assert seen is not None and seen.onset.shape == seen.apex.shape == (128, 128) and seen.flow.shape == (2, 128, 128)
        assert (seen.onset != seen.apex).any()


def test_time_to_spare_is_used_to_look_ahead(clip: Clip) -> None:
    """Where frames wait there is none."""
    waiting: list[int] = []

    class Foreseeing(Pipeline):
        def recognize_ahead(self) -> None:
            waiting.append(len(mailbox))

    mailbox: Mailbox[Arrival] = Mailbox(8, newest=False)
    for arrival in arrivals(clip.frames[:8]):
        mailbox.put(arrival)
    mailbox.close()
    worker = Worker(
        "clip",
        PipelineSettings(),
        mailbox,
        Collected(),
        session="a",
        told=lambda _: None,
        make=lambda settings, stream, session: Foreseeing(settings, stream=stream, session=session),
    )
    worker.start()
    assert worker.join(PATIENCE_S)
    assert waiting == [0]


def test_pictures_of_the_stream_come_only_when_asked_for(clip: Clip, whole: Whole) -> None:
    assert whole[1].previews == []
    sink = Collected(PreviewWish(width=160, fps=10))
    work(arrivals(clip.frames[:30]), sink)
    assert 9 <= len(sink.previews) <= 11
    assert all(preview.header["width"] == 160 for preview in sink.previews)


def test_a_failure_is_reported_and_the_analysis_begun_anew(clip: Clip) -> None:
    (truth,) = clip.truth.events
    broken: list[float] = []

    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        return Breaking(settings, stream=stream, session=session, at=truth.apex_t + 0.3, broken=broken)

    sink = Collected()
    later = [Frame(200 + f.index, f.t + 20, f.pixels) for f in clip.frames]
    _, told = work([*arrivals(clip.frames), *arrivals(later)], sink, make=make)
    assert len(broken) == 1
    assert told[0] == "the analysis failed (ValueError: a frame that nobody foresaw) and is restarted"
    assert told[-1] == "", "it is well again"
    first, *_, last = sink.finals()
    assert first.event.truncated, "what was open at the failure is not lost"
    assert last.event.onset.t > 20 and not last.event.truncated
    ids = [one.event.id for one in sink.finals()]
    assert len(set(ids)) == len(ids), "a new pipeline never takes an old one's ids"


def test_a_pipeline_that_can_not_be_made_is_the_workers_error(clip: Clip) -> None:
    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        raise WeightsError("no network here")

    mailbox: Mailbox[Arrival] = Mailbox(2, newest=True)
    loaded: list[Exception | None] = []
    worker = Worker(
        "clip", PipelineSettings(), mailbox, Collected(), session="a", told=lambda _: None, loaded=loaded.append, make=make
    )
    worker.start()
    assert worker.join(PATIENCE_S)
    assert [str(error) for error in loaded] == ["no network here"]
    assert mailbox.closed, "nobody takes frames any more"


def test_a_second_pipeline_that_can_not_be_made_is_tried_again(clip: Clip) -> None:
    """The networks' file is gone for a while, say."""
    broken: list[float] = []
    failures = [WeightsError("gone"), WeightsError("gone")]
    made_before = threading.Event()

    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        if made_before.is_set() and failures:
            raise failures.pop()
        made_before.set()
        return Breaking(settings, stream=stream, session=session, at=0.1, broken=broken)

    sink = Collected()
    _, told = work(arrivals(clip.frames), sink, make=make)
    assert "the analysis cannot be restarted: WeightsError: gone" in told
    assert not failures and sink.finals()


def test_what_each_frame_took_can_be_heard(clip: Clip) -> None:
    heard: list[tuple[str, float, int]] = []
    mailbox: Mailbox[Arrival] = Mailbox(8, newest=False)
    worker = Worker(
        "clip",
        PipelineSettings(),
        mailbox,
        Collected(),
        session="a",
        told=lambda _: None,
        processed=lambda *frame: heard.append(frame),
    )
    worker.start()
    began = time.monotonic()
    for arrival in arrivals(clip.frames[:8]):
        mailbox.put(arrival)
    mailbox.close()
    assert worker.join(PATIENCE_S)
    assert [stream for stream, _, _ in heard] == ["clip"] * 8
    assert 0 < sum(seconds for _, seconds, _ in heard) <= time.monotonic() - began
    assert heard[-1][2] == 0
