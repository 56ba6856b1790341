"""Addresses of cameras and streams on the network, their credentials taken out of what is shown.

A password that holds % / ? # or @ is written with %25 %2F %3F %23 %40, or given apart from the address.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, quote, unquote, urlsplit

from engine.errors import SourceError
from stream.sources.address import Address, Options
from stream.sources.ffmpeg import FfmpegSource
from stream.sources.redaction import longest_first, path_secrets, redact_path

_PROTOCOLS = {
    "rtsp": "rtsp,rtsps,rtp,tcp,udp,tls,httpproxy",
    "http": "http,https,httpproxy,tcp,tls,crypto,data",
    "rtmp": "rtmp,rtmps,tcp,tls,httpproxy",
}
"""What FFmpeg may follow from an address: a playlist must not lead it to this machine's files."""

_ANALYSIS_US = "500000"
"""How much of a stream FFmpeg analyses before it delivers the first picture; its own 5 s would delay each reconnect."""

_STRAY_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")


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
        name=parts.hostname or "",
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
