from __future__ import annotations

import contextlib
import json
import math
import random
import struct
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

import stream.server.camera
from engine.errors import InputError
from stream.messages import Arrival, SourceStatus
from stream.queues import ClosedError
from stream.server.camera import MAX_BYTES, MAX_PER_S, MAX_SCANS, MAX_SIDE, STALLED_S, WAITING, Feed, jpeg_size
from stream.server.server import MAX_CAMERAS
from tests.running_server import TOKEN, RunningServer, run, running_server, until

OFFER = json.dumps({"type": "camera", "v": 1, "name": "my face", "consent": True})


def jpeg(width: int = 64, height: int = 48, grey: int = 128) -> bytes:
    done, data = cv2.imencode(".jpg", np.full((height, width, 3), grey, np.uint8))
    assert done
    return data.tobytes()


def picture(t: float, data: bytes | None = None) -> bytes:
    return struct.pack(">d", t) + (jpeg() if data is None else data)


# The feed


def test_pictures_are_decoded_with_their_time() -> None:
    feed = Feed("me")
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 2] = 255  # BGR
    feed.offer(picture(1.5, cv2.imencode(".jpg", red)[1].tobytes()))
    feed.offer(picture(1.6))
    first, second = feed.get(1), feed.get(1)
    assert first is not None
    assert second is not None
    assert (first.frame.t, first.frame.index, first.frame.layout) == (1.5, 0, "rgb")
    assert first.frame.pixels.shape == (48, 64, 3)
    assert first.frame.pixels[24, 32].tolist() == pytest.approx([255, 0, 0], abs=40), "RGB, not BGR"
    assert (second.frame.t, second.frame.index) == (1.6, 1)
    assert second.arrived >= first.arrived
    with pytest.raises(TimeoutError):
        feed.get(0.01)
    feed.close()
    assert feed.get(1) is None


def test_the_newest_pictures_are_kept() -> None:
    feed = Feed("me")
    for k in range(10):
        feed.offer(picture(k / 30))
    got = [feed.get(1), feed.get(1)]
    assert [one.frame.t for one in got if one is not None] == [8 / 30, 9 / 30]
    assert feed.dropped == 8
    assert feed.status().drops == 8


@pytest.mark.parametrize("t", [math.nan, math.inf, -math.inf, -1.0, 1e12, 1.0, 0.5])
def test_time_must_increase(t: float) -> None:
    feed = Feed("me")
    feed.offer(picture(1.0))
    with pytest.raises(InputError, match="later than"):
        feed.offer(picture(t))
    feed.offer(picture(1.1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + b"x" * 100,
        b"\xff\xd8",
        b"\xff\xd8\xff\xe0\xff\xff" + b"x" * 100,
        jpeg(1300, 16),
        jpeg(16, 1281),
        jpeg()[:2] + jpeg()[2:].replace(b"\x00\x30\x00\x40", b"\xff\xff\xff\xff", 1),
        jpeg()[:2] + jpeg()[2:].replace(b"\x00\x30\x00\x40", b"\x00\x00\x00\x40", 1),
        b"\xff\xd8" + b"\xff" * 200,
        b"\xff\xd8" + b"\xff\x01" * 200,
        b"x" * (MAX_BYTES + 1),
    ],
)
def test_an_invalid_picture_is_refused_before_it_is_decoded(data: bytes) -> None:
    outcomes: list[str] = []
    feed = Feed("me", count=outcomes.append)
    with pytest.raises(InputError, match="a picture is"):
        feed.offer(picture(1.0, data))
    assert outcomes == ["broken"]
    assert len(feed) == 0
    assert feed.status().detail == "1 pictures could not be used"


