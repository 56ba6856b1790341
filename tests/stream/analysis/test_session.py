from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from apexstream.clips import preset, write_clip
from engine import Pipeline
from engine.config import PipelineSettings
from engine.errors import InputError, SourceError, WeightsError
from engine.types import Event, Face, Frame
from stream.analysis import session as session_module
from stream.analysis.session import MOST_BROWSERS, Session
from stream.analysis.worker import Make
from stream.mailbox import Mailbox
from stream.messages import Arrival, SourceStatus
from stream.settings import LiveSettings, SourceSettings
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
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("session") / "clip.mp4"
    write_clip(preset("clean", "hopper", 30, seed=1, duration_s=6, **FACE), path)
    return path


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    """Sessions to be stopped, however the test ends."""
    begun: list[Session] = []
    yield begun
    for session in begun:
        assert session.stop(PATIENCE_S)


def settings(*urls: str | Path) -> LiveSettings:
    sources = tuple(SourceSettings(url=str(url), name=f"s{number}") for number, url in enumerate(urls))
    return LiveSettings(sources=sources)


def mailbox() -> Mailbox[Arrival]:
    return Mailbox(1000, newest=False)


def own_threads() -> list[str]:
    """Threads that a session starts, by name."""
    return sorted(t.name for t in threading.enumerate() if t.name.startswith(("capture", "analysis", "link", "end")))


def test_a_files_events_come_in_time_and_it_ends(video: Path, clip: Clip, sessions: list[Session]) -> None:
    sink = Collected()
    session = Session(settings(video), sink)
    sessions.append(session)
    session.start()
    sink.until(lambda: sink.states("s0")[-1:] == ["ended"] and sink.finals(), "the end of the file")
    assert sink.states("s0") == ["starting", "live", "ended"]
    (final,) = sink.finals()
    (truth,) = clip.truth.events
    assert abs(final.event.apex.t - truth.apex_t) < 0.2 and final.event.label == truth.label
    assert session.running == 1, "a file that has ended is still listed"
    assert sink.signals and final.event.evidence


def test_stopping_flushes_what_is_open_and_leaves_nothing_behind(video: Path) -> None:
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
    assert took < 10, "it takes a fraction of a second where the machine has nothing else to do"
    assert own_threads() == before
    assert psutil.Process().num_fds() <= handles + 2, "files are closed (networks keep a few open when first loaded)"
    assert session.stop(), "stopping twice is no error"


class Failing(Pipeline):
    """Breaks at every frame."""

    def advance(self, frame: Frame, faces: list[Face]) -> list[Event]:
        raise ZeroDivisionError("nobody foresaw this")


def test_what_breaks_in_one_source_is_nowhere_else_felt(video: Path, sessions: list[Session]) -> None:
    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        kind = Failing if stream == "s0" else Pipeline
        return kind(settings, stream=stream, session=session)

    sink = Collected()
    session = Session(settings(PATTERN, video), sink, make=make)
    sessions.append(session)
    session.start()
    sink.until(lambda: sink.finals("s1"), "the sound source's event")
    sink.until(lambda: "reconnecting" in sink.states("s0"), "the broken source's state")
    told = next(s for s in sink.statuses if s.stream == "s0" and s.state == "reconnecting")
    assert "ZeroDivisionError" in told.detail and "restarted" in told.detail
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
    assert not session.stop(0.2), "it says that a thread still loads"
    go_on.set()
    assert ready.error() is None
    assert set(sink.states("s0")) <= {"starting", "ended"}


@pytest.mark.parametrize("url", ["pigeon://carrier", "rtsp://", "lavfi:"])
def test_what_is_no_source_is_reported_at_once(url: str) -> None:
    with pytest.raises(SourceError):
        Session(settings(url), Collected()).start()


# --- browsers' cameras ---------------------------------------------------------------------------------------------------


