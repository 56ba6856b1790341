from __future__ import annotations

import asyncio
import json
import socket as sockets
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from engine.errors import ConfigError, OutputError, SourceError
from stream.recorded.results import read_results
from stream.review import server
from stream.review.database import ReviewDatabase
from stream.review.frames import frame_times
from stream.review.server import ReviewServer, analysed_video
from stream.review.session import ReviewSession
from tests.live import PATIENCE_S
from tests.review import code_of, events_at, results_of, write_plain, write_results
from tests.reviewing import RunningReview

PROTOCOLS = ["apexstream.v1"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    return results_of(write_plain(folder / "clip.mp4", 60), folder / "results", [10, 30])


@pytest.fixture
def review(results: Path) -> Iterator[RunningReview]:
    with RunningReview(results) as running:
        yield running


def ask(review: RunningReview, path: str, **headers: str) -> tuple[int, bytes]:
    address = f"http://127.0.0.1:{review.port}{path}"
    with_token = {"Authorization": f"Bearer {review.server.token}", **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=with_token), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def socket(review: RunningReview, token: str | None = None, **options: Any) -> Any:
    protocols = [*PROTOCOLS, f"apexstream.token.{token or review.server.token}"]
    return connect(f"ws://127.0.0.1:{review.port}/", subprotocols=protocols, proxy=None, **options)


def connection_to(port: int) -> sockets.socket:
    return sockets.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def until_read(client: Any) -> dict[str, Any]:
    """What is said of the video once it was read."""
    while (message := json.loads(client.recv(30)))["type"] != "video":
        assert message["type"] in ("hello", "reading")
    return dict(message)


def test_page_and_pictures(review: RunningReview) -> None:
    with socket(review) as client:
        video = until_read(client)
        assert (video["frames"], video["width"], video["start"]) == (60, 160, 0.0)
        assert client.subprotocol == "apexstream.v1", "the token is not sent back"
    status, page = ask(review, "/")
    assert status == 200 and b"<title>Review" in page
    assert ask(review, "/style.css")[0] == ask(review, "/review.js")[0] == 200
    status, chunk = ask(review, "/frames/2?region=0,0,40,40")
    assert status == 200 and b'"first": 48' in chunk
    assert ask(review, "/faces") == (200, b"[]")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/frames/x", 400),
        ("/frames/-1", 400),
        ("/frames/1?region=1,2", 400),
        ("/frames/../../review.sqlite", 400),
        ("/review.sqlite", 404),
        ("/..%2freview.sqlite", 404),
        ("/app.js", 404),
    ],
)
def test_nothing_else_is_served(review: RunningReview, path: str, status: int) -> None:
    assert ask(review, path)[0] == status


def test_access_needs_the_token_a_known_host_and_the_own_origin(review: RunningReview) -> None:
    assert ask(review, "/frames/0", Authorization="Bearer wrong-token")[0] == 401
    assert ask(review, "/frames/0", Host="evil.example")[0] == 403
    assert ask(review, "/", Host="evil.example")[0] == 403
    assert ask(review, "/", Authorization="")[0] == 200, "the page's files hold no data"
    for options in ({"token": "wrong-token"}, {"origin": "http://evil.example"}):
        with pytest.raises(InvalidStatus), socket(review, **options):
            pass
    with socket(review, origin=f"http://127.0.0.1:{review.port}") as client:
        assert json.loads(client.recv(30))["type"] == "hello"


