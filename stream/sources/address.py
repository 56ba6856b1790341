"""What a SOURCE is: from the text that names it to what opens it, with credentials that nobody else gets to see.

    0, 1, ...                   the webcam of that number
    /dev/video0                 a webcam by its device (Linux)
    rtsp://USER:PASSWORD@HOST   a network camera; rtsps:// too
    http://, https://, rtmp://  a stream or play list on the network
    lavfi:GRAPH                 a picture that FFmpeg draws itself (lavfi:testsrc=size=640x480:rate=30)
    anything else               a video file

A stream's key, the last part of an RTMP path, is kept as secret as a password, and so is what a path or a filter gives as
password=..., key=... and the like. A password that holds % / ? # or @ is written with %25 %2F %3F %23 %40, or given apart
from the address.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from engine.errors import SourceError
from engine.text import plain
from stream.messages import SourceKind

Transport = Literal["tcp", "udp"]

_PROTOCOLS = {
    "rtsp": "rtsp,rtsps,rtp,tcp,udp,tls,httpproxy",
    "http": "http,https,httpproxy,tcp,tls,crypto,data",
    "rtmp": "rtmp,rtmps,tcp,tls,httpproxy",
}
"""What FFmpeg may follow from an address of a kind: a play list must not lead it to this machine's files."""

_SCHEMES = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http", "rtmp": "rtmp", "rtmps": "rtmp"}
_URL = re.compile(r"\b([a-z][a-z0-9+.-]*)://[^\s'\"]*", re.IGNORECASE)
_STRAY_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")
_SECRET = re.compile(
    r"\b(\w*(?:user|login|pass|pwd|psw|token|secret|key|auth|sign|session)\w*?)(=|%3D)([^&;:,/?#\s'\"]+)", re.IGNORECASE
)
"""A name that speaks of a secret, and what is given for it; several run together (user=a_password=b) are one."""
SHORT = 3
"""What a path or a filter gives for a secret in so few characters is hidden there alone, not anywhere in a message."""
_DEVICE = re.compile(r"/dev/video\d+")
_ANALYSIS_US = "500000"
"""How much of a stream FFmpeg looks at before it lets go of the first picture; its own 5 s would delay each return."""


@dataclass(frozen=True)
class Address:
    """Where a source is. shown is for people and has no credentials; target, format and options are for `av.open` alone."""

    kind: SourceKind
    shown: str
    target: str = field(repr=False)
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict, repr=False, hash=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def live(self) -> bool:
        """Whether pictures come when they come and the newest count; a file's are all wanted."""
        return self.kind != "file"

    @property
    def paced(self) -> bool:
        """Whether pictures are there at once and have to be played in real time."""
        return self.kind in ("file", "pattern")

    def redact(self, text: str) -> str:
        """The text of another's message in one line, without what this address keeps to itself."""
        text = plain(" ".join(text.replace(self.target, self.shown).split()))
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return _shown(text)


def parse_address(
    source: str, *, transport: Transport = "tcp", username: str | None = None, password: str | None = None
) -> Address:
    """The address that source names; username and password go before those it holds itself.

    Raises SourceError in one sentence that repeats no credentials.
    """
    source = source.strip()
    if not source:
        raise SourceError("a source is a webcam's number, an address like rtsp://HOST/PATH, or a file; nothing came")
    if source.isdecimal():
        return _webcam(int(source))
    if _DEVICE.fullmatch(source):
        return Address("webcam", source, source, "v4l2")
    if source.startswith("lavfi:"):
        return _pattern(source.removeprefix("lavfi:"))
    scheme, mark, _ = source.partition("://")
    if not mark:
        return Address("file", source, source)
    if scheme.lower() not in _SCHEMES:
        raise SourceError(f"addresses that begin with {scheme}:// are not known; there are {', '.join(_SCHEMES)}")
    return _network(source, transport, username, password)


def _webcam(number: int) -> Address:
    if sys.platform == "darwin":
        return Address("webcam", f"webcam {number}", str(number), "avfoundation", {"framerate": "30"})
    if sys.platform.startswith("linux"):
        return Address("webcam", f"/dev/video{number}", f"/dev/video{number}", "v4l2")
    raise SourceError(f"webcams cannot be named by number ({number}) on this system; serve the camera by RTSP or HTTP")


