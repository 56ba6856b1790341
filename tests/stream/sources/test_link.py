"""One connection at a time, to every kind of source."""

from __future__ import annotations

import contextlib
import resource
import socket
import socketserver
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stream.messages import Arrival
from stream.sources.address import parse_address
from stream.sources.decoding import TOO_LARGE
from stream.sources.link import Link
from tests.videos import stepping, write_video

SOON_S = 30.0
"""Longest wait for what should happen at once: reached only by a test that fails."""

BOUNDARY = b"--picture\r\n"
HEADERS = b"Content-Type: image/jpeg\r\n\r\n"
PART = BOUNDARY + HEADERS
WAYS = {
    "/camera": (PART, PART),
    "/basic": (PART, PART),
    "/no-first-boundary": (HEADERS, PART),
    "/no-first-headers": (b"", PART),
    "/no-headers": (BOUNDARY + b"\r\n", BOUNDARY + b"\r\n"),
    "/no-empty-line": (BOUNDARY, BOUNDARY),
}
"""What cameras send before the first picture and before every other one, by path."""
LOGIN = b64encode(b"me:p@s#s").decode()


def linked(source: str, **limits: float) -> Link:
    return Link(parse_address(source), **{"read_s": 5.0, **limits})


def read(link: Link) -> list[Arrival]:
    """All it brings."""
    arrivals = []
    while (arrival := link.frames.get(SOON_S)) is not None:
        arrivals.append(arrival)
    link.join(SOON_S)
    assert not link.alive
    return arrivals


