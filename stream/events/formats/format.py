"""What an export format is: lines that can be written as events come, or a document of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass

from stream.events.formats.entry import Entry, Recording
from stream.events.formats.timeline import Timeline, timeline


@dataclass(frozen=True)
class Format(ABC):
    """How events become a file. media_type is HTTP's name of it; ending is that of its files where it is not the format's name;
    binary says that it is nothing for a terminal."""

    media_type: str
    _: KW_ONLY
    ending: str | None = None
    binary: bool = False

    def check(self) -> None:  # noqa: B027 - most formats need nothing
        """Raise BackendError where a package that the format needs is missing."""

    @abstractmethod
    def export(self, entries: Iterable[Entry], recording: Recording | None) -> Iterator[bytes]:
        """The file, piece by piece, of events of a recorded video or (None) stored live. Raises InputError where a document
        cannot hold so many."""


@dataclass(frozen=True)
class LineFormat(Format):
    """Text whose lines are written as events come: head first (given the recording), then write's text of each event."""

    write: Callable[[Entry], str]
    head: Callable[[Recording | None], str] = lambda recording: ""

    def export(self, entries: Iterable[Entry], recording: Recording | None) -> Iterator[bytes]:
        """The lines, one at a time."""
        yield encoded(self.head(recording))
        for entry in entries:
            yield encoded(self.write(entry))


@dataclass(frozen=True)
class DocumentFormat(Format):
    """A document made from all events at once, placed on a clock that starts at zero."""

    document: Callable[[Timeline], bytes]

    def export(self, entries: Iterable[Entry], recording: Recording | None) -> Iterator[bytes]:
        """The document in one piece."""
        yield self.document(timeline(entries, recording))


def encoded(text: str) -> bytes:
    """Text as it is written to files."""
    return text.encode(errors="backslashreplace")
