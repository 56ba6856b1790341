"""Capture against real sources: GStreamer's RTSP server, a proxy that stalls and resets, files, patterns."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest

import stream.sources.capture
import stream.sources.decoding
from engine.errors import ConfigError, SourceError
from engine.types import Frame
from stream.backoff import Backoff
from stream.messages import Arrival, SourceStatus
from stream.queues import BoundedQueue
from stream.sources.capture import Capture, FrozenPicture, Pace
from stream.sources.settings import SourceSettings
from tests.broker import free_port
from tests.soak.rtsp import RtspServer, TcpProxy
from tests.videos import stepping, write_video

SOON_S = 30.0
"""Longest wait for what should happen at once: reached only by a test that fails."""

STALL_S = 1.0
HANGS_S = 4 * SOON_S
"""The stall_s of a source that a test must not wait for, or that a busy machine must not make stall."""


class Watched:
    """A running capture, all statuses it reported, and its frames to take."""

    def __init__(self, url: str, *, capacity: int = 100, newest: bool = True, **settings: Any) -> None:
        self.box: BoundedQueue[Arrival] = BoundedQueue(capacity, drop_oldest=newest)
        self.reported: list[SourceStatus] = []
        self._changed = threading.Condition()
        source = SourceSettings(url=url, **{"stall_s": STALL_S, **settings})
        self.capture = Capture(source, self.box, self._receive)

    def __enter__(self) -> Watched:
        self.capture.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.capture.stop()

    def _receive(self, status: SourceStatus) -> None:
        with self._changed:
            self.reported.append(status)
            self._changed.notify_all()

    def until(self, sought: Callable[[SourceStatus], bool], since: int = 0) -> SourceStatus:
        """The first status that is sought, from number since on."""

        def found() -> SourceStatus | None:
            return next((status for status in self.reported[since:] if sought(status)), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, SOON_S), f"reported: {self.reported}"
            status = found()
            assert status is not None
            return status

    def take(self, count: int) -> list[Arrival]:
        """The next frames."""
        arrivals = [self.box.get(SOON_S) for _ in range(count)]
        assert None not in arrivals, f"ended: {self.reported}"
        return [arrival for arrival in arrivals if arrival is not None]

    def states(self) -> list[str]:
        """The states reported, consecutive ones once."""
        states = [status.state for status in self.reported]
        return [state for n, state in enumerate(states) if n == 0 or state != states[n - 1]]


def in_state(state: str) -> Callable[[SourceStatus], bool]:
    return lambda status: status.state == state


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RtspServer]:
    with RtspServer(port=free_port()) as server:
        yield server


@pytest.fixture
def server(shared_server: RtspServer) -> RtspServer:
    """A server that runs when the test starts, whatever the previous one did to it."""
    shared_server.thaw()
    if not shared_server.running:
        shared_server.start()
    return shared_server


def assert_comes_back(watched: Watched, returned: float) -> None:
    """Frames go on within the time allowed after the source's return, first of them a gap, in one rising time."""
    arrivals, known = watched.take(1), len(watched.reported)
    while arrivals[-1].arrived < returned or not any(arrival.frame.gap for arrival in arrivals):
        assert time.monotonic() - returned < SOON_S, "frames of after the return, first of them a gap, do not come"
        arrivals += watched.take(1)
    arrivals += watched.take(5)
    assert all(after.frame.t > before.frame.t for before, after in pairwise(arrivals))
    assert all(after.frame.index > before.frame.index for before, after in pairwise(arrivals))
    gap = next(n for n, arrival in enumerate(arrivals) if arrival.frame.gap)
    if gap:
        before, after = arrivals[gap - 1], arrivals[gap]
        assert after.frame.t - before.frame.t == pytest.approx(after.arrived - before.arrived, abs=0.5)
    watched.until(lambda status: status.state == "live" and status.reconnects >= 1, known)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_on_the_network(server: RtspServer, transport: str) -> None:
    with Watched(server.url, transport=transport, stall_s=HANGS_S) as watched:
        arrivals = watched.take(35)
        status = watched.until(lambda status: status.fps > 0)
    assert [arrival.frame.index for arrival in arrivals] == list(range(35))
    steps = [after.frame.t - before.frame.t for before, after in pairwise(arrivals)]
    assert steps == pytest.approx([1 / 30] * 34, abs=0.002)
    assert (arrivals[0].frame.layout, arrivals[0].frame.width, arrivals[0].frame.height) == ("i420", 320, 240)
    assert abs(arrivals[0].at - time.time()) < 60
    assert (status.state, status.width, status.height) == ("live", 320, 240)
    assert 0 < status.fps < 100
    assert watched.states() == ["starting", "live", "ended"]