class Files(SimpleHTTPRequestHandler):
    """The files of a folder; /camera sends pictures for ever, as cameras do by HTTP."""

    def do_GET(self) -> None:
        if self.path == "/locked":
            self.send_error(401)
        elif self.path == "/basic" and self.headers.get("Authorization") != f"Basic {LOGIN}":
            self._ask_for_login()
        elif self.path in WAYS:
            self._send_pictures(Path(self.directory, "picture.jpg").read_bytes(), *WAYS[self.path])
        elif self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            self.end_headers()
        elif self.path == "/guarded" and self.headers.get("Authorization") is None:
            self._ask_for_login()
        elif self.path == "/guarded":
            assert self.headers["Authorization"] == f"Basic {b64encode(b'me:secret').decode()}"
            self.path = "/clip.mp4"
            super().do_GET()
        elif self.path == "/huge":
            small = Path(self.directory, "picture.jpg").read_bytes()
            size = small.index(b"\xff\xc0") + 5
            huge = small[:size] + struct.pack(">HH", 16_000, 16_000) + small[size + 4 : -2] + bytes(4 << 20)
            self._send_pictures(huge, PART, PART)
        else:
            super().do_GET()

    def _ask_for_login(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="camera"')
        self.end_headers()

    def _send_pictures(self, picture: bytes, first: bytes, before: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.end_headers()
        try:
            self.wfile.write(first + picture + b"\r\n")
            while True:
                self.wfile.write(before + picture + b"\r\n")
        except OSError:
            return

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 20 frames as a file and in pieces with a play list, a picture, and a play list that leads to a file."""
    folder = tmp_path_factory.mktemp("served")
    write_video(folder / "clip.mp4", stepping(64, 48, 20), container_options={"movflags": "faststart"})
    pieces = {"hls_time": "0.3", "hls_list_size": "0", "hls_playlist_type": "vod"}
    write_video(folder / "clip.m3u8", stepping(64, 48, 20), options={"g": "5"}, container_options=pieces)
    write_video(folder / "picture.jpg", stepping(64, 48, 1), codec="mjpeg", pix_fmt="yuvj420p")
    target = folder / "clip.mp4"
    (folder / "thief.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{target}\n#EXT-X-ENDLIST\n")
    return folder


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_file_is_read_to_its_end(folder: Path) -> None:
    link = linked(str(folder / "clip.mp4"))
    assert [arrival.frame.index for arrival in read(link)] == list(range(20))
    assert (link.over, link.paced, link.detail) == (True, True, "")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.m3u8"])
def test_a_recording_on_the_network_is_read_to_its_end_and_paced(web: str, name: str) -> None:
    link = linked(f"{web}/{name}")
    assert len(read(link)) == 20
    assert (link.over, link.paced) == (True, True)


def test_pictures_without_times_have_the_time_of_their_arrival(web: str) -> None:
    began = time.monotonic()
    link = linked(f"{web}/camera")
    arrivals = [link.frames.get(SOON_S) for _ in range(5)]
    link.abandon()
    for arrival in arrivals:
        assert arrival is not None
        assert began <= arrival.frame.t <= arrival.arrived
    assert not link.paced
    link.join(SOON_S)
    assert not link.alive


@pytest.mark.parametrize("way", [*WAYS])
def test_pictures_by_http_are_read_however_a_camera_writes_its_parts(web: str, way: str) -> None:
    link = linked(f"{web.replace('//', '//me:p%40s%23s@')}{way}")
    arrivals = [link.frames.get(SOON_S) for _ in range(5)]
    link.abandon()
    assert None not in arrivals, link.detail
    link.join(SOON_S)


@pytest.mark.parametrize("login", ["", "me:secret@"])
def test_a_camera_that_wants_another_login_says_so(web: str, login: str) -> None:
    link = linked(f"{web.replace('//', f'//{login}')}/basic")
    assert read(link) == []
    assert "refuses the user name or password" in link.detail
    assert "secret" not in link.detail


def test_a_play_list_does_not_lead_to_files_of_this_machine(web: str) -> None:
    link = linked(f"{web}/thief.m3u8")
    assert read(link) == []
    assert not link.over
    assert link.detail


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/dev/video97", "/dev/video97: there is no such device or file"),
        ("missing.mp4", "missing.mp4: there is no such file"),
        ("rtsp://me:secret@127.0.0.1:1/x", "rtsp://127.0.0.1:1/x: nothing answers there"),
        ("http://me:secret@127.0.0.1:1/x?key=secret", "http://127.0.0.1:1/x: nothing answers there"),
        ("lavfi:nosuchfilter", "lavfi:nosuchfilter cannot be read"),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_sentence(source: str, said: str) -> None:
    link = linked(source)
    assert read(link) == []
    assert link.detail.startswith(said)
    assert "\n" not in link.detail
    assert "secret" not in link.detail
    assert not link.over


@pytest.mark.parametrize(("page", "said"), [("locked", "refuses the user name"), ("nothing", "no such stream")])
def test_what_a_server_refuses_is_told(web: str, page: str, said: str) -> None:
    link = linked(f"{web}/{page}")
    assert read(link) == []
    assert said in link.detail


def test_a_redirect_to_the_same_host_and_a_password_lead_to_the_source(web: str) -> None:
    host = web.partition("://")[2]
    for source in (f"{web}/to?{web}/clip.mp4", f"{web}/to?/clip.mp4", f"http://me:secret@{host}/guarded"):
        link = linked(source)
        assert (len(read(link)), link.detail) == (20, ""), source


@pytest.fixture
def neighbour() -> Iterator[socket.socket]:
    """A port of this machine that nobody may be led to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.mark.parametrize("way", ["redirect", "list", "list of lists", "key"])
def test_a_source_leads_to_no_other_host_of_this_network(web: str, folder: Path, neighbour: socket.socket, way: str) -> None:
    victim = f"http://0.0.0.0:{neighbour.getsockname()[1]}/admin?do=it"  # by which this machine is reached, too
    begin = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"
    lists = {
        "list": f"{begin}#EXTINF:1,\n{victim}.ts\n#EXT-X-ENDLIST\n",
        "list of lists": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{victim}.m3u8\n",
        "key": f'{begin}#EXT-X-KEY:METHOD=AES-128,URI="{victim}"\n#EXTINF:1,\nclip0.ts\n#EXT-X-ENDLIST\n',
    }
    (folder / "lead.m3u8").write_text(lists.get(way, ""))
    local = web.replace("127.0.0.1", "localhost")
    link = linked(f"{local}/to?{victim}" if way == "redirect" else f"{local}/lead.m3u8")
    assert read(link) == []
    assert (link.over, link.refused) == (False, True)
    assert "leads to 0.0.0.0, a host of a private network" in link.detail
    with pytest.raises(BlockingIOError):
        neighbour.accept()


MULTIPART = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n--b\r\nContent-Type: image/jpeg\r\n"
ENDLESS = {
    "nonsense": (b"", b"\x00\xff\r\n" * 4096),
    "head": (b"HTTP/1.0 200 OK\r\n", b"X-A: aaaaaaaaaaaaaaaa\r\n" * 500),
    "part": (MULTIPART + b"\r\n\xff\xd8", b"a" * 65536),
    "long part": (MULTIPART + b"Content-Length: 2000000000\r\n\r\n\xff\xd8", b"a" * 65536),
    "picture": (b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8", b"a" * 65536),
}


class Endless(socketserver.BaseRequestHandler):
    """Sends the beginning of something, and goes on for ever."""

    first = more = b""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.recv(4096)
            self.request.sendall(self.first)
            while True:
                self.request.sendall(self.more)


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_host_that_sends_no_end_of_something_is_refused(kind: str) -> None:
    first, more = ENDLESS[kind]
    handler = type("Handler", (Endless,), {"first": first, "more": more})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        link = linked(f"http://127.0.0.1:{server.server_address[1]}/")
        assert read(link) == []
        server.shutdown()
        thread.join()
    assert link.refused and not link.over
    assert "64 MiB without a picture in them" in link.detail


def test_a_camera_of_huge_pictures_is_refused_before_one_is_decoded(web: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    link = linked(f"{web}/huge")
    assert read(link) == []
    assert (link.detail, link.refused) == (f"{web}/huge: {TOO_LARGE}", True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB; one such picture has 375,000"


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_host_that_never_answers_is_given_up(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = linked(f"{scheme}://me:secret@127.0.0.1:{silent.getsockname()[1]}/x", open_s=0.3)
        assert read(link) == []
    assert "did not answer within 0.3 s" in link.detail
    assert "secret" not in link.detail


def test_an_abandoned_link_ends_by_itself() -> None:
    link = linked("lavfi:testsrc=size=64x48:rate=30")
    assert link.frames.get(SOON_S) is not None
    assert link.alive
    assert link.packets > 0
    link.abandon()
    link.join(SOON_S)
    assert not link.alive
