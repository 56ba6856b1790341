from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from apexstream.clips import preset
from apexstream.clips.write import encode
from engine import Pipeline
from engine.config import PipelineSettings
from engine.errors import InputError, SourceError, WeightsError
from engine.types import Event, Face, Frame
from stream.analysis import heartbeat
from stream.analysis import session as session_module
from stream.analysis.session import MAX_BROWSERS, Session
from stream.analysis.worker import MakePipeline
from stream.messages import Arrival, SourceStatus
from stream.queues import BoundedQueue
from stream.settings import LiveSettings
from stream.sources.settings import SourceSettings
from tests.blinking import Blinking
from tests.faces import Clip, grey_picture, render
from tests.live import PATIENCE_S, Collected, Ready, arrivals

PATTERN = "lavfi:testsrc=size=160x120:rate=25"
FACE: dict[str, Any] = {"size": (360, 300), "eye_px": 80.0, "noise_sigma": 2.0, "n_events": 1, "macro_fraction": 1.0}


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Six seconds with one expression, long enough to be announced before it ends."""
    return render(preset("clean", "hopper", 30, seed=1, duration_s=6, **FACE))


@pytest.fixture(scope="module")
def video(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("session") / "clip.mp4"
    encode(path, ((frame.t, frame.pixels) for frame in clip.frames), size=FACE["size"], fps=30.0, crf=None)
    return path


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    """Sessions that are stopped after the test."""
    started: list[Session] = []
    yield started
    for session in started:
        assert session.stop(PATIENCE_S)


def settings(*urls: str | Path) -> LiveSettings:
    sources = tuple(SourceSettings(url=str(url), name=f"s{number}") for number, url in enumerate(urls))
    return LiveSettings(sources=sources)


def frames() -> BoundedQueue[Arrival]:
    return BoundedQueue(1000)


def own_threads() -> list[str]:
    """Threads that a session starts, by name."""
    return sorted(t.name for t in threading.enumerate() if t.name.startswith(("capture", "analysis", "link", "end")))


def test_a_file_is_analysed_to_its_end(video: Path, clip: Clip, sessions: list[Session]) -> None:
    sink = Collected()
    session = Session(settings(video), sink)
    sessions.append(session)
    session.start()
    sink.until(lambda: sink.states("s0")[-1:] == ["ended"] and sink.finals(), "the end of the file")
    assert sink.states("s0") == ["starting", "live", "ended"]
    (final,) = sink.finals()
    (truth,) = clip.truth.events
    assert abs(final.event.apex.t - truth.apex_t) < 0.2 and final.event.label == truth.label
    assert len(session._streams) == 1, "a file that has ended is still listed"
    assert sink.signals and sink.events[0].event.evidence is not None


def test_stopping_flushes_open_events_and_leaves_nothing_behind(video: Path) -> None:
    before, handles = own_threads(), psutil.Process().num_fds()
    sink = Collected()
    session = Session(settings(video, PATTERN), sink)
    session.start()
    (open_,) = sink.until(lambda: sink.events[:1], "an expression that is announced")
    assert open_.event.state == "provisional"
    began = time.monotonic()
    assert session.stop(PATIENCE_S)
    took = time.monotonic() - began
    (final,) = sink.finals()
    assert final.event.id == open_.event.id and final.event.truncated
    assert took < 10, "it takes a fraction of a second on an idle machine"
    assert own_threads() == before
    assert psutil.Process().num_fds() <= handles + 2, "files are closed (networks keep a few open when first loaded)"
    assert session.stop(), "stopping twice is no error"


class Failing(Pipeline):
    """Breaks at every frame."""

    def advance(self, frame: Frame, faces: list[Face]) -> list[Event]:
        raise ZeroDivisionError("an unexpected error")


def test_a_fault_of_one_source_does_not_affect_the_others(video: Path, sessions: list[Session]) -> None:
    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        kind = Failing if stream == "s0" else Pipeline
        return kind(settings, stream=stream, session=session)

    sink = Collected()
    session = Session(settings(PATTERN, video), sink, make=make)
    sessions.append(session)
    session.start()
    sink.until(lambda: sink.finals("s1"), "an event of the other source")
    sink.until(lambda: "reconnecting" in sink.states("s0"), "the broken source's state")
    faulty = next(s for s in sink.statuses if s.stream == "s0" and s.state == "reconnecting")
    assert "ZeroDivisionError" in faulty.detail and "restarted" in faulty.detail
    assert sink.states("s1")[:2] == ["starting", "live"] and "reconnecting" not in sink.states("s1")


def test_a_network_that_does_not_load_is_reported_once(sessions: list[Session]) -> None:
    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        raise WeightsError(f"no network for {stream}")

    ready = Ready()
    session = Session(settings(PATTERN, PATTERN), Collected(), make=make)
    sessions.append(session)
    session.start(ready)
    assert "no network for s" in str(ready.error())


def test_all_loaded_is_reported_once(sessions: list[Session]) -> None:
    for urls in ((), (PATTERN, PATTERN)):
        ready, sink = Ready(), Collected()
        session = Session(settings(*urls), sink)
        sessions.append(session)
        session.start(ready)
        assert ready.error() is None
        assert {status.stream for status in sink.statuses} == {f"s{k}" for k in range(len(urls))}


def test_stopping_while_networks_load_opens_no_source() -> None:
    loading, go_on = threading.Event(), threading.Event()

    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        loading.set()
        assert go_on.wait(PATIENCE_S)
        return Pipeline(settings, stream=stream, session=session)

    sink, ready = Collected(), Ready()
    session = Session(settings(PATTERN), sink, make=make)
    session.start(ready)
    assert loading.wait(PATIENCE_S)
    assert not session.stop(0.2), "a thread still loads"
    go_on.set()
    assert ready.error() is None
    assert set(sink.states("s0")) <= {"starting", "ended"}


@pytest.mark.parametrize("url", ["pigeon://carrier", "rtsp://", "lavfi:"])
def test_an_invalid_source_is_reported_at_once(url: str) -> None:
    with pytest.raises(SourceError):
        Session(settings(url), Collected()).start()


# --- browsers' cameras ---------------------------------------------------------------------------------------------------


def test_a_browsers_stream_is_added_and_removed(clip: Clip, sessions: list[Session]) -> None:
    sink, feed = Collected(), frames()
    session = Session(LiveSettings(), sink)
    sessions.append(session)
    session.start()
    session.add_browser("desk", feed)
    (truth,) = clip.truth.events
    shown = [frame for frame in clip.frames if frame.t < truth.apex_t + 0.3]
    for arrival in arrivals(shown):
        feed.put(arrival)
    sink.until(lambda: sink.signals and sink.signals[-1].t > shown[-1].t - 0.15, "the pictures to be seen")
    session.remove_browser("desk")
    (final,) = sink.finals("desk")
    assert final.event.label == truth.label and final.event.truncated, "it left while smiling"
    assert sink.gone == ["desk"]
    assert len(session._streams) == 0
    session.remove_browser("desk")
    assert sink.gone == ["desk"], "removing twice is no error"


def test_names_are_unique_and_browsers_are_limited(sessions: list[Session]) -> None:
    session = Session(settings(PATTERN), Collected())
    sessions.append(session)
    session.start()
    with pytest.raises(InputError, match="'s0' already"):
        session.add_browser("s0", frames())
    for number in range(MAX_BROWSERS):
        session.add_browser(f"b{number}", frames())
    with pytest.raises(InputError, match="show their camera already"):
        session.add_browser("one too many", frames())
    session.remove_browser("b0")
    session.add_browser("one more", frames())


def test_a_browser_whose_network_does_not_load_is_refused(sessions: list[Session]) -> None:
    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        raise WeightsError("no network here")

    session = Session(LiveSettings(), Collected(), make=make)
    sessions.append(session)
    session.start()
    with pytest.raises(InputError, match=r"the analysis cannot begin \(no network here\)"):
        session.add_browser("desk", frames())
    assert len(session._streams) == 0


def test_the_memory_of_a_browsers_stream_is_returned(sessions: list[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[int] = []
    session = Session(LiveSettings(), Collected())
    sessions.append(session)
    session.start()
    session.add_browser("desk", frames())
    monkeypatch.setattr(session_module, "return_memory", lambda: returned.append(len(own_threads())))
    session.remove_browser("desk")
    assert returned == [0], "once its thread has ended"


def test_no_browser_is_added_after_the_stop() -> None:
    session = Session(LiveSettings(), Collected())
    session.start()
    session.stop()
    with pytest.raises(InputError, match="ending"):
        session.add_browser("desk", frames())


def test_a_fault_shows_in_a_browsers_status(sessions: list[Session]) -> None:
    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        return Failing(settings, stream=stream, session=session)

    sink, feed = Collected(), frames()
    session = Session(LiveSettings(), sink, make=make)
    sessions.append(session)
    session.start()
    session.add_browser("desk", feed)
    live = SourceStatus("desk", "browser", "live")
    session.report(live)
    assert sink.statuses[-1] == live
    feed.put(arrivals([Frame(0, 0.0, grey_picture(48, 64))])[0])
    sink.until(lambda: "reconnecting" in sink.states("desk"), "the fault")
    session.report(live)
    assert sink.statuses[-1].state == "reconnecting"
    session.report(SourceStatus("desk", "browser", "ended"))
    assert sink.statuses[-1].state == "ended" and "ZeroDivisionError" in sink.statuses[-1].detail


class Slow(Collected):
    """A sink that blocks on a status of a given state."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self._state, self.held, self.go_on = state, threading.Event(), threading.Event()

    def status(self, status: SourceStatus) -> None:
        if status.state == self._state:
            self.held.set()
            assert self.go_on.wait(PATIENCE_S)
        super().status(status)


