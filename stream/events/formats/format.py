"""What an export format is, and the events that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.types import Event, Mark


@dataclass(frozen=True)
class Entry:
    """An event to export. fields is its JSON form with what its source adds: seq, emitted_at and latency_ms where it was stored
    live, played where it was found in a recorded video. origin is the source time, seconds, at which a player of that video
    shows 0; None for an event stored live."""

    event: Event
    fields: Mapping[str, Any]
    origin: float | None = None

    @classmethod
    def stored(cls, fields: Mapping[str, Any]) -> Entry:
        """A stored event, from its JSON form."""
        from engine.types import Event  # here, so that the command line starts without NumPy

        return cls(Event.from_dict(fields), fields)

    @classmethod
    def recorded(cls, event: Event, origin: float) -> Entry:
        """An event of a recorded video."""
        entry = cls(event, event.as_dict(), origin)
        played = {name: mark and round(mark.t - origin, 6) for name, mark in entry.marks.items()}
        return cls(event, {**entry.fields, "played": played}, origin)

    @property
    def marks(self) -> dict[str, Mark | None]:
        """Onset, apex and offset."""
        return {"onset": self.event.onset, "apex": self.event.apex, "offset": self.event.offset}


@dataclass(frozen=True)
class Format:
    """How events become text: head first (given whether they are of a recorded video), then write's text of each event.

    media_type is HTTP's name of it. ordered: by onset where all events are at hand, else as they come.
    """

    media_type: str
    write: Callable[[Entry], str]
    head: Callable[[bool], str] = lambda recorded: ""
    ordered: bool = False

    def export(self, entries: Iterable[Entry], *, recorded: bool) -> Iterator[str]:
        """The text of all entries, piece by piece."""
        yield self.head(recorded)
        ordered = sorted(entries, key=lambda entry: (entry.event.onset.t, entry.event.face)) if self.ordered else entries
        yield from map(self.write, ordered)
