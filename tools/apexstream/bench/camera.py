"""Network cameras that show a rendered clip: an HTTP server on this machine whose streams come in real time."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, cast

import av

Part = tuple[float, bytes]
"""When a piece of a stream is due, seconds from the first, and the piece."""


def parts_of(video: Path) -> list[Part]:
    """A video as an MPEG transport stream, picture by picture, without encoding it again."""
    sink, parts = io.BytesIO(), []
    with av.open(str(video)) as source, av.open(sink, "w", format="mpegts", options={"flush_packets": "1"}) as target:
        pictures = source.streams.video[0]
        copy = target.add_stream_from_template(pictures)
        written, begin = 0, None
        for packet in source.demux(pictures):
            if packet.dts is None or packet.time_base is None:
                continue
            at = float(packet.dts * packet.time_base)
            begin = at if begin is None else begin
            packet.stream = copy
            target.mux(packet)
            data = sink.getvalue()[written:]
            written += len(data)
            parts.append((at - begin, data))
    return parts


class Cameras:
    """As many cameras as are asked for, each showing the video once from its beginning to each client.

    `urls` names them. Everything ends with the block.
    """

    def __init__(self, video: Path, count: int) -> None:
        self._stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(parts_of(video), self._stopping))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="cameras", daemon=True)
        port = cast("tuple[str, int]", self._server.server_address)[1]
        self.urls = [f"http://127.0.0.1:{port}/camera-{number}.ts" for number in range(1, count + 1)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(parts: Sequence[Part], stopping: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            began = time.monotonic()
            for due, data in parts:
                if stopping.wait(max(0.0, began + due - time.monotonic())):
                    return
                try:
                    self.wfile.write(data)
                    self.wfile.flush()
                except OSError:  # the service has let go
                    return

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler
