"""What takes the results of an analysis, frame by frame: files, reports, annotated video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.types import Activity, Event, Face, Frame, Observation


class Output:
    """Takes what an analysis finds: each frame, then the events and activities that became known with it.

    The methods do nothing unless a subclass defines them. origin is the source time, seconds, at which a player's clock is 0.
    The folder of the results exists from the first call on. All calls come from one thread. The pixels of a frame may be black;
    so may those of crops, and events without evidence, unless needs_faces is set.
    """

    needs_faces = False

    def frame(self, frame: Frame, faces: Sequence[Face], observations: Sequence[Observation], origin: float) -> None:
        """Take the next frame, the faces found in it, and what is known of each of them."""

    def event(self, event: Event, origin: float) -> None:
        """Take a final event, with its evidence."""

    def activity(self, activity: Activity, origin: float) -> None:
        """Take an activity that ended."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Complete the output: the video was read to its end, to where it is damaged, or until the user stopped.

        summary is the content of summary.json, which is written after all outputs finished.
        """

    def close(self) -> None:
        """Free what is held; always called once, at the end, also after a failure and without `finish`."""