def test_statuses_keep_their_order_and_none_follows_the_removal(sessions: list[Session]) -> None:
    sink, feed = Slow("live"), frames()
    session = Session(LiveSettings(), sink)
    sessions.append(session)
    session.start()
    session.add_browser("desk", feed)
    order: list[threading.Thread] = []
    for act in (
        lambda: session.report(SourceStatus("desk", "browser", "live")),
        lambda: session.report(SourceStatus("desk", "browser", "stalled")),
        lambda: session.remove_browser("desk"),
    ):
        order.append(threading.Thread(target=act))
        order[-1].start()
        assert sink.held.wait(PATIENCE_S)
    feed.close()
    order[1].join(0.05)  # time in which it could overtake
    assert sink.statuses == [] and sink.gone == []
    sink.go_on.set()
    for thread in order:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    session.report(SourceStatus("desk", "browser", "live", detail="reported too late"))
    assert sink.states("desk") in (["live", "stalled"], ["live"])
    assert sink.gone == ["desk"] and "reported too late" not in {status.detail for status in sink.statuses}


def test_an_analysis_that_outlives_its_stream_reports_nothing(sessions: list[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "STOP_S", 0.1)
    busy, go_on, over = threading.Event(), threading.Event(), threading.Event()

    class Long(Pipeline):
        def advance(self, frame: Frame, faces: list[Face]) -> list[Event]:
            busy.set()
            assert go_on.wait(PATIENCE_S)
            raise ZeroDivisionError("an unexpected error")

        def close(self) -> None:
            super().close()
            over.set()

    sink, feed, processed = Collected(), frames(), []
    make: MakePipeline = lambda settings, stream, session: Long(settings, stream=stream, session=session)  # noqa: E731
    session = Session(LiveSettings(), sink, make=make, processed=lambda *figures: processed.append(figures))
    sessions.append(session)
    session.start()
    session.add_browser("desk", feed)
    session.report(SourceStatus("desk", "browser", "live"))
    feed.put(arrivals([Frame(0, 0.0, grey_picture(48, 64))])[0])
    assert busy.wait(PATIENCE_S)
    session.remove_browser("desk")
    assert sink.gone == ["desk"]
    go_on.set()
    assert over.wait(PATIENCE_S)
    for thread in threading.enumerate():
        if thread.name == "analysis of desk":
            thread.join(PATIENCE_S)
    assert sink.states("desk") == ["live"] and processed == []


def test_a_browser_counts_until_its_thread_has_ended(sessions: list[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "STOP_S", 0.01)
    go_on = threading.Event()

    class Long(Pipeline):
        def locate(self, frame: Frame) -> list[Face]:
            assert go_on.wait(PATIENCE_S)
            return []

    make: MakePipeline = lambda settings, stream, session: Long(settings, stream=stream, session=session)  # noqa: E731
    session = Session(LiveSettings(), Collected(), make=make)
    sessions.append(session)
    session.start()
    before = len(own_threads())
    for number in range(MAX_BROWSERS):
        feed = frames()
        session.add_browser(f"b{number}", feed)
        feed.put(arrivals([Frame(0, 0.0, grey_picture(48, 64))])[0])
        session.remove_browser(f"b{number}")
    with pytest.raises(InputError, match="show their camera already"):
        session.add_browser("one too many", frames())
    with pytest.raises(InputError, match="'b0' already"):
        session.add_browser("b0", frames())
    assert len(own_threads()) - before == MAX_BROWSERS
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("analysis of b"):
            thread.join(PATIENCE_S)
    session.add_browser("b0", frames())


def test_stopping_does_not_wait_for_a_browsers_network() -> None:
    loading, go_on = threading.Event(), threading.Event()
    errors: list[str] = []

    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        loading.set()
        assert go_on.wait(PATIENCE_S)
        return Pipeline(settings, stream=stream, session=session)

    def join() -> None:
        try:
            session.add_browser("desk", frames())
        except InputError as error:
            errors.append(str(error))

    session = Session(LiveSettings(), Collected(), make=make)
    session.start()
    joining = threading.Thread(target=join)
    joining.start()
    assert loading.wait(PATIENCE_S)
    assert not session.stop(0.1)
    joining.join(PATIENCE_S)
    assert errors == ["desk: the analysis cannot begin (the service is ending)"]
    go_on.set()


def test_stopping_does_not_wait_for_a_check_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    checking, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(heartbeat, "CHECK_S", 0.001)
    monkeypatch.setattr(Session, "_check", lambda session: (checking.set(), go_on.wait(PATIENCE_S)))
    session = Session(LiveSettings(), Collected())
    session.start()
    assert checking.wait(PATIENCE_S)
    assert not session.stop(0.1), "its thread has not ended"
    assert session.stop(0.1), "only the first call ends anything"
    go_on.set()


def test_an_analysis_that_hangs_is_stalled_and_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session_module, "STALLED_S", 2.0)
    monkeypatch.setattr(session_module, "REPLACED_S", 3.0)
    go_on = threading.Event()

    class Hanging(Blinking):
        def locate(self, frame: Frame) -> list[Face]:
            if ".r" not in self.session and self.stream == "s0":
                go_on.wait(PATIENCE_S)
            return super().locate(frame)

    sink = Collected()
    session = Session(settings(PATTERN, PATTERN), sink, make=Hanging)  # type: ignore[arg-type]
    session.start()
    try:
        sink.until(lambda: sink.states("s0")[-1:] == ["stalled"], "the hanging analysis to be reported")
        sink.until(lambda: sink.finals("s0"), "an event of the replacement")
        sink.until(lambda: sink.states("s0")[-1] == "live", "the source to be live again")
        assert "hangs and is replaced" in caplog.text and "stalled" not in sink.states("s1")
    finally:
        go_on.set()
        assert session.stop(PATIENCE_S)
    assert all(".r1" in one.event.id for one in sink.events if one.event.stream == "s0"), "the replaced one sends nothing"


def test_a_replacement_that_does_not_load_is_retried(monkeypatch: pytest.MonkeyPatch, sessions: list[Session]) -> None:
    monkeypatch.setattr(session_module, "STALLED_S", 0.5)
    monkeypatch.setattr(session_module, "REPLACED_S", 1.0)
    go_on = threading.Event()
    tried: list[str] = []

    class Hanging(Blinking):
        def locate(self, frame: Frame) -> list[Face]:
            if ".r" not in self.session:
                go_on.wait(PATIENCE_S)
            return super().locate(frame)

    def make(pipeline: PipelineSettings, stream: str, session: str) -> Hanging:
        tried.append(session)
        if sum(".r" in one for one in tried) == 1:
            raise WeightsError("no memory for the network")
        return Hanging(pipeline, stream, session)

    sink = Collected()
    session = Session(settings(PATTERN), sink, make=make)  # type: ignore[arg-type]
    sessions.append(session)
    session.start()
    try:
        sink.until(lambda: sink.finals("s0"), "an event of the replacement")
        sink.until(lambda: sink.states("s0")[-1] == "live", "the source to be live again")
    finally:
        go_on.set()
    assert "ended" not in sink.states("s0")
    assert any("cannot be restarted: WeightsError: no memory" in status.detail for status in sink.statuses)
