from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import SourceError
from engine.types import Frame
from stream.messages import Arrival
from stream.sources.address import Address, RefusedError, Timeouts
from stream.sources.connection import Connection
from stream.sources.kinds import parse_address
from tests.videos import stepping, write_video

SOON_S = 30.0
"""Longest wait for what should happen at once: reached only by a test that fails."""


def read(connection: Connection) -> list[Arrival]:
    """All it delivers."""
    arrivals = []
    while (arrival := connection.frames.get(SOON_S)) is not None:
        arrivals.append(arrival)
    connection.join(SOON_S)
    assert not connection.is_alive()
    return arrivals


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", stepping(64, 48, 20))
    connection = Connection(parse_address(str(clip)), read_s=5.0)
    assert [arrival.frame.index for arrival in read(connection)] == list(range(20))
    assert (connection.finished, connection.paced, connection.detail) == (True, True, "")
    assert connection.packets >= 20


def test_an_abandoned_connection_ends_by_itself() -> None:
    connection = Connection(parse_address("lavfi:testsrc=size=64x48:rate=30"), read_s=5.0)
    assert connection.frames.get(SOON_S) is not None
    assert connection.is_alive()
    assert connection.packets > 0
    connection.frames.abandon()
    connection.join(SOON_S)
    assert not connection.is_alive()


class Broken:
    """A source that fails at its first frame."""

    paced, finished, problem, packets = False, False, None, 0

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.closed = False

    def __iter__(self) -> Iterator[Frame]:
        raise self._error

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("error", "detail", "refused"),
    [
        (SourceError("it is too dark"), "it is too dark", False),
        (RefusedError("it is no camera"), "it is no camera", True),
        (LookupError("unexpected"), "here cannot be read (LookupError)", False),
    ],
)
def test_a_failure_is_explained_and_the_source_closed(error: Exception, detail: str, refused: bool) -> None:
    source = Broken(error)

    def opener(address: Address, timeouts: Timeouts) -> Broken:
        assert timeouts == (1.0, 5.0)
        return source

    address = replace(parse_address("here"), opener=opener)
    connection = Connection(address, read_s=5.0, open_s=1.0)
    assert read(connection) == []
    assert (connection.detail, connection.refused, connection.finished, source.closed) == (detail, refused, False, True)
