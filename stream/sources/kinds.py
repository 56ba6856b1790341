"""The kinds of sources there are, and the address that a source's text names.

    0, 1, ...                   the webcam of that number
    /dev/video0                 a webcam by its device (Linux)
    rtsp://USER:PASSWORD@HOST   a network camera; rtsps:// too
    http://, https://, rtmp://  a stream or playlist on the network
    lavfi:GRAPH                 a picture that FFmpeg draws itself (lavfi:testsrc=size=640x480:rate=30)
    anything else               a video file

A new kind is a module with a function that parses its text, and a line in KINDS.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import SourceError
from stream.sources.address import Address, Options, Transport
from stream.sources.devices import is_webcam, pattern, webcam
from stream.sources.file import recording
from stream.sources.network import network

KINDS: dict[str, Callable[[str, Options], Address]] = {
    "webcam": webcam,
    "lavfi:": pattern,
    "rtsp://": network,
    "rtsps://": network,
    "http://": network,
    "https://": network,
    "rtmp://": network,
    "rtmps://": network,
    "file": recording,
}
"""Prefix of a source's text, in lower case -> the function that parses it. A webcam and a file need no prefix."""


def parse_address(
    source: str, *, transport: Transport = "tcp", username: str | None = None, password: str | None = None
) -> Address:
    """The address that source names; username and password replace those in it.

    Raises SourceError in one sentence that repeats no credentials.
    """
    source = source.strip()
    if not source:
        raise SourceError("a source is a webcam's number, an address like rtsp://HOST/PATH, or a file; nothing was given")
    prefix = _prefix(source)
    if prefix not in KINDS:
        known = ", ".join(name for name in KINDS if name.endswith("://"))
        raise SourceError(f"addresses that begin with {prefix} are not supported; use {known}")
    return KINDS[prefix](source, Options(transport, username, password))


def _prefix(source: str) -> str:
    if is_webcam(source):
        return "webcam"
    if source.startswith("lavfi:"):
        return "lavfi:"
    scheme, mark, _ = source.partition("://")
    return scheme.lower() + mark if mark else "file"