def test_an_address_leads_to_the_page_once(review: RunningReview) -> None:
    address = review.server.url_once
    assert review.server.token not in address
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert answer.url == review.server.url and b"<title>Review" in answer.read()
    for used in (address, f"{address}x", review.server.url_once, address.rsplit("/", 1)[0] + "/"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(used, timeout=30)
        assert caught.value.code == 404


def test_what_a_page_no_longer_waits_for_is_not_decoded(review: RunningReview, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket(review) as client:
        until_read(client)
    pictures = review.server._pictures
    assert pictures is not None
    decoding, go_on, decoded = threading.Event(), threading.Event(), []

    def chunk(number: int, region: object) -> bytes:
        decoding.set()
        decoded.append(number)
        assert go_on.wait(PATIENCE_S)
        return b""

    monkeypatch.setattr(pictures, "chunk", chunk)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, review, "/frames/0")
        assert decoding.wait(PATIENCE_S)
        with connection_to(review.port) as gone:
            gone.sendall(
                f"GET /frames/1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {review.server.token}\r\n\r\n".encode()
            )
            last = pool.submit(ask, review, "/healthz")  # answered once the request before it was read
            assert last.result(PATIENCE_S)[0] == 404
        assert ask(review, "/healthz")[0] == 404, "the server has seen the end of the connection"
        go_on.set()
        assert first.result(PATIENCE_S)[0] == 200
        assert ask(review, "/frames/2")[0] == 200
    assert decoded == [0, 2]


def test_an_action_is_answered_once_it_is_on_disk(review: RunningReview) -> None:
    code = {**code_of(events_at([10])[0]).as_dict(), "onset": 10, "apex": 16, "offset": 22, "action_units": ""}
    del code["coder"]
    with socket(review) as client:
        until_read(client)
        client.send(json.dumps({"type": "put", "id": "a", "code": code}))
        assert json.loads(client.recv(30))["type"] == "stored"
        assert review.codes()["event-0"].decision == "accepted"
        client.send("no message")
        assert json.loads(client.recv(30))["type"] == "refused"


def test_what_cannot_be_stored_is_a_problem_not_a_refusal(review: RunningReview, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(review.server.session.database, "undo", full)
    with socket(review) as client:
        until_read(client)
        client.send('{"type":"undo","id":"1"}')
        assert json.loads(client.recv(30)) == {"type": "problem", "sentence": "the disk is full"}


def test_an_action_that_needs_the_video_waits_until_it_is_read(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_on = threading.Event()

    def slow(*given: Any) -> Any:
        read_on.wait(30)
        return frame_times(*given)

    monkeypatch.setattr(server, "frame_times", slow)
    code = {**code_of(events_at([10])[0]).as_dict(), "onset": 11, "apex": 16, "offset": 22, "action_units": ""}
    del code["coder"]
    with RunningReview(results, "dana") as review, socket(review) as client:
        client.send(json.dumps({"type": "put", "id": "early", "code": code}))
        client.send('{"type":"undo","id":"later"}')
        read_on.set()
        kept: list[str] = []
        while len(kept) < 2:
            answer = json.loads(client.recv(30))
            assert answer["type"] in ("hello", "reading", "video", "stored")
            kept += [answer["id"]] if answer["type"] == "stored" else []
        assert kept == ["early", "later"]


def test_a_server_that_ends_does_not_read_on(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def endless(video: Path, results: object, database: object, progress: Callable[[float], None]) -> None:
        try:
            while True:
                progress(0.5)
        finally:
            ended.set()

    monkeypatch.setattr(server, "frame_times", endless)
    with RunningReview(results) as review, socket(review) as client:
        client.recv(30)
    assert ended.wait(30)


def test_a_port_in_use_and_a_missing_video_are_one_sentence(review: RunningReview, tmp_path: Path) -> None:
    session = review.server.session
    with pytest.raises(ConfigError, match=r"cannot listen .*--listen"):
        asyncio.run(ReviewServer(session, review.server.video, port=review.port).__aenter__())
    unnamed = replace(session.results, summary={})
    for results, video, sentence in ((unnamed, None, "names no video"), (unnamed, tmp_path / "gone.mp4", "is not there")):
        with pytest.raises(SourceError, match=sentence):
            analysed_video(results, video, session.database, lambda share: None)


def test_a_video_that_cannot_be_read_is_told_to_the_page(tmp_path: Path) -> None:
    results = write_results(tmp_path, events_at([10]), video=write_plain(tmp_path / "short.mp4", 5))
    with RunningReview(results) as review, socket(review) as client:
        assert "is not the video that was analysed" in until_read(client)["problem"]
        assert ask(review, "/frames/0")[0] == 503


def test_the_address_is_as_a_browser_takes_it(results: Path) -> None:
    with ReviewDatabase.open(results) as database:
        session = ReviewSession(read_results(results), database, "anna")
        assert ReviewServer(session, results, host="::1", port=9).url == f"http://[::1]:9/#token={database.token}"
