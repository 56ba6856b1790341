from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from stream.sources.h264_gaps import FrameNumGaps
from tests.videos import stepping, write_video

Packets = list[tuple[bytes, bool]]


def encoded(path: Path, **options: str) -> tuple[bytes | None, Packets]:
    """The codec's header of a video of 50 pictures, and its packets with whether they are shown after all before them, as
    reference pictures are."""
    write_video(path, stepping(64, 48, 50), options={"g": "20", **options})
    with av.open(str(path)) as container:
        track = container.streams.video[0]
        packets, last = [], -1
        for packet in container.demux(track):
            if packet.size and packet.pts is not None:
                packets.append((bytes(packet), packet.pts > last))
                last = max(last, packet.pts)
        return track.codec_context.extradata, packets


def gaps_in(header: bytes | None, packets: Sequence[tuple[bytes, bool]]) -> list[int]:
    """The packets before which something is missing."""
    gaps = FrameNumGaps("h264", header)
    return [number for number, (data, _) in enumerate(packets) if gaps.missing_before(data)]


@pytest.mark.parametrize("container", ["mp4", "ts", "mkv"])
@pytest.mark.parametrize(
    "options",
    [
        {"bf": "0"},
        {"bf": "3", "b-pyramid": "normal"},
        {"x264-params": "open-gop=1:bframes=2"},
        {"x264-params": "interlaced=1", "bf": "0"},
        {"x264-params": "cqm=jvt:slices=4"},
        {"profile": "baseline"},
    ],
)
def test_a_missing_reference_picture_is_found_and_a_complete_stream_has_none(
    tmp_path: Path, container: str, options: dict[str, str]
) -> None:
    header, packets = encoded(tmp_path / f"clip.{container}", **options)
    assert gaps_in(header, packets) == []
    gone = next(number for number in range(9, 15) if packets[number][1])
    assert gaps_in(header, packets[:gone] + packets[gone + 1 :]) == [gone]


def test_pictures_that_are_no_reference_may_be_missing(tmp_path: Path) -> None:
    header, packets = encoded(tmp_path / "clip.mp4", bf="3", **{"b-pyramid": "none"})
    kept = [packet for packet in packets if packet[1]]
    assert len(kept) < len(packets)
    assert gaps_in(header, kept) == []


def test_other_codecs_and_damaged_data_have_no_gaps(tmp_path: Path) -> None:
    header, packets = encoded(tmp_path / "clip.mp4")
    other = FrameNumGaps("hevc", header)
    assert not any(other.missing_before(data) for data, _ in packets[::3])
    rng = np.random.default_rng(3)
    for size in (0, 1, 6, 7, 40, 400):
        noise = FrameNumGaps("h264", rng.bytes(size))
        for _ in range(50):
            noise.missing_before(b"\0\0\1\x67" + rng.bytes(size))
            noise.missing_before(b"\0\0\1\x41" + rng.bytes(size))
