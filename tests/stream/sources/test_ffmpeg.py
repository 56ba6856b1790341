"""FFmpeg's sources, each read through one connection."""

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

from stream.sources.connection import Connection
from stream.sources.decoding import TOO_LARGE
from stream.sources.kinds import parse_address
from tests.stream.sources.test_connection import read
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
"""What cameras send before the first picture and before all others, by path."""
LOGIN = b64encode(b"me:p@s#s").decode()


def connect(source: str, **limits: float) -> Connection:
    return Connection(parse_address(source), **{"read_s": 5.0, **limits})


class Files(SimpleHTTPRequestHandler):
    """The files of a folder; /camera sends pictures without end, as cameras do by HTTP."""

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
    """A clip of 20 frames as a file and in pieces with a playlist, a picture, and a playlist that leads to a file."""
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


@pytest.mark.parametrize("name", ["clip.mp4", "clip.m3u8"])
def test_a_recording_on_the_network_is_read_to_its_end_and_paced(web: str, name: str) -> None:
    connection = connect(f"{web}/{name}")
    assert len(read(connection)) == 20
    assert (connection.finished, connection.paced) == (True, True)


def test_pictures_without_times_have_the_time_of_their_arrival(web: str) -> None:
    began = time.monotonic()
    connection = connect(f"{web}/camera")
    arrivals = [connection.frames.get(SOON_S) for _ in range(5)]
    connection.frames.abandon()
    for arrival in arrivals:
        assert arrival is not None
        assert began <= arrival.frame.t <= arrival.arrived
    assert not connection.paced
    connection.join(SOON_S)
    assert not connection.is_alive()


@pytest.mark.parametrize("way", [*WAYS])
def test_multipart_pictures_are_read_in_every_variant(web: str, way: str) -> None:
    connection = connect(f"{web.replace('//', '//me:p%40s%23s@')}{way}")
    arrivals = [connection.frames.get(SOON_S) for _ in range(5)]
    connection.frames.abandon()
    assert None not in arrivals, connection.detail
    connection.join(SOON_S)


@pytest.mark.parametrize("login", ["", "me:secret@"])
def test_a_camera_that_refuses_the_login(web: str, login: str) -> None:
    connection = connect(f"{web.replace('//', f'//{login}')}/basic")
    assert read(connection) == []
    assert "refuses the user name or password" in connection.detail
    assert "secret" not in connection.detail


def test_a_playlist_does_not_lead_to_files_of_this_machine(web: str) -> None:
    connection = connect(f"{web}/thief.m3u8")
    assert read(connection) == []
    assert not connection.finished
    assert connection.detail


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("/dev/video97", "/dev/video97: there is no such device or file"),
        ("missing.mp4", "missing.mp4: there is no such file"),
        ("rtsp://me:secret@127.0.0.1:1/x", "rtsp://127.0.0.1:1/x: nothing answers there"),
        ("http://me:secret@127.0.0.1:1/x?key=secret", "http://127.0.0.1:1/x: nothing answers there"),
        ("lavfi:nosuchfilter", "lavfi:nosuchfilter cannot be read"),
    ],
)
def test_what_cannot_be_opened_is_explained_in_one_sentence(source: str, detail: str) -> None:
    connection = connect(source)
    assert read(connection) == []
    assert connection.detail.startswith(detail)
    assert "\n" not in connection.detail
    assert "secret" not in connection.detail
    assert not connection.finished


@pytest.mark.parametrize(("page", "reason"), [("locked", "refuses the user name"), ("nothing", "no such stream")])
def test_what_a_server_refuses_is_explained(web: str, page: str, reason: str) -> None:
    connection = connect(f"{web}/{page}")
    assert read(connection) == []
    assert reason in connection.detail


def test_a_redirect_to_the_same_host_and_a_password_lead_to_the_source(web: str) -> None:
    host = web.partition("://")[2]
    for source in (f"{web}/to?{web}/clip.mp4", f"{web}/to?/clip.mp4", f"http://me:secret@{host}/guarded"):
        connection = connect(source)
        assert (len(read(connection)), connection.detail) == (20, ""), source


@pytest.fixture
def neighbour() -> Iterator[socket.socket]:
    """A port of this machine that no source may lead to."""
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
    connection = connect(f"{local}/to?{victim}" if way == "redirect" else f"{local}/lead.m3u8")
    assert read(connection) == []
    assert (connection.finished, connection.refused) == (False, True)
    assert "leads to 0.0.0.0, a host of a private network" in connection.detail
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
    """Sends the start of something, and then more without end."""

    first = more = b""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.recv(4096)
            self.request.sendall(self.first)
            while True:
                self.request.sendall(self.more)


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_host_that_sends_endless_data_is_refused(kind: str) -> None:
    first, more = ENDLESS[kind]
    handler = type("Handler", (Endless,), {"first": first, "more": more})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        connection = connect(f"http://127.0.0.1:{server.server_address[1]}/")
        assert read(connection) == []
        server.shutdown()
        thread.join()
    assert connection.refused and not connection.finished
    assert "64 MiB without a picture in them" in connection.detail


def test_a_camera_of_huge_pictures_is_refused_before_one_is_decoded(web: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection = connect(f"{web}/huge")
    assert read(connection) == []
    assert (connection.detail, connection.refused) == (f"{web}/huge: {TOO_LARGE}", True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB; one such picture has 375,000"


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_host_that_never_answers_times_out(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = connect(f"{scheme}://me:secret@127.0.0.1:{silent.getsockname()[1]}/x", open_s=0.3)
        assert read(connection) == []
    assert "did not answer within 0.3 s" in connection.detail
    assert "secret" not in connection.detail
