"""The sound of a video on its way into an MP4: copied where players take its coding there, else coded as AAC, in sync."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from engine.types import F32
from stream.sources.clock import GAP_S, MAX_JUMP_S, Restart

COPIED = {"aac", "mp3", "opus"}
"""Codings that browsers play in an MP4."""

AAC_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
DRIFT_S = 0.01
"""Sound that is this far from where its time stamp says is moved there: silence is put in, or sound left out."""


class OutputClock:
    """From the stamps of the sound to the time of the output, seconds: origin becomes 0, restarts are those of the video."""

    def __init__(self, origin: float, restarts: Sequence[Restart] = ()) -> None:
        self._offset, self._last = -origin, math.nan
        self._origin, self._restarts = origin, list(restarts)

    def at(self, stamp: float) -> float:
        """The time of a stamp; stamps come in order."""
        jumps = stamp < self._last - GAP_S or stamp > self._last + MAX_JUMP_S
        if jumps and self._restarts:
            restart = self._restarts.pop(0)
            self._offset = restart.t - restart.stamp - self._origin
        self._last = stamp
        return stamp + self._offset


class Sound:
    """The first sound track of the file at path. `start` adds a stream for it to an output, `until` gives its packets.

    Where there is no sound or it cannot be read, there are no packets; where it is damaged, the rest of it is kept.
    """

    def __init__(self, path: Path, clock: OutputClock) -> None:
        self._path, self._clock = path, clock
        self._container: av.container.InputContainer | None = None
        self._packets: Iterator[av.Packet[Any]] = iter(())
        self._next: av.Packet[Any] | None = None

    def start(self, output: av.container.OutputContainer) -> None:
        """Add the stream, if there is any sound."""
        try:
            self._container = container = av.open(f"file:{self._path}", options={"protocol_whitelist": "file"})
        except (av.error.FFmpegError, OSError, ValueError):
            return
        track = next(iter(container.streams.audio), None)
        if track is not None and track.codec_context and track.rate:
            copied = track.codec_context.codec.canonical_name in COPIED
            packets = _packets(container, track)
            self._packets = self._copied(packets, track, output) if copied else self._coded(packets, track, output)
            self._next = next(self._packets, None)

    def until(self, t: float) -> Iterator[av.Packet[Any]]:
        """The packets that start before t, seconds of the output, that were not given before."""
        while self._next is not None and (self._next.pts is None or float(self._next.pts * self._next.time_base) < t):
            yield self._next
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Free the file."""
        if self._container is not None:
            self._container.close()

    def _copied(
        self, packets: Iterator[av.Packet[Any]], track: av.AudioStream, output: av.container.OutputContainer
    ) -> Iterator[av.Packet[Any]]:
        """The packets as they are, at their places on the output's clock."""
        stream, last = output.add_stream_from_template(track), -math.inf
        for packet in packets:
            if packet.dts is None or packet.pts is None or not packet.size:
                continue
            moved = round(self._clock.at(float(packet.pts * packet.time_base)) / packet.time_base) - packet.pts
            packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
            if packet.dts > last:
                last, packet.stream = packet.dts, stream
                yield packet

    def _coded(
        self, packets: Iterator[av.Packet[Any]], track: av.AudioStream, output: av.container.OutputContainer
    ) -> Iterator[av.Packet[Any]]:
        """The sound as AAC."""
        rate = track.rate if track.rate in AAC_RATES else AAC_RATES[0]
        layout = "mono" if track.channels == 1 else "stereo"
        stream = output.add_stream("aac", rate=rate, layout=layout)
        written: int | None = None  # samples up to here, from the output's beginning
        for decoded, t in self._decoded(packets, track, av.AudioResampler(format="fltp", layout=layout, rate=rate)):
            written = round(t * rate) if written is None else written
            samples = _placed(decoded, round(t * rate) - written, round(DRIFT_S * rate))
            if samples.shape[1]:
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
                frame.rate, frame.pts = rate, written
                written += samples.shape[1]
                yield from stream.encode(frame)
        if written is not None:
            yield from stream.encode(None)

    def _decoded(
        self, packets: Iterator[av.Packet[Any]], track: av.AudioStream, resampler: av.AudioResampler
    ) -> Iterator[tuple[F32, float]]:
        """Samples [channels, N] and the time of the first one, seconds of the output."""
        end = 0.0
        for packet in packets:
            try:
                parts = [part for frame in track.decode(packet) for part in resampler.resample(frame)]
            except (av.error.FFmpegError, ValueError):
                continue
            for part in parts:
                t = end if part.time is None else self._clock.at(part.time)
                samples = np.asarray(part.to_ndarray(), np.float32)
                end = t + samples.shape[1] / part.sample_rate
                yield samples, t


def _packets(container: av.container.InputContainer, track: av.AudioStream) -> Iterator[av.Packet[Any]]:
    """The packets of a track, as far as the file can be read."""
    with suppress(av.error.FFmpegError):
        yield from container.demux(track)


def _placed(samples: F32, missing: int, tolerance: int) -> F32:
    """Samples [channels, N] with silence before them where so many are missing, or the first ones left out where there are too
    many; as they are within the tolerance."""
    if missing > tolerance:
        return np.concatenate([np.zeros((len(samples), missing), np.float32), samples], axis=1)
    return np.ascontiguousarray(samples[:, -missing:]) if missing < -tolerance else samples
