"""What a source is: an address that keeps its credentials to itself, and, once opened, an iterator of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from engine.errors import SourceError
from engine.text import plain
from engine.types import Frame
from stream.sources.redaction import redact

Transport = Literal["tcp", "udp"]


class RefusedError(SourceError):
    """A source is not read because of what it is or sends; another attempt will hardly differ."""


class Source(Protocol):
    """An open source. Iterate it once for its frames, in order of presentation, then close it.

    Opening and iterating raise SourceError with one sentence without credentials, RefusedError where a retry is pointless.
    """

    @property
    def packets(self) -> int:
        """How many packets were read so far; other threads ask, too."""

    @property
    def paced(self) -> bool:
        """Whether frames are available at once and are to be shown in real time; known once the first was read."""

    @property
    def finished(self) -> bool:
        """Whether the end of a recording was reached."""

    @property
    def problem(self) -> str | None:
        """After the last frame: one sentence on what was wrong or why a live source ended, None where nothing was wrong."""

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Free the decoder and the connection."""


class Timeouts(NamedTuple):
    """How long a source may take to answer, and then to send more, seconds."""

    open_s: float
    read_s: float


class Options(NamedTuple):
    """What is given apart from the address: RTSP's transport, and credentials that replace those in it."""

    transport: Transport = "tcp"
    username: str | None = None
    password: str | None = None


@dataclass(frozen=True)
class Address:
    """Where a source is. shown is for people and has no credentials; target, format and options are for `av.open` alone;
    `opener(address, timeouts)` opens it.

    live: frames come in their own time and only the newest matter, else every frame is wanted. paced: frames are available at
    once and have to be played in real time.
    """

    kind: str
    shown: str
    target: str = field(repr=False)
    opener: Callable[[Address, Timeouts], Source] = field(repr=False, compare=False)
    live: bool = True
    paced: bool = False
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict, repr=False, hash=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def redact(self, text: str) -> str:
        """A message of FFmpeg or of a server in one line, without the credentials of this address or any other."""
        text = plain(" ".join(text.replace(self.target, self.shown).split()))
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return redact(text)