def test_a_server_killed_and_started_again(server: RtspServer) -> None:
    with Watched(server.url, stall_s=HANGS_S) as watched:
        watched.take(5)
        server.kill()
        lost = watched.until(in_state("reconnecting"))
        assert "ended the stream" in lost.detail
        watched.until(lambda status: "nothing answers there" in status.detail)
        server.start()
        assert_comes_back(watched, time.monotonic())


def test_a_server_that_freezes_and_goes_on(server: RtspServer) -> None:
    with Watched(server.url) as watched:
        watched.take(5)
        server.freeze()
        stalled = watched.until(in_state("stalled"))
        assert stalled.detail == "no picture came for 1 s"
        watched.until(in_state("reconnecting"))
        server.thaw()
        assert_comes_back(watched, time.monotonic())


def test_a_connection_reset_and_one_that_stalls(server: RtspServer) -> None:
    with TcpProxy(server.port) as proxy, Watched(server.url.replace(f":{server.port}", f":{proxy.port}")) as watched:
        watched.take(5)
        proxy.reset()
        assert_comes_back(watched, time.monotonic())
        known = len(watched.reported)
        proxy.stall()
        watched.until(in_state("stalled"), known)
        proxy.flow()
        assert_comes_back(watched, time.monotonic())


def test_a_password(caplog: pytest.LogCaptureFixture) -> None:
    with RtspServer(user="me", password="open sesame") as server:
        with Watched(server.url, username="me", password="a wr0ng one") as watched:
            refused = watched.until(in_state("reconnecting"))
            assert "refuses the user name or password" in refused.detail
            watched.until(in_state("reconnecting"), 3)
        statuses = " ".join(repr(status) for status in watched.reported)
        assert "wr0ng" not in statuses + caplog.text + repr(watched.capture.address)
        with Watched(server.url, username="me", password="open sesame") as watched:
            watched.take(3)


def test_a_source_that_is_refused_for_its_size_is_reported_and_retried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried: list[float] = []
    monkeypatch.setattr(stream.sources.decoding, "MAX_PIXELS", 64 * 48 - 1)
    monkeypatch.setattr(stream.sources.capture, "REFUSED_WAIT_S", 0.01)
    monkeypatch.setattr(Backoff, "next", lambda backoff: hurried.append(0.0) or 0.0)
    with Watched("lavfi:testsrc=size=64x48:rate=25") as watched:
        refused = watched.until(in_state("reconnecting"))
        watched.until(in_state("reconnecting"), since=watched.reported.index(refused) + 1)
    assert refused.detail == f"lavfi:testsrc=size=64x48:rate=25: {stream.sources.decoding.TOO_LARGE}"
    assert hurried == []


def test_waits_before_a_reconnect_vary_and_are_never_longer_than_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    enough = threading.Event()

    class Recorded(Backoff):
        def next(self) -> float:
            waits.append(super().next())
            if len(waits) == 20:
                enough.set()
            return 0.0

    monkeypatch.setattr(stream.sources.capture, "Backoff", Recorded)
    with Watched("rtsp://127.0.0.1:1/none"):
        assert enough.wait(SOON_S)
    longest = stream.sources.capture.LONGEST_WAIT_S
    at_the_limit = waits[6:]
    assert longest / 2 < min(at_the_limit) < max(at_the_limit) <= longest
    assert len(set(at_the_limit)) > 5


def test_a_missing_password_and_an_impossible_source_are_errors_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APEX_TEST_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="APEX_TEST_PASSWORD"):
        Watched("rtsp://127.0.0.1/x", password_env="APEX_TEST_PASSWORD")
    with pytest.raises(SourceError, match="ftp"):
        Watched("ftp://127.0.0.1/x")


class FailingOnce(Watched):
    """Receiving a status fails once, when the source is live."""

    failed = False

    def _receive(self, status: SourceStatus) -> None:
        if status.state == "live" and not self.failed:
            self.failed = True
            raise LookupError("unexpected")
        super()._receive(status)