def test_a_browser_comes_and_goes(clip: Clip, sessions: list[Session]) -> None:
    sink, feed = Collected(), mailbox()
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
    assert session.running == 0
    session.remove_browser("desk")
    assert sink.gone == ["desk"], "leaving twice is no error"


def test_names_are_taken_once_and_places_are_few(sessions: list[Session]) -> None:
    session = Session(settings(PATTERN), Collected())
    sessions.append(session)
    session.start()
    with pytest.raises(InputError, match="'s0' already"):
        session.add_browser("s0", mailbox())
    for number in range(MOST_BROWSERS):
        session.add_browser(f"b{number}", mailbox())
    with pytest.raises(InputError, match="show their camera already"):
        session.add_browser("one too many", mailbox())
    session.remove_browser("b0")
    session.add_browser("one more", mailbox())


def test_a_browser_whose_network_does_not_load_is_turned_away(sessions: list[Session]) -> None:
    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        raise WeightsError("no network here")

    session = Session(LiveSettings(), Collected(), make=make)
    sessions.append(session)
    session.start()
    with pytest.raises(InputError, match=r"the analysis cannot begin \(no network here\)"):
        session.add_browser("desk", mailbox())
    assert session.running == 0


def test_what_a_browser_needed_goes_back_to_the_machine(sessions: list[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    session = Session(LiveSettings(), Collected())
    sessions.append(session)
    session.start()
    session.add_browser("desk", mailbox())
    monkeypatch.setattr(session_module, "give_back_memory", lambda: given_back.append(len(own_threads())))
    session.remove_browser("desk")
    assert given_back == [0], "once its thread has ended"


def test_nobody_comes_in_at_the_end() -> None:
    session = Session(LiveSettings(), Collected())
    session.start()
    session.stop()
    with pytest.raises(InputError, match="ending"):
        session.add_browser("desk", mailbox())


def test_a_browsers_trouble_is_put_into_its_status(sessions: list[Session]) -> None:
    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        return Failing(settings, stream=stream, session=session)

    sink, feed = Collected(), mailbox()
    session = Session(LiveSettings(), sink, make=make)
    sessions.append(session)
    session.start()
    session.add_browser("desk", feed)
    live = SourceStatus("desk", "browser", "live")
    session.tell(live)
    assert sink.statuses[-1] == live
    feed.put(arrivals([Frame(0, 0.0, grey_picture(48, 64))])[0])
    sink.until(lambda: "reconnecting" in sink.states("desk"), "the trouble")
    session.tell(live)
    assert sink.statuses[-1].state == "reconnecting"
    session.tell(SourceStatus("desk", "browser", "ended"))
    assert sink.statuses[-1].state == "ended" and "ZeroDivisionError" in sink.statuses[-1].detail


class Slow(Collected):
    """A sink that is held up while it takes the status of a given state."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self._state, self.held, self.go_on = state, threading.Event(), threading.Event()

    def status(self, status: SourceStatus) -> None:
        if status.state == self._state:
            self.held.set()
            assert self.go_on.wait(PATIENCE_S)
        super().status(status)


def test_statuses_keep_their_order_and_none_comes_behind_the_end(sessions: list[Session]) -> None:
    sink, feed = Slow("live"), mailbox()
    session = Session(LiveSettings(), sink)
    sessions.append(session)
    session.start()
    session.add_browser("desk", feed)
    order: list[threading.Thread] = []
    for act in (
        lambda: session.tell(SourceStatus("desk", "browser", "live")),
        lambda: session.tell(SourceStatus("desk", "browser", "stalled")),
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
    session.tell(SourceStatus("desk", "browser", "live", detail="told too late"))
    assert sink.states("desk") in (["live", "stalled"], ["live"])
    assert sink.gone == ["desk"] and "told too late" not in {status.detail for status in sink.statuses}


def test_an_analysis_that_outlives_its_stream_leaves_no_trace(sessions: list[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "STOP_S", 0.1)
    at_work, go_on, over = threading.Event(), threading.Event(), threading.Event()

    class Long(Pipeline):
        def advance(self, frame: Frame, faces: list[Face]) -> list[Event]:
            at_work.set()
            assert go_on.wait(PATIENCE_S)
            raise ZeroDivisionError("nobody foresaw this")

        def close(self) -> None:
            super().close()
            over.set()

    sink, feed, processed = Collected(), mailbox(), []
    make: Make = lambda settings, stream, session: Long(settings, stream=stream, session=session)  # noqa: E731
    session = Session(LiveSettings(), sink, make=make, processed=lambda *figures: processed.append(figures))
    sessions.append(session)
    session.start()
    session.add_browser("desk", feed)
    session.tell(SourceStatus("desk", "browser", "live"))
    feed.put(arrivals([Frame(0, 0.0, grey_picture(48, 64))])[0])
    assert at_work.wait(PATIENCE_S)
    session.remove_browser("desk")
    assert sink.gone == ["desk"]
    go_on.set()
    assert over.wait(PATIENCE_S)
    assert sink.states("desk") == ["live"] and processed == []


def test_a_browsers_place_is_free_once_its_thread_has_ended(sessions: list[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "STOP_S", 0.01)
    go_on = threading.Event()

    class Long(Pipeline):
        def locate(self, frame: Frame) -> list[Face]:
            assert go_on.wait(PATIENCE_S)
            return []

    make: Make = lambda settings, stream, session: Long(settings, stream=stream, session=session)  # noqa: E731
    session = Session(LiveSettings(), Collected(), make=make)
    sessions.append(session)
    session.start()
    before = len(own_threads())
    for number in range(MOST_BROWSERS):
        feed = mailbox()
        session.add_browser(f"b{number}", feed)
        feed.put(arrivals([Frame(0, 0.0, grey_picture(48, 64))])[0])
        session.remove_browser(f"b{number}")
    with pytest.raises(InputError, match="show their camera already"):
        session.add_browser("one too many", mailbox())
    with pytest.raises(InputError, match="'b0' already"):
        session.add_browser("b0", mailbox())
    assert len(own_threads()) - before == MOST_BROWSERS
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("analysis of b"):
            thread.join(PATIENCE_S)
    session.add_browser("b0", mailbox())


def test_the_end_does_not_wait_for_a_browsers_network() -> None:
    loading, go_on = threading.Event(), threading.Event()
    told: list[str] = []

    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        loading.set()
        assert go_on.wait(PATIENCE_S)
        return Pipeline(settings, stream=stream, session=session)

    def join() -> None:
        try:
            session.add_browser("desk", mailbox())
        except InputError as error:
            told.append(str(error))

    session = Session(LiveSettings(), Collected(), make=make)
    session.start()
    joining = threading.Thread(target=join)
    joining.start()
    assert loading.wait(PATIENCE_S)
    assert not session.stop(0.1)
    joining.join(PATIENCE_S)
    assert told == ["desk: the analysis cannot begin (the service is ending)"]
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
        sink.until(lambda: sink.states("s0")[-1:] == ["stalled"], "the hanging analysis to be told")
        sink.until(lambda: sink.finals("s0"), "an event of the one in its place")
        sink.until(lambda: sink.states("s0")[-1] == "live", "the source to be well again")
        assert "hangs and is replaced" in caplog.text and "stalled" not in sink.states("s1")
    finally:
        go_on.set()
        assert session.stop(PATIENCE_S)
    assert all(".r1" in one.event.id for one in sink.events if one.event.stream == "s0"), "the one that hung says no more"


def test_a_replacement_that_does_not_load_is_tried_again(monkeypatch: pytest.MonkeyPatch, sessions: list[Session]) -> None:
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
        sink.until(lambda: sink.states("s0")[-1] == "live", "the source to be well again")
    finally:
        go_on.set()
    assert "ended" not in sink.states("s0")
    assert any("cannot be restarted: WeightsError: no memory" in status.detail for status in sink.statuses)
