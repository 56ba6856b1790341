"""The network cameras that the soak of attacks reads, asked with plain sockets."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

from stream.server.camera import jpeg_size
from tests.soak.cameras import HEAD, SIDE, Cameras, pictures_of

SOON_S = 30.0


def first_bytes(url: str, count: int) -> bytes:
    """What a camera sends, up to so many bytes."""
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), SOON_S) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        got = b""
        while len(got) < count and (data := client.recv(65536)):
            got += data
        return got


def test_cameras_play_their_video_and_one_is_hostile_on_request(rendered_clip: Path) -> None:
    pictures, rate = pictures_of(rendered_clip)
    assert rate == 30 and len(pictures) == 240
    with Cameras([rendered_clip]) as cameras:
        shown = first_bytes(cameras.urls[0], 200_000)
        assert shown.startswith(HEAD)
        assert sum(picture in shown for picture in pictures) > 1
        assert first_bytes(cameras.hostile_url, 10) == b"", "it refuses until a mode is set"
        got: list[bytes] = [b""]

        def ask() -> None:
            while not got[-1]:
                got.append(first_bytes(cameras.hostile_url, 20_000))

        asking = threading.Thread(target=ask)
        asking.start()
        assert cameras.attack_with("huge", SOON_S)
        asking.join(SOON_S)
        assert jpeg_size(got[-1][got[-1].index(b"\xff\xd8") :]) == (SIDE, SIDE)
        cameras.refuse()