def scans(number: int) -> bytes:
    """A progressive JPEG of the largest size with so many scans, the last of which is repeated."""
    black = np.zeros((MAX_SIDE, MAX_SIDE, 3), np.uint8)
    whole = cv2.imencode(".jpg", black, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * (number - whole.count(b"\xff\xda")) + whole[-2:]


def test_a_picture_of_too_many_scans_is_refused_before_it_is_decoded() -> None:
    feed = Feed("me")
    bomb = scans(40_000)
    assert len(bomb) < MAX_BYTES
    with pytest.raises(InputError, match=f"at most {MAX_SCANS} scans"):
        feed.offer(picture(1.0, bomb))
    assert len(feed) == 0
    feed.offer(picture(1.1, scans(10)))
    got = feed.get(1)
    assert got is not None
    assert got.frame.pixels.shape == (MAX_SIDE, MAX_SIDE, 3)


@pytest.mark.parametrize("process", [0xC3, 0xC5, 0xC9, 0xCA, 0xCF])
def test_lossless_and_arithmetic_jpegs_are_refused(process: int) -> None:
    with pytest.raises(InputError, match="a picture is"):
        Feed("me").offer(picture(1.0, jpeg().replace(b"\xff\xc0", bytes([0xFF, process]), 1)))


def test_a_damaged_picture_is_counted_and_skipped() -> None:
    outcomes: list[str] = []
    feed = Feed("me", count=outcomes.append)
    head = jpeg()[: jpeg().index(b"\xff\xda")]
    feed.offer(picture(1.0, head))
    feed.offer(picture(1.1))
    got = feed.get(1)
    assert got is not None
    assert (got.frame.t, got.frame.index) == (1.1, 0)
    assert outcomes == ["taken", "taken", "broken"]
    assert "1 pictures" in feed.status().detail


def test_the_feed_survives_damage_of_any_kind() -> None:
    dice = random.Random(3)
    feed = Feed("me")
    whole, shown = jpeg(320, 240), 0
    for k in range(int(2 * MAX_PER_S)):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 30)):
            data[dice.randrange(2, len(data))] = dice.randrange(256)
        cut = dice.randrange(100, len(data)) if dice.random() < 0.3 else len(data)
        with contextlib.suppress(InputError, TimeoutError):
            feed.offer(picture(k / 30, bytes(data[:cut])))
            arrival = feed.get(0)
            assert arrival is not None
            assert max(arrival.frame.pixels.shape) <= MAX_SIDE
            shown += 1
    assert shown > 5
    assert "could not be used" in feed.status().detail


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (1280, 1280)])
def test_the_size_is_read_from_the_header(size: tuple[int, int]) -> None:
    assert jpeg_size(jpeg(*size)) == size
    _, progressive = cv2.imencode(".jpg", np.zeros((*size[::-1], 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert jpeg_size(progressive.tobytes()) == size


def test_pictures_beyond_the_rate_are_dropped_and_counted() -> None:
    outcomes: list[str] = []
    now = [1000.0]
    feed = Feed("me", count=outcomes.append, clock=lambda: now[0])
    for k in range(200):
        feed.offer(picture(k / 1000))
    assert (outcomes.count("taken"), outcomes.count("dropped")) == (2 * MAX_PER_S, 200 - 2 * MAX_PER_S)
    assert feed.dropped == 200 - WAITING
    now[0] += 1.0
    for k in range(200, 400):
        feed.offer(picture(k / 1000))
    assert outcomes.count("taken") == 3 * MAX_PER_S


def test_an_abandoned_feed_is_closed() -> None:
    feed = Feed("me")
    feed.abandon()
    with pytest.raises(ClosedError):
        feed.offer(picture(1.0))


def test_states() -> None:
    now = [1000.0]
    feed = Feed("me", clock=lambda: now[0])
    assert feed.status().state == "starting"
    feed.offer(picture(1.0))
    status = feed.status()
    assert (status.state, status.kind, status.width, status.height, status.frames) == ("live", "browser", 64, 48, 1)
    now[0] += STALLED_S
    assert feed.status().state == "stalled"
    assert feed.status("ended").state == "ended"


# The socket


class Cameras:
    """Sources that accept cameras, each read by a thread as the session's worker does."""

    def __init__(self, most: int = 4) -> None:
        self.most = most
        self.feeds: dict[str, Feed] = {}
        self.arrivals: list[Arrival] = []
        self.statuses: list[SourceStatus] = []
        self.removed: list[str] = []
        self.callers: set[threading.Thread] = set()
        self._threads: dict[str, threading.Thread] = {}

    def add_browser(self, name: str, feed: Feed) -> None:
        if name in self.feeds or len(self.feeds) >= self.most:
            raise InputError(f"{name} is taken")
        self.callers.add(threading.current_thread())
        self.feeds[name] = feed
        self._threads[name] = threading.Thread(target=self._read, args=(feed,))
        self._threads[name].start()

    def remove_browser(self, name: str) -> None:
        self.callers.add(threading.current_thread())
        del self.feeds[name]
        self._threads[name].join()
        self.removed.append(name)

    def report(self, status: SourceStatus) -> None:
        self.statuses.append(status)

    def _read(self, feed: Feed) -> None:
        while (arrival := feed.get()) is not None:
            self.arrivals.append(arrival)


def camera(service: RunningServer, **options: Any) -> connect:
    """A page's socket for its camera."""
    own = Origin(f"http://127.0.0.1:{service.port}")
    return connect(f"{service.uri}camera", **{"origin": own, "subprotocols": [Subprotocol("apexstream.v1")], **options})


async def next_of(client: ClientConnection, kind: str) -> dict[str, Any]:
    async for message in client:
        if json.loads(message)["type"] == kind:
            return dict(json.loads(message))
    raise AssertionError(f"the connection ended before a {kind}")


def test_a_camera_is_added_read_and_removed(tmp_path: Path) -> None:
    cameras = Cameras()

    async def test() -> None:
        async with running_server(tmp_path, session=cameras) as service:
            async with camera(service) as client:
                await client.send(OFFER)
                status = await next_of(client, "status")
                assert (status["stream"], status["kind"], status["state"]) == ("my face", "browser", "starting")
                for k in range(5):
                    await client.send(picture(k / 30))
                    await until(lambda many=k + 1: len(cameras.arrivals) == many, "the picture to be read")
                while (await next_of(client, "status"))["state"] != "live":  # as before the first picture, on a busy machine
                    continue
                assert [arrival.frame.t for arrival in cameras.arrivals] == [k / 30 for k in range(5)]
            await until(lambda: cameras.removed == ["my face"], "the stream to be removed")
            assert threading.current_thread() not in cameras.callers, "adding and removing block: not on the event loop"
            assert cameras.statuses[0].state == "starting"
            assert service.sample("apexstream_camera_frames_total", outcome="taken") == 5

    run(test)


def test_invalid_pictures_are_answered_and_the_camera_goes_on(tmp_path: Path) -> None:
    cameras = Cameras()

    async def test() -> None:
        async with running_server(tmp_path, session=cameras) as service, camera(service) as client:
            await client.send(OFFER)
            for wrong in (b"", b"\x00" * 8, picture(1.0, b"no jpeg"), "text", picture(math.nan), b"\x00" * (MAX_BYTES + 100)):
                await client.send(wrong)
                assert (await next_of(client, "error"))["code"] == "picture"
            await client.send(picture(2.0))
            await until(lambda: cameras.arrivals, "the good one")
            assert service.sample("apexstream_camera_frames_total", outcome="broken") == 6

    run(test)


def test_without_consent_nothing_is_taken(tmp_path: Path) -> None:
    cameras = Cameras()
    refused = [
        {"type": "camera", "v": 1, "name": "me", "consent": False},
        {"type": "camera", "v": 1, "name": "me"},
        {"type": "camera", "v": 1, "name": "../../x", "consent": True},
        {"type": "camera", "v": 2, "name": "me", "consent": True},
        {"type": "ping"},
    ]

    async def test() -> None:
        async with running_server(tmp_path, session=cameras) as service:
            for first in [*map(json.dumps, refused), picture(1.0), "{", b"\xff"]:
                async with camera(service) as client:
                    await client.send(first)
                    with pytest.raises(ConnectionClosed) as closed:
                        assert (await next_of(client, "error"))["code"] == "camera"
                        await client.recv()
                    assert closed.value.rcvd is not None
                    assert closed.value.rcvd.code == 1008
            assert not cameras.removed
            assert not cameras.feeds

    run(test)


def test_a_page_that_sends_no_consent_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.server.camera, "CONSENT_S", 0.2)

    async def test() -> None:
        async with running_server(tmp_path, session=Cameras()) as service, camera(service) as client:
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008

    run(test)


def test_closing_before_consent_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cameras = Cameras()

    async def test() -> None:
        async with running_server(tmp_path, session=cameras) as service:
            async with camera(service):
                pass
            async with camera(service) as client:
                client.transport.abort()
            await until(lambda: not service.sample("apexstream_connections"), "both to be closed")

    run(test)
    assert [record for record in caplog.records if record.exc_info] == []
    assert not cameras.feeds


def test_names_and_number_of_cameras_are_limited(tmp_path: Path) -> None:
    cameras = Cameras(most=1)

    async def test() -> None:
        async with running_server(tmp_path, session=cameras) as service, camera(service) as first:
            await first.send(OFFER)
            await next_of(first, "status")
            async with camera(service) as second:
                await second.send(OFFER)
                assert (await next_of(second, "error"))["message"] == "my face is taken"
                await second.wait_closed()
                assert second.close_code == 1008
            assert list(cameras.feeds) == ["my face"]

    run(test)


def test_camera_connections_are_limited(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, session=Cameras()) as service, contextlib.AsyncExitStack() as crowd:
            shown = [await crowd.enter_async_context(camera(service)) for _ in range(MAX_CAMERAS)]
            with pytest.raises(InvalidStatus) as refused:
                await camera(service)
            assert refused.value.response.status_code == 503
            async with connect(service.uri):
                pass
            await shown[0].close()
            await until(lambda: len(service.server.state.open) == MAX_CAMERAS - 1, "one to be closed")
            async with camera(service) as late:
                await late.send(OFFER)
                assert (await next_of(late, "status"))["stream"] == "my face"

    run(test)


def test_only_the_services_own_page_may_show_a_camera(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, session=Cameras(), token=TOKEN, origins=("https://page.example",)) as service:
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            for origin in (None, Origin("https://page.example"), Origin("null")):
                with pytest.raises(InvalidStatus) as refused:
                    await camera(service, origin=origin, additional_headers=bearer)
                assert refused.value.response.status_code == 403
            with pytest.raises(InvalidStatus) as refused:
                await camera(service)
            assert refused.value.response.status_code == 401
            page = [Subprotocol("apexstream.v1"), Subprotocol(f"apexstream.token.{TOKEN}")]
            async with camera(service, subprotocols=page) as client:
                await client.send(OFFER)
                assert (await next_of(client, "status"))["stream"] == "my face"

    run(test)


def test_the_service_ends_while_a_camera_is_shown(tmp_path: Path) -> None:
    cameras = Cameras()

    async def test() -> None:
        async with running_server(tmp_path, session=cameras) as service, camera(service) as client:
            await client.send(OFFER)
            await next_of(client, "status")
            await service.server.stop()
            assert cameras.removed == ["my face"]
            await client.wait_closed()
            assert client.close_code == 1001

    run(test)
