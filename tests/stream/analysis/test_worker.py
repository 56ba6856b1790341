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
from engine.types import Event, Evidence, Face, Frame
from stream.analysis.batching import PipelineFactory
from stream.analysis.status import Fault
from stream.analysis.worker import MakePipeline, Worker
from stream.messages import Arrival, WantedPreview
from stream.queues import BoundedQueue
from tests.blinking import Blinking
from tests.events import evidence
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
            raise ValueError("an unexpected frame")
        return super().advance(frame, faces)


def work(frames: Sequence[Arrival], sink: Collected, *, make: MakePipeline | None = None, **given: Any) -> list[str]:
    """Run a worker on these frames to its end; returns the details of the faults it reported, "" for the end of one."""
    faults: list[str] = []

    def on_fault(fault: Fault | None) -> None:
        assert fault is None or fault.kind == "analysis failed"
        faults.append(fault.detail if fault is not None else "")

    queue: BoundedQueue[Arrival] = BoundedQueue(max(1, len(frames)))
    given = {"on_loaded": lambda error: None, **given}
    worker = Worker(
        "clip", PipelineSettings(), queue, sink, session="a", make=make or PipelineFactory().make, on_fault=on_fault, **given
    )
    for arrival in frames:
        queue.put(arrival)
    queue.close()
    worker.start()
    assert worker.join(PATIENCE_S)
    return faults


Whole = tuple[list[Arrival], Collected, list[str]]


@pytest.fixture(scope="module")
def whole(clip: Clip) -> Whole:
    """The clip analysed: the frames given, what the sink got, and the faults."""
    sink, given = Collected(), arrivals(clip.frames)
    return given, sink, work(given, sink)


def test_events_are_those_of_the_pipeline_with_the_arrival_of_the_frame_that_decided(
    whole: Whole, expected: list[dict[str, Any]]
) -> None:
    given, sink, faults = whole
    assert [without_id(one.event) for one in sink.events] == expected
    assert [one.event.state for one in sink.events][:2] == ["provisional", "final"]
    for one in sink.events:
        seen_by_then = [arrival for arrival in given if arrival.arrived <= one.arrived]
        last = one.event.offset or one.event.apex
        assert seen_by_then[-1].arrived == one.arrived and seen_by_then[-1].frame.t >= last.t
        assert one.clock_offset == pytest.approx(given[0].arrived - given[0].frame.t, abs=1e-6)
    assert faults == []


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
    assert {one.event.id for one in sink.events} == {one.event.id for one in sink.events if one.event.evidence is not None}
    for seen in (one.event.evidence for one in sink.events if one.event.evidence is not None):
        assert seen.onset.shape == seen.apex.shape == (128, 128) and seen.flow.shape == (2, 128, 128)
        assert (seen.onset != seen.apex).any()


@pytest.mark.parametrize(("changing", "with_evidence"), [(False, ["provisional"]), (True, ["provisional", "final"])])
def test_the_same_evidence_is_sent_once(changing: bool, with_evidence: list[str]) -> None:
    class Seeing(Blinking):
        seen = evidence()

        def evidence(self) -> Evidence:
            return evidence() if changing else self.seen

    sink = Collected()
    frames = arrivals([Frame(k, k / 30, grey_picture(120, 160)) for k in range(15)])
    work(frames, sink, make=Seeing)  # type: ignore[arg-type]
    assert [one.event.state for one in sink.events] == ["provisional", "final"]
    assert [one.event.state for one in sink.events if one.event.evidence is not None] == with_evidence


def test_recognition_starts_early_only_while_no_frame_waits(clip: Clip) -> None:
    foreseen: list[int] = []
    analysed: list[tuple[str, float, int]] = []

    class Foreseeing(Pipeline):
        def recognize_ahead(self) -> None:
            foreseen.append(len(analysed))

    work(
        arrivals(clip.frames[:8]),
        Collected(),
        make=lambda settings, stream, session: Foreseeing(settings, stream=stream, session=session),
        processed=lambda *figures: analysed.append(figures),
    )
    assert foreseen == [7], "at the last frame"


def test_previews_are_sent_only_when_asked_for(clip: Clip, whole: Whole) -> None:
    assert whole[1].previews == []
    sink = Collected(WantedPreview(width=160, fps=10))
    work(arrivals(clip.frames[:30]), sink)
    assert 9 <= len(sink.previews) <= 11
    assert all(preview.header["width"] == 160 for preview in sink.previews)


def test_a_failure_is_reported_and_the_analysis_restarted(clip: Clip) -> None:
    (truth,) = clip.truth.events
    broken: list[float] = []

    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        return Breaking(settings, stream=stream, session=session, at=truth.apex_t + 0.3, broken=broken)

    sink = Collected()
    later = [Frame(200 + f.index, f.t + 20, f.pixels) for f in clip.frames]
    faults = work([*arrivals(clip.frames), *arrivals(later)], sink, make=make)
    assert len(broken) == 1
    assert faults[0] == "the analysis failed (ValueError: an unexpected frame) and is restarted"
    assert faults[-1] == "", "it works again"
    first, *_, last = sink.finals()
    assert first.event.truncated, "the event that was open at the failure is not lost"
    assert last.event.onset.t > 20 and not last.event.truncated
    ids = [one.event.id for one in sink.finals()]
    assert len(set(ids)) == len(ids), "a new pipeline never takes an old one's ids"


def test_a_pipeline_that_does_not_load_ends_the_worker() -> None:
    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        raise WeightsError("no network here")

    queue: BoundedQueue[Arrival] = BoundedQueue(2)
    loaded: list[Exception | None] = []
    worker = Worker(
        "clip",
        PipelineSettings(),
        queue,
        Collected(),
        session="a",
        make=make,
        on_fault=lambda _: pytest.fail("it is no fault of a running analysis"),
        on_loaded=loaded.append,
    )
    worker.start()
    assert worker.join(PATIENCE_S)
    assert [str(error) for error in loaded] == ["no network here"]
    assert queue._closed, "nobody takes frames any more"


def test_a_second_pipeline_that_does_not_load_is_retried(clip: Clip) -> None:
    broken: list[float] = []
    failures = [WeightsError("gone"), WeightsError("gone")]
    loaded_before = threading.Event()

    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        if loaded_before.is_set() and failures:
            raise failures.pop()
        loaded_before.set()
        return Breaking(settings, stream=stream, session=session, at=0.1, broken=broken)

    sink = Collected()
    assert "the analysis cannot be restarted: WeightsError: gone" in work(arrivals(clip.frames), sink, make=make)
    assert not failures and sink.finals()


def test_the_figures_of_each_frame_are_reported(clip: Clip) -> None:
    figures: list[tuple[str, float, int]] = []
    began = time.monotonic()
    work(arrivals(clip.frames[:8]), Collected(), processed=lambda *frame: figures.append(frame))
    assert [stream for stream, _, _ in figures] == ["clip"] * 8
    assert 0 < sum(seconds for _, seconds, _ in figures) <= time.monotonic() - began
    assert [waiting for _, _, waiting in figures] == [7, 6, 5, 4, 3, 2, 1, 0]


def test_a_worker_that_replaces_another_loads_at_the_first_frame_and_retries(clip: Clip) -> None:
    failures = [WeightsError("gone")]

    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        if failures:
            raise failures.pop()
        return Pipeline(settings, stream=stream, session=session)

    sink = Collected()
    faults = work(arrivals(clip.frames), sink, make=make, on_loaded=None)
    assert faults[0] == "the analysis cannot be restarted: WeightsError: gone" and sink.finals()
