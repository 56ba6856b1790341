"""A pipeline that costs nothing, for tests of what surrounds pipelines; it is found by name, so that processes can make it."""

from __future__ import annotations

import logging
import os
import signal
import threading

import numpy as np

from engine.config import PipelineSettings
from engine.errors import WeightsError
from engine.types import Activity, ActivityKind, Event, Evidence, Face, Frame
from tests.events import an_event

EVERY = 20
"""Frames from one event to the next."""

PATTERN = "lavfi:testsrc=size=64x48:rate=100"
"""A source with five such events a second."""


class Blinking:
    """Announces an event with every twentieth frame, and ends it ten frames later, whatever is to be seen, with a blink."""

    def __init__(self, settings: PipelineSettings, stream: str, session: str) -> None:
        self.stream, self.session = stream, session
        self.open: int | None = None
        self.blinks: list[Activity] = []

    def locate(self, frame: Frame) -> list[Face]:
        return []

    def advance(self, frame: Frame, faces: list[Face]) -> list[Event]:
        number, step = divmod(frame.index, EVERY)
        if step == 0:
            self.open = number
            return [self._event("provisional")]
        return self.flush(truncated=False) if step == EVERY // 2 and self.open is not None else []

    def flush(self, *, truncated: bool = True) -> list[Event]:
        events = [self._event("final", truncated=truncated)] if self.open is not None else []
        self.open = None
        self.blinks += [Activity(event.face, "blink", event.onset, event.apex) for event in events]
        return events

    def recognize_ahead(self) -> None:
        """There is nothing to spare."""

    def search_ahead(self, frame: Frame) -> None:
        """Nobody comes."""

    def trace(self) -> dict[int, tuple[float, float]]:
        return {}

    def doing(self) -> dict[int, dict[ActivityKind, float]]:
        return {}

    def activities(self) -> list[Activity]:
        ended, self.blinks = self.blinks, []
        return ended

    def close(self) -> None:
        """There is nothing to free."""

    def _event(self, state: str, **changes: bool) -> Event:
        fields = {"id": f"{self.session}/{self.stream}/{self.open}", "evidence": self.evidence(), **changes}
        return an_event(self.open or 0, stream=self.stream, state=state, **fields)  # type: ignore[arg-type]

    def evidence(self) -> Evidence:
        grey = np.zeros((128, 128), np.uint8)
        return Evidence(grey, grey, np.zeros((2, 128, 128), np.float32))


class Unbroken(Blinking):
    """Ends each event with the frame that begins the next: from the first final one on, one is always open."""

    def advance(self, frame: Frame, faces: list[Face]) -> list[Event]:
        number, step = divmod(frame.index, EVERY)
        if step:
            return []
        ended = self.flush(truncated=False)
        self.open = number
        return [*ended, self._event("provisional")]


class Unsendable(Blinking):
    """The evidence of its events cannot be pickled."""

    def evidence(self) -> Evidence:
        return Evidence(*[threading.Lock()] * 3)  # type: ignore[arg-type]


def no_network(settings: PipelineSettings, stream: str, session: str) -> Blinking:
    """As where the network's file is missing."""
    raise WeightsError(f"no network for {stream}")


def unforeseen(settings: PipelineSettings, stream: str, session: str) -> Blinking:
    """A defect."""
    raise ZeroDivisionError("an unexpected error")


def dying(settings: PipelineSettings, stream: str, session: str) -> Blinking:
    """As where the memory does not suffice."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it outlived that")


def not_at_second(settings: PipelineSettings, stream: str, session: str) -> Blinking:
    """The network's file is missing in the second life of a process, and there before and after."""
    if session.split(".")[-2] == "2":
        raise WeightsError(f"no network for {stream}")
    return Blinking(settings, stream, session)


def printing(settings: PipelineSettings, stream: str, session: str) -> Blinking:
    """Like a library that says something on standard output, past Python too, and in the log."""
    print(f"{stream} is here", flush=True)
    os.write(1, b"so it is\n")
    logging.getLogger("printing").warning("%s was printed", stream, extra={"lock": threading.Lock()})
    return Blinking(settings, stream, session)
