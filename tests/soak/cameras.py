"""Network cameras (MJPEG over HTTP) in a process of their own: each repeats a video at its own rate, and one is hostile.

    python -m tests.soak.cameras VIDEO...   prints "ports [...]", the hostile one's last, and ends with its input

A camera is live: a client that reads too slowly misses pictures, and one that connects again starts with the present picture.
The hostile one refuses every client until a line of its input names what to send to the next ones: one of MODES.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

import av
import cv2
import numpy as np
import typer

from apexstream.bench.live_process import import_environment
from engine.types import U8
from tests.soak import ROOT
from tests.soak.command import command_line

MODES = ("huge", "nonsense", "redirect", "endless", "long")
"""Pictures of 16,000 x 16,000; bytes that are no answer; an answer that leads to this machine's port 1; the head of a part, and
a picture, without end."""
REFUSE = "refuse"
SIDE = 16_000
START_S = 60.0
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"


class Cameras:
    """The process, from outside; videos are files of one face each. Raises RuntimeError where it does not start."""

    def __init__(self, videos: Sequence[Path]) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        command = [sys.executable, "-m", "tests.soak.cameras", *map(str, videos)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT, env=import_environment()
        )
        self._reading = threading.Thread(target=self._read, name="cameras", daemon=True)
        self._reading.start()
        first = self._next(START_S)
        if not first.startswith("ports "):
            self._process.kill()
            raise RuntimeError(f"the cameras did not start: {first or 'no output'}")
        *ports, hostile = json.loads(first.removeprefix("ports "))
        self.urls = [f"http://127.0.0.1:{port}/" for port in ports]
        self.hostile_url = f"http://127.0.0.1:{hostile}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def attack_with(self, mode: str, within_s: float) -> bool:
        """Have the hostile camera send that to new clients from now on; whether one connected within so many seconds."""
        while self._next(0.0):
            pass
        self._send(mode)
        return self._next(within_s) == f"sent {mode}"

    def refuse(self) -> None:
        """Have the hostile camera refuse all clients again."""
        self._send(REFUSE)

    def _send(self, mode: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{mode}\n")

    def _next(self, within_s: float) -> str:
        with contextlib.suppress(queue.Empty):
            return self._lines.get(timeout=within_s) if within_s else self._lines.get_nowait()
        return ""

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())


class Server(socketserver.ThreadingTCPServer):
    """A thread for each client."""

    daemon_threads = True
    request_queue_size = 64


class _Camera(socketserver.BaseRequestHandler):
    """Plays pictures, rate of them a second, to each client; all see the same one at a time."""

    pictures: Sequence[bytes] = ()
    rate = 15.0
    wait = threading.Event().wait

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.recv(4096)
            self.request.sendall(HEAD)
            shown = int(time.monotonic() * self.rate)
            while True:
                shown = max(shown + 1, int(time.monotonic() * self.rate))
                self.wait(max(0.0, shown / self.rate - time.monotonic()))
                self.request.sendall(part(self.pictures[shown % len(self.pictures)]))


class _Hostile(socketserver.BaseRequestHandler):
    """Sends each client what mode names at that moment."""

    mode = REFUSE
    huge = b""

    def handle(self) -> None:
        mode = type(self).mode
        if mode == REFUSE:
            return
        print(f"sent {mode}", flush=True)
        with contextlib.suppress(OSError):
            self.request.recv(4096)
            if mode == "redirect":
                self.request.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
                return
            first, more = {
                "huge": (HEAD, part(self.huge)),
                "nonsense": (b"", b"\x00\xff\r\n" * 4096),
                "endless": (HEAD + b"--b\r\n", b"X-A: " + b"a" * 65536),
                "long": (HEAD + b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: 2000000000\r\n\r\n", b"a" * 65536),
            }[mode]
            self.request.sendall(first)
            while type(self).mode == mode:
                self.request.sendall(more)


def part(jpeg: bytes) -> bytes:
    """A picture as MJPEG over HTTP has it."""
    return b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n"


def pictures_of(video: Path) -> tuple[list[bytes], float]:
    """The video's pictures as JPEGs, and how many there are a second."""
    with av.open(str(video)) as container:
        rate = float(container.streams.video[0].average_rate or 15)
        return [jpeg_of(frame.to_ndarray(format="bgr24").astype(np.uint8)) for frame in container.decode(video=0)], rate


def jpeg_of(pixels: U8) -> bytes:
    """A picture [H, W, 3] BGR as JPEG."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def main(videos: Annotated[list[Path], typer.Argument(help="Videos of one face each.")]) -> None:
    """Serve the videos and the hostile camera, until the input ends."""
    _Hostile.huge = jpeg_of(np.full((SIDE, SIDE, 3), 90, np.uint8))
    handlers: list[type[socketserver.BaseRequestHandler]] = []
    for pictures, rate in map(pictures_of, videos):
        handlers.append(type("Camera", (_Camera,), {"pictures": pictures, "rate": rate}))
    servers = [Server(("127.0.0.1", 0), handler) for handler in (*handlers, _Hostile)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"ports {json.dumps([server.server_address[1] for server in servers])}", flush=True)
    for line in sys.stdin:
        _Hostile.mode = line.strip()


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
