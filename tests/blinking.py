"""A pipeline that computes nothing, for tests of the live service; importable, so that worker processes can load it."""

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
    """Has a provisional event at every twentieth frame, and its final one, with a blink, ten frames later, whatever comes."""

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
        """Nothing is computed."""

    def search_ahead(self, frame: Frame) -> None:
        """Nothing is computed."""

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
    """Ends each event at the frame that starts the next, so that one is always open."""

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
    """Fails as if the network's file were missing."""
    raise WeightsError(f"no network for {stream}")


def unforeseen(settings: PipelineSettings, stream: str, session: str) -> Blinking:
    """Fails as by a defect."""
    raise ZeroDivisionError("an unexpected error")


def dying(settings: PipelineSettings, stream: str, session: str) -> Blinking:
    """Dies as where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it outlived that")


def not_at_second(settings: PipelineSettings, stream: str, session: str) -> Blinking:
    """Fails in the second process only."""
    if session.split(".")[-2] == "2":
        raise WeightsError(f"no network for {stream}")
    return Blinking(settings, stream, session)


def printing(settings: PipelineSettings, stream: str, session: str) -> Blinking:
    """Prints like a library, to Python's standard output and to the descriptor, and logs."""
    print(f"{stream} is here", flush=True)
    os.write(1, b"so it is\n")
    logging.getLogger("printing").warning("%s was printed", stream, extra={"lock": threading.Lock()})
    return Blinking(settings, stream, session)