def test_an_unexpected_error_is_reported_and_the_source_reconnects(
    server: RtspServer, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FailingOnce(server.url, stall_s=HANGS_S) as watched:
        failed = watched.until(in_state("reconnecting"))
        watched.until(in_state("live"))
        arrivals = watched.take(2)
    assert "LookupError" in failed.detail and "\n" not in failed.detail
    assert [(arrival.frame.index, arrival.frame.gap) for arrival in arrivals] == [(0, False), (1, True)]
    assert watched.states() == ["starting", "reconnecting", "live", "ended"]
    assert "unexpected" in caplog.text
    with FailingOnce(str(clip), newest=False) as played:
        ended = played.until(in_state("ended"))
    assert "LookupError" in ended.detail, "a file would report all its events again"


def test_a_missing_device_is_retried() -> None:
    with Watched("/dev/video97") as watched:
        attempts = [watched.until(in_state("reconnecting"), number) for number in (1, 2, 3)]
    assert all("no such device" in attempt.detail for attempt in attempts)
    assert attempts[-1].reconnects == 0
    assert watched.states() == ["starting", "reconnecting", "ended"]


def test_a_file_that_appears_is_played(tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    with Watched(str(path), newest=False) as watched:
        assert "there is no such file" in watched.until(in_state("reconnecting")).detail
        write_video(path.with_suffix(".part.mp4"), stepping(64, 48, 3)).rename(path)
        assert [arrival.frame.index for arrival in watched.take(3)] == [0, 1, 2]
        watched.until(in_state("ended"))


def test_a_consumer_too_slow_gets_the_newest(server: RtspServer) -> None:
    with Watched(server.url, capacity=3, stall_s=HANGS_S) as watched:
        watched.take(1)
        status = watched.until(lambda status: status.drops > 10)
        arrivals = watched.take(4)
    assert status.state == "live"
    assert arrivals[0].frame.index > status.drops, "what waited longest was dropped"
    assert not any(arrival.frame.gap for arrival in arrivals)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three quarters of a second of video: 30 frames at 40 a second."""
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", stepping(64, 48, 30), rate=40)


def test_a_file_is_played_in_real_time_and_ends(clip: Path) -> None:
    began = time.monotonic()
    with Watched(str(clip), newest=False, capacity=1) as watched:
        arrivals = watched.take(30)
        assert watched.box.get(SOON_S) is None
        watched.until(in_state("ended"))
        assert watched.capture.status.frames == 30
    assert watched.states() == ["starting", "live", "ended"]
    for arrival in arrivals:
        early = arrival.frame.t - (arrival.arrived - began)
        assert early < 0, f"frame {arrival.frame.index} came {early:.3f} s before its time"
    assert [arrival.frame.t for arrival in arrivals] == pytest.approx([n / 40 for n in range(30)], abs=1e-4)


def test_a_source_too_slow_for_micro_expressions_has_a_warning(tmp_path: Path) -> None:
    slow = write_video(tmp_path / "slow.mp4", stepping(64, 48, 30), rate=10)
    with Watched(str(slow), newest=False) as watched:
        status = watched.until(lambda status: bool(status.detail))
    found = re.search(r"cannot be seen at (\d+) frames/s", status.detail)
    assert status.state == "live" and found and 5 <= int(found[1]) <= 10, "fewer on a busy machine"


def test_a_file_loops_where_that_is_set(clip: Path) -> None:
    with Watched(str(clip), newest=False, loop=True) as watched:
        arrivals = watched.take(65)
        assert watched.capture.status.state == "live"
    assert [arrival.frame.index for arrival in arrivals] == list(range(65))
    assert [arrival.frame.index for arrival in arrivals if arrival.frame.gap] == [30, 60]
    assert [arrival.frame.t for arrival in arrivals] == pytest.approx([n / 40 for n in range(65)], abs=1e-4)
    assert watched.capture.status.reconnects == 0


def test_a_file_damaged_at_its_end_is_played_and_the_damage_reported(tmp_path: Path) -> None:
    path = write_video(tmp_path / "c.mp4", stepping(64, 48, 90), rate=60, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-1500])
    with Watched(str(path), newest=False, capacity=100) as watched:
        ended = watched.until(in_state("ended"))
    assert "damaged" in ended.detail or "cut off" in ended.detail


def test_a_pattern_is_played_in_real_time_and_ends() -> None:
    began = time.monotonic()
    with Watched("lavfi:testsrc=size=64x48:rate=30:duration=0.5") as watched:
        arrivals = watched.take(15)
        assert watched.box.get(SOON_S) is None
    assert arrivals[-1].arrived - began > 0.45
    assert watched.states() == ["starting", "live", "ended"]


def test_a_frozen_picture_is_detected_once_until_it_changes() -> None:
    frozen = FrozenPicture()
    pictures = [np.full((16, 16), level, np.uint8) for level in (10, 10, 10, 10, 10, 20, 20, 20)]
    arrivals = [Arrival(Frame(n, 0.5 * n, picture, "grey"), 100 + 0.5 * n, 0.0) for n, picture in enumerate(pictures)]
    detected = [frozen.detect(arrival, 1.0) for arrival in arrivals]
    assert detected == [False, False, True, False, False, False, False, True]


class StuckCamera(BaseHTTPRequestHandler):
    """Sends one picture over and over, as a camera does that hangs, and another once it is repaired."""

    picture, another = b"", b""
    repaired: threading.Event

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.end_headers()
        with suppress(OSError):
            while True:
                picture = self.another if self.repaired.is_set() else self.picture
                self.wfile.write(b"--picture\r\nContent-Type: image/jpeg\r\n\r\n" + picture + b"\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def test_a_camera_with_a_frozen_picture_is_reconnected_once_and_stalled_until_it_changes(tmp_path: Path) -> None:
    pictures = [
        write_video(tmp_path / "one.jpg", [picture], codec="mjpeg", pix_fmt="yuvj420p").read_bytes()
        for picture in stepping(64, 48, 2)
    ]
    repaired = threading.Event()
    handler = type("Camera", (StuckCamera,), {"picture": pictures[0], "another": pictures[1], "repaired": repaired})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        with Watched(f"http://127.0.0.1:{server.server_address[1]}/") as watched:
            assert watched.until(in_state("stalled")).detail == "the picture has not changed for 1 s"
            back = watched.until(lambda status: status.state not in ("starting", "reconnecting") and status.reconnects == 1)
            frozen = watched.until(lambda status: status.frames > back.frames, len(watched.reported))
            assert frozen.state == "stalled"
            assert frozen.detail == "the picture has not changed for 1 s"
            known = len(watched.reported)
            repaired.set()
            watched.until(in_state("live"), known)
            assert watched.states()[:6] == ["starting", "live", "stalled", "reconnecting", "stalled", "live"]
        server.shutdown()
        thread.join()


def never_there(server: RtspServer) -> Watched:
    return Watched("rtsp://127.0.0.1:1/x")


def unanswered(server: RtspServer) -> Watched:
    server.freeze()
    return Watched(server.url, stall_s=HANGS_S)


def running(server: RtspServer) -> Watched:
    return Watched(server.url)


def frozen(server: RtspServer) -> Watched:
    return Watched(server.url, stall_s=HANGS_S)


STOPPED_IN: dict[Callable[[RtspServer], Watched], str] = {
    never_there: "reconnecting",
    unanswered: "starting",
    running: "live",
    frozen: "live",
}


@pytest.mark.parametrize("make", STOPPED_IN)
def test_stopping_does_not_wait_for_the_source(server: RtspServer, make: Callable[[RtspServer], Watched]) -> None:
    watched = make(server)
    with watched:
        watched.until(in_state(STOPPED_IN[make]))
        if make is frozen:
            server.freeze()
        began = time.monotonic()
        watched.capture.stop(SOON_S)
        assert time.monotonic() - began < SOON_S
        assert not watched.capture.is_alive()
        assert watched.box._closed
        watched.capture.stop()
    server.thaw()
    assert watched.capture.status.state == "ended"


def test_stopping_wakes_a_file_that_waits_for_room(clip: Path) -> None:
    before = set(threading.enumerate())
    with Watched(str(clip), newest=False, capacity=1) as watched:
        watched.until(in_state("live"))
        watched.capture.stop()
        assert not watched.capture.is_alive()
    assert set(threading.enumerate()) <= before


def test_a_capture_never_started_stops_too(clip: Path) -> None:
    watched = Watched(str(clip))
    watched.capture.stop()
    assert watched.box._closed


def test_an_abandoned_queue_ends_the_capture(clip: Path) -> None:
    with Watched("lavfi:testsrc=size=64x48:rate=30") as watched:
        watched.take(1)
        watched.box.abandon()
        watched.until(in_state("ended"))


def test_a_hole_in_time_is_skipped() -> None:
    pace = Pace(threading.Event())
    began = time.monotonic()
    for t, gap in ((0.0, False), (0.05, False), (3600.0, True), (3600.05, False)):
        pace.wait(t, gap=gap)
    assert 0.09 < time.monotonic() - began < 20


def test_the_fields_of_a_status(clip: Path) -> None:
    with Watched(str(clip), newest=False, capacity=40, name="door") as watched:
        ended = watched.until(in_state("ended"))
    assert (ended.stream, ended.kind, ended.frames, ended.width, ended.height) == ("door", "file", 30, 64, 48)
    assert ended.fps == 0
    assert abs(ended.since - time.time()) < 60
    assert {field.name for field in fields(ended)} >= {"drops", "reconnects", "detail"}
