"""The events that an export is given, and the recorded video that they were found in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.types import Activity, Event, Mark


@dataclass(frozen=True)
class Entry:
    """An event to export. fields is its JSON form with what its source adds: seq, emitted_at and latency_ms where it was stored
    live, played where it was found in a recorded video, review where somebody reviewed it. origin is the source time, seconds,
    at which a player of that video shows 0; None for an event stored live."""

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
class Recording:
    """A recorded video, as far as it is known, for the formats that name it.

    origin is the source time, seconds, at which a player shows 0; length_s what the player shows as its length; sound says that
    it has a sound track; activities are what faces do in it besides expressions. coder is whose review changed the events;
    folder is where the export will lie.
    """

    path: Path | None = None
    origin: float = 0.0
    length_s: float | None = None
    fps: float | None = None
    sound: bool = False
    activities: Sequence[Activity] = ()
    coder: str | None = None
    folder: Path | None = None

    @classmethod
    def from_summary(
        cls, summary: Mapping[str, Any], activities: Sequence[Activity], origin: float, coder: str | None = None
    ) -> Recording:
        """The recording that a summary.json describes."""
        video = summary.get("video") or {}
        end, fps = video.get("end"), video.get("measured_fps") or video.get("fps")
        length = None if end is None else end - origin + (1 / fps if fps else 0.0)
        path = Path(summary["file"]) if "file" in summary else None
        return cls(path, origin, length, fps, bool(video.get("sound")), activities, coder)
