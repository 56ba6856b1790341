"""The kinds of sources there are, and the address that a source's text names, credentials taken out of what is shown.

    0, 1, ...                   the webcam of that number
    /dev/video0                 a webcam by its device (Linux)
    rtsp://USER:PASSWORD@HOST   a network camera; rtsps:// too
    http://, https://, rtmp://  a stream or playlist on the network
    lavfi:GRAPH                 a picture that FFmpeg draws itself (lavfi:testsrc=size=640x480:rate=30)
    anything else               a video file

A password that holds % / ? # or @ is written with %25 %2F %3F %23 %40, or given apart from the address.
A new kind is a function that parses its text, and a line in KINDS.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from urllib.parse import SplitResult, quote, unquote, urlsplit

from engine.errors import SourceError
from stream.sources.address import Address, Options, Source, Timeouts, Transport
from stream.sources.ffmpeg import FfmpegSource
from stream.sources.file import open_video
from stream.sources.redaction import filter_secrets, has_url, longest_first, path_secrets, redact, redact_path

_WEBCAM = re.compile(r"\d+|/dev/video\d+")

_PROTOCOLS = {
    "rtsp": "rtsp,rtsps,rtp,tcp,udp,tls,httpproxy",
    "http": "http,https,httpproxy,tcp,tls,crypto,data",
    "rtmp": "rtmp,rtmps,tcp,tls,httpproxy",
}
"""What FFmpeg may follow from an address: a playlist must not lead it to this machine's files."""

_ANALYSIS_US = "500000"
"""How much of a stream FFmpeg analyses before it delivers the first picture; its own 5 s would delay each reconnect."""

_STRAY_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")


def webcam(source: str, _: Options) -> Address:
    """The address of a webcam by number or device. Raises SourceError for a number on systems without numbered webcams."""
    number = str(int(source)) if source.isdecimal() else ""
    if number and sys.platform == "darwin":
        mac = {"framerate": "30"}
        return Address("webcam", f"webcam {number}", number, FfmpegSource, format="avfoundation", options=mac)
    if number and not sys.platform.startswith("linux"):
        raise SourceError(f"webcams cannot be named by number ({number}) on this system; serve the camera by RTSP or HTTP")
    device = f"/dev/video{number}" if number else source
    return Address("webcam", device, device, FfmpegSource, format="v4l2")


def pattern(source: str, _: Options) -> Address:
    """The address of a filter graph, lavfi:GRAPH. Raises SourceError where there is none."""
    graph = source.partition(":")[2]
    if not graph.strip():
        raise SourceError("lavfi: is followed by a graph of FFmpeg's filters, as in lavfi:testsrc=rate=30")
    unescaped = graph.replace("\\", "")  # filters read an address's : only as \:
    read = unescaped if has_url(unescaped) else graph
    secrets = longest_first(filter_secrets(read))
    shown = f"lavfi:{redact(read)}"
    return Address("pattern", shown, graph, FfmpegSource, paced=True, format="lavfi", secrets=secrets)


def network(source: str, given: Options) -> Address:
    """The address of an RTSP, HTTP or RTMP source. Raises SourceError where it is malformed or its password ambiguous."""
    parts = _split(source)
    user = unquote(parts.username or "") if given.username is None else given.username
    password = unquote(parts.password or "") if given.password is None else given.password
    host = parts.netloc.rpartition("@")[2]
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    query = f"?{parts.query}" if parts.query else ""
    protocol = parts.scheme.removesuffix("s")
    options = {"protocol_whitelist": _PROTOCOLS[protocol], "analyzeduration": _ANALYSIS_US}
    if protocol == "rtsp":
        options |= {"rtsp_transport": given.transport, "allowed_media_types": "video"}
    hidden = path_secrets(parts.scheme, parts.path)
    return Address(
        kind="rtsp" if protocol == "rtsp" else "http",
        shown=f"{parts.scheme}://{host}{redact_path(parts.scheme, parts.path)}",
        target=f"{parts.scheme}://{login}{host}{parts.path}{query}",
        opener=FfmpegSource,
        options=options,
        secrets=longest_first(
            [password, quote(password, safe=""), parts.query, unquote(parts.query), *hidden, *map(unquote, hidden)]
        ),
    )


def _split(source: str) -> SplitResult:
    try:
        parts = urlsplit(source)
        unquoted = parts.port is not None and "@" not in parts.netloc and "@" in source
        if parts.hostname and parts.port != 0 and not unquoted and not _is_ambiguous(source):
            return parts
    except ValueError:
        pass
    raise SourceError(
        f"the {source.partition('://')[0]} address has no usable host and port;"
        " in a user name or password write % / ? # and @ as %25 %2F %3F %23 and %40, or give them apart from the address"
    )


def _is_ambiguous(source: str) -> bool:
    """Whether an address holds reserved characters that may or may not be part of a password."""
    rest = source.partition("://")[2]
    before = rest.rpartition("@")[0]
    login = before.partition("/")[0]
    return "#" in before or "@" in login or _STRAY_PERCENT.search(login) is not None


def recording(source: str, _: Options) -> Address:
    """The address of a video file, which is played in real time and of which every frame is wanted."""
    return Address("file", source, source, _open_recording, live=False, paced=True)


def _open_recording(address: Address, _: Timeouts) -> Source:
    return open_video(address.target)


KINDS: dict[str, Callable[[str, Options], Address]] = {
    "webcam": webcam,
    "lavfi:": pattern,
    **{f"{scheme}://": network for scheme in ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps")},
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
    if _WEBCAM.fullmatch(source):
        return "webcam"
    if source.startswith("lavfi:"):
        return "lavfi:"
    scheme, mark, _ = source.partition("://")
    return scheme.lower() + mark if mark else "file"
