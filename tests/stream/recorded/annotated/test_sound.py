from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from stream.recorded.annotated.sound import OutputClock, Sound
from stream.sources.clock import Restart
from tests.videos import read_flashes, stepping, write_flashes, write_video

TIMES = [k / 30 for k in range(60)]
FLASHES = [TIMES[15], TIMES[45]]


def test_the_output_starts_at_0_and_follows_the_restarts_of_the_video() -> None:
    """The video's stamps restart at 5,000 s where 12 s of it have been shown, and at 0 s after 3 s more."""
    clock = OutputClock(10.0, [Restart(60, 22.0, 5000.0), Restart(90, 25.0, 0.0)])
    shown = [clock.at(stamp) for stamp in (10.0, 21.9, 5000.5, 5003.0, 0.2, 90.0)]
    assert shown == pytest.approx([0.0, 11.9, 12.5, 15.0, 15.2, 105.0]), "a jump ahead by less than an hour is a gap"


def heard(path: Path, out: Path, origin: float = 0.0) -> tuple[str, list[float]]:
    """The coding of the sound that was written, and when it clicks."""
    with av.open(str(out), "w", format="mp4") as output:
        video = output.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 16, 16, "yuv420p"
        sound = Sound(path, OutputClock(origin))
        sound.start(output)
        output.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((24, 16), np.uint8), format="yuv420p")))
        output.mux(video.encode(None))
        for packet in sound.until(1e9):
            output.mux(packet)
        sound.close()
    with av.open(str(out)) as container:
        name = container.streams.audio[0].codec_context.codec.canonical_name
    return name, read_flashes(out)[1]


@pytest.mark.parametrize(
    ("name", "coding", "written"),
    [("a.mp4", "aac", "aac"), ("a.mkv", "libmp3lame", "mp3"), ("a.mkv", "ac3", "aac"), ("a.mov", "pcm_s16le", "aac")],
)
@pytest.mark.parametrize("rate", [48_000, 32_000])
def test_sound_is_copied_or_coded_and_stays_in_place(name: str, coding: str, written: str, rate: int, tmp_path: Path) -> None:
    video = write_flashes(tmp_path / name, TIMES, FLASHES, sound=coding, rate=rate, heard_from=0.3)
    found, clicks = heard(video, tmp_path / "out.mp4")
    assert found == written
    assert clicks == pytest.approx(read_flashes(video)[1], abs=0.003)


def test_a_rate_that_aac_does_not_have_is_changed(tmp_path: Path) -> None:
    video = write_flashes(tmp_path / "a.mkv", TIMES, FLASHES, sound="flac", rate=96_000)
    assert heard(video, tmp_path / "out.mp4") == ("aac", pytest.approx(FLASHES, abs=0.003))


def test_a_hole_in_the_sound_is_silent_and_what_follows_stays_in_place(tmp_path: Path) -> None:
    whole = write_flashes(tmp_path / "whole.mkv", TIMES, FLASHES, sound="pcm_s16le")
    with av.open(str(whole)) as source, av.open(str(tmp_path / "hole.mkv"), "w") as holed:
        streams = {stream.index: holed.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None and not (packet.stream.type == "audio" and 0.8 < packet.pts * packet.time_base < 1.2):
                packet.stream = streams[packet.stream.index]
                holed.mux(packet)
    assert heard(tmp_path / "hole.mkv", tmp_path / "out.mp4")[1] == pytest.approx(FLASHES, abs=0.003)


def test_packets_come_up_to_a_moment(tmp_path: Path) -> None:
    video = write_flashes(tmp_path / "a.mp4", TIMES, FLASHES)
    with av.open(str(tmp_path / "out.mp4"), "w") as output:
        sound = Sound(video, OutputClock(0.0))
        sound.start(output)
        parts = [[float(packet.pts * packet.time_base) for packet in sound.until(t)] for t in (0.5, 0.5, 1.0, 9.0)]
        sound.close()
    assert parts[1] == []
    assert parts[0][-1] < 0.5 <= parts[2][0] and parts[2][-1] < 1.0 <= parts[3][0]


@pytest.mark.parametrize("content", ["silent", "none", "text"])
def test_where_there_is_no_sound_there_are_no_packets(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    if content == "silent":
        write_video(path, stepping(64, 48, 5))
    elif content == "text":
        path.write_text("not a video")
    with av.open(str(tmp_path / "out.mp4"), "w") as output:
        sound = Sound(path, OutputClock(0.0))
        sound.start(output)
        assert list(sound.until(1e9)) == []
        assert not output.streams
        sound.close()