def _pattern(graph: str) -> Address:
    if not graph.strip():
        raise SourceError("lavfi: is followed by a graph of FFmpeg's filters, as in lavfi:testsrc=rate=30")
    bare = graph.replace("\\", "")  # filters read an address's : only as \:
    read = bare if _URL.search(bare) else graph
    secrets = [part for url in _URL.finditer(read) for part in _parts_to_hide(url.group(0))]
    secrets += _telling([found.group(3) for found in _SECRET.finditer(read)])
    return Address("pattern", f"lavfi:{_shown(read)}", graph, "lavfi", secrets=_sorted(secrets))


def _network(source: str, transport: Transport, username: str | None, password: str | None) -> Address:
    try:
        parts = urlsplit(source)
        unquoted = parts.port is not None and "@" not in parts.netloc and "@" in source
        usable = bool(parts.hostname) and parts.port != 0 and not unquoted and not _unescaped(source)
    except ValueError:
        usable = False
    if not usable:
        raise SourceError(
            f"the {source.partition('://')[0]} address has no usable host and port;"
            " in a user name or password write % / ? # and @ as %25 %2F %3F %23 and %40, or give them apart from the address"
        )
    user = unquote(parts.username or "") if username is None else username
    word = unquote(parts.password or "") if password is None else password
    host = parts.netloc.rpartition("@")[2]
    login = f"{quote(user, safe='')}:{quote(word, safe='')}@" if user or word else ""
    query = f"?{parts.query}" if parts.query else ""
    base = _SCHEMES[parts.scheme]
    options = {"protocol_whitelist": _PROTOCOLS[base], "analyzeduration": _ANALYSIS_US}
    if base == "rtsp":
        options |= {"rtsp_transport": transport, "allowed_media_types": "video"}
    return Address(
        kind="rtsp" if base == "rtsp" else "http",
        shown=f"{parts.scheme}://{host}{_shown_path(base, parts.path)}",
        target=f"{parts.scheme}://{login}{host}{parts.path}{query}",
        options=options,
        secrets=_secrets(word, parts.query, _hidden_in_path(base, parts.path)),
    )


def _unescaped(source: str) -> bool:
    """Whether an address holds marks that may be part of a password or not: what stands for what, only its writer knows."""
    rest = source.partition("://")[2]
    before = rest.rpartition("@")[0]
    login = before.partition("/")[0]
    return "#" in before or "@" in login or _STRAY_PERCENT.search(login) is not None


def _secrets(password: str, query: str, hidden: Collection[str]) -> tuple[str, ...]:
    return _sorted([password, quote(password, safe=""), query, unquote(query), *hidden, *map(unquote, hidden)])


def _sorted(secrets: Collection[str]) -> tuple[str, ...]:
    """What must not be seen, longest first, so that no part of one is left behind by another."""
    return tuple(sorted({*secrets} - {""}, key=len, reverse=True))


def _hidden_in_path(base: str, path: str) -> list[str]:
    """What of a path is secret: what it gives for a password, and the key of an RTMP stream, behind the application's name."""
    given = [found.group(3) for found in _SECRET.finditer(path)]
    if base == "rtmp":
        given.append(path.strip("/").partition("/")[2])
    parts = [part for value in given for part in re.split(r"_[a-z]+=|/", value, flags=re.IGNORECASE)]
    return _telling([*given, *parts])


def _telling(values: Collection[str]) -> list[str]:
    """Those long enough to be looked for in messages: the number of a channel stands in many of them."""
    return [value for value in values if len(value) > SHORT]


def _shown_path(base: str, path: str) -> str:
    if base == "rtmp":
        application, slash, key = path.lstrip("/").partition("/")
        return f"{'/' if path else ''}{application}{slash}{'***' if key else ''}"
    return _SECRET.sub(r"\1\2***", path)


def _shown(text: str) -> str:
    """The text with nothing in it that addresses and filters keep secret."""
    return _SECRET.sub(r"\1\2***", _URL.sub(lambda url: _without_credentials(url.group(0)), text))


def _parts_to_hide(url: str) -> list[str]:
    """User, password, query and key of an address within a text."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    login, at, host = place.rpartition("@")
    _, _, path = host.partition("/")
    hidden = _hidden_in_path(_SCHEMES.get(scheme.lower(), ""), f"/{path}")
    return [login, *login.split(":", 1)[1:], query, *hidden] if at else [query, *hidden]


def _without_credentials(url: str) -> str:
    """A URL with all that may hold a secret left out: user, password and query."""
    scheme, _, rest = url.partition("://")
    place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    shown = _shown_path(_SCHEMES.get(scheme.lower(), ""), f"{slash}{path}")
    return f"{scheme}://{place.rpartition('@')[2]}{shown}"
