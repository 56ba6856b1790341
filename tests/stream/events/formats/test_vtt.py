from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import pytest

from tests.exports import EVENTS, ORIGIN, RECORDING, exported, reviewed


def cues(content: bytes, tmp_path: Path) -> list[tuple[float, float, str]]:
    """Start and end in seconds and text of the cues, as FFmpeg reads them."""
    path = tmp_path / "events.vtt"
    path.write_bytes(content)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(subtitles=0) if packet.size]
        return [
            (float(one.pts * one.time_base), float((one.pts + one.duration) * one.time_base), bytes(one).decode())
            for one in packets
        ]


@pytest.mark.parametrize("origin", [0.0, ORIGIN, -12.5])
def test_a_players_program_reads_cues_in_its_own_time(tmp_path: Path, origin: float) -> None:
    """Whatever stamps the video begins with: at ten hours, or below zero."""

    def moved(t: float) -> float:
        return t - ORIGIN + origin

    events = [
        replace(event, **{name: replace(mark, t=moved(mark.t)) for name, mark in marks.items()})
        for event in EVENTS
        if (marks := {"onset": event.onset, "apex": event.apex, "offset": event.offset or event.apex})
    ]
    found = cues(exported("vtt", events, replace(RECORDING, origin=origin)), tmp_path)
    assert [(round(start, 3), round(end, 3)) for start, end, _ in found] == [
        (1.0, 1.4),
        (6.833, 7.333),
        (7.0, 8.0),
        (7.067, 7.367),
    ]
    assert found[1][2] == "positive 92% · micro · face 0"
    assert found[3][2] == "uncertain (not sure) · micro · face 1"


def test_a_class_that_a_person_gave_has_no_confidence_of_the_machine() -> None:
    assert reviewed("vtt").decode().splitlines()[-1] == "surprise · micro · face 0"


def test_no_event_gives_subtitles_without_cues(tmp_path: Path) -> None:
    assert exported("vtt", []) == b"WEBVTT\n"
