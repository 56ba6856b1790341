"""Every kind of source by its text, and what it takes to add one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from engine.errors import SourceError
from engine.types import Frame
from stream.analysis.session import Session
from stream.messages import Arrival, SourceStatus
from stream.queues import BoundedQueue
from stream.settings import LiveSettings
from stream.sources.address import Address, Options, Timeouts
from stream.sources.capture import Capture
from stream.sources.kinds import KINDS, parse_address
from stream.sources.settings import SourceSettings
from tests.live import PATIENCE_S, Collected, Ready


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("0", ("webcam", "/dev/video0", "v4l2", "/dev/video0")),
        ("/dev/video12", ("webcam", "/dev/video12", "v4l2", "/dev/video12")),
        ("rtsp://cam/live?channel=1", ("rtsp", "rtsp://cam/live?channel=1", None, "rtsp://cam/live")),
        ("RTSPS://cam:322/live", ("rtsp", "rtsps://cam:322/live", None, "rtsps://cam:322/live")),
        ("rtsp://[::1]:554/a", ("rtsp", "rtsp://[::1]:554/a", None, "rtsp://[::1]:554/a")),
        ("https://host/@me/live.m3u8", ("http", "https://host/@me/live.m3u8", None, "https://host/@me/live.m3u8")),
        ("rtmp://host/app/key", ("http", "rtmp://host/app/key", None, "rtmp://host/app/***")),
        ("lavfi:testsrc=rate=30", ("pattern", "testsrc=rate=30", "lavfi", "lavfi:testsrc=rate=30")),
        (" clips/one.mp4 ", ("file", "clips/one.mp4", None, "clips/one.mp4")),
        ("0.mp4", ("file", "0.mp4", None, "0.mp4")),
    ],
)
def test_kinds_of_sources(source: str, expected: tuple[str, str, str | None, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    address = parse_address(source)
    assert (address.kind, address.target, address.format, address.shown) == expected
    assert address.live == (address.kind != "file")
    assert address.paced == (address.kind in ("file", "pattern"))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("", "nothing was given"),
        ("ftp://host/x", "ftp:// are not supported; use rtsp://, rtsps://, http://, https://, rtmp://, rtmps://$"),
        ("rtsp://", "no usable host and port"),
        ("rtsp://cam:99999/x", "no usable host and port"),
        ("rtsp://me:pa#secret@cam/x", "write % / \\? # and @ as"),
        ("rtsp://me:secret/x@cam/x", "write % / \\? # and @ as"),
        ("rtsp://me:12/secret@cam/x", "write % / \\? # and @ as"),
        ("rtsp://me:p@ss#secret%rd@cam/x", "write % / \\? # and @ as"),
        ("rtsp://me:p@secret@cam/x", "write % / \\? # and @ as"),
        ("rtsp://me:secret%@cam/x", "write % / \\? # and @ as"),
        ("http://me:secret%zz@cam/x", "or give them apart"),
        ("rtsp://me:12?secret@cam/x", "write % / \\? # and @ as"),
        ("http://[::1/x", "no usable host and port"),
        ("lavfi: ", "graph"),
    ],
)
def test_malformed_addresses_are_explained_in_one_sentence_without_credentials(source: str, problem: str) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        parse_address(source)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_webcams_number_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert (parse_address("1").target, parse_address("1").format) == ("1", "avfoundation")
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(SourceError, match="cannot be named by number"):
        parse_address("1")


@pytest.mark.parametrize("source", ["clip.mp4", "rtsp://cam/live", "lavfi:testsrc"])
def test_addresses_of_one_source_are_equal(source: str) -> None:
    assert parse_address(source) == parse_address(source)
    assert hash(parse_address(source)) == hash(parse_address(source))


@pytest.mark.parametrize("graph", ["", " "])
def test_a_pattern_needs_a_graph(graph: str) -> None:
    with pytest.raises(SourceError, match="graph"):
        parse_address(f"lavfi:{graph}")


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_uses_the_given_transport_for_pictures_only(transport: str) -> None:
    options = parse_address("rtsp://cam/", transport="udp" if transport == "udp" else "tcp").options
    assert (options["rtsp_transport"], options["allowed_media_types"]) == (transport, "video")


@pytest.mark.parametrize("source", ["http://host/a.m3u8", "https://host/a.m3u8", "rtsp://host/", "rtmp://host/a"])
def test_network_addresses_lead_to_no_files(source: str) -> None:
    allowed = parse_address(source).options["protocol_whitelist"].split(",")
    assert not {"file", "pipe", "fd", "concat", "subfile", "data:file"} & set(allowed)


@pytest.mark.parametrize("name", ["rtsp://admin:p%40s%23s%25@cam/x", "http://admin:p%40s%23s%25@cam/x"])
def test_a_password_with_reserved_characters_works_escaped_or_apart(name: str) -> None:
    bare = name.replace("admin:p%40s%23s%25@", "")
    escaped, apart = parse_address(name), parse_address(bare, username="admin", password="p@s#s%")
    assert escaped.target == apart.target == name
    assert not [secret for secret in ("p@s#s%", "p%40s%23s%25") if secret in f"{escaped.shown} {escaped!r} {apart!r}"]


@pytest.mark.parametrize("fragment", ["#t=1", "?a=b#t=1", "#"])
def test_a_fragment_is_left_out(fragment: str) -> None:
    address = parse_address(f"http://me:word@cam/x{fragment}")
    assert address.target == f"http://me:word@cam/x{fragment.partition('#')[0]}"
    with pytest.raises(SourceError, match="write % / "):
        parse_address(f"http://me:word@cam/x{fragment}@y")


RATE = 50


class GeneratedSource:
    """Grey frames, each brighter than the one before it: what an added kind of source needs."""

    paced, problem = True, None

    def __init__(self, address: Address, timeouts: Timeouts) -> None:
        self.packets = 0
        self.finished = False
        self._count = int(address.target)

    def __iter__(self) -> Iterator[Frame]:
        for number in range(self._count):
            self.packets += 1
            yield Frame(number, number / RATE, np.full((48, 64), number, np.uint8), "grey")
        self.finished = True

    def close(self) -> None:
        """There is nothing to free."""


def generated(source: str, _: Options) -> Address:
    count = source.removeprefix("generated://")
    return Address("generated", source, count, GeneratedSource, paced=True)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> str:
    """A source of a kind that is added by one line."""
    monkeypatch.setitem(KINDS, "generated://", generated)
    return "generated://10"


def test_an_added_kind_is_captured(added: str) -> None:
    queue: BoundedQueue[Arrival] = BoundedQueue(20)
    reported: list[SourceStatus] = []
    capture = Capture(SourceSettings(url=added), queue, reported.append)
    capture.start()
    frames = []
    while (arrival := queue.get(PATIENCE_S)) is not None:
        frames.append(arrival.frame)
    capture.stop()
    assert [frame.pixels[0, 0] for frame in frames] == list(range(10))
    assert [after.t - before.t for before, after in pairwise(frames)] == pytest.approx([1 / RATE] * 9)
    assert [status.state for status in reported] == ["starting", "live", "ended"]
    assert {(status.stream, status.kind) for status in reported} == {("10", "generated")}


def test_an_added_kind_is_analysed(added: str) -> None:
    analysed: BoundedQueue[str] = BoundedQueue(20)
    settings = LiveSettings(sources=(SourceSettings(url=added),))
    session = Session(settings, Collected(), processed=lambda stream, seconds, waiting: analysed.put(stream))
    ready = Ready()
    session.start(ready)
    assert ready.error() is None
    assert [analysed.get(PATIENCE_S) for _ in range(10)] == ["10"] * 10
    assert session.stop(PATIENCE_S)
