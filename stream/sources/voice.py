"""Voice activity in a recorded video, by the detector of WebRTC (Gaussian mixtures over six bands, 30 ms at a time).

It confirms that lips move in speech (`engine.activity.speech`), so false positives are better than misses: music often passes
for a voice, and then the lips decide alone, as they do where there is no audio track or a muted one.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt
import webrtcvad

from stream.sources.clock import GAP_S, MAX_JUMP_S

I16 = npt.NDArray[np.int16]

RATE = 16_000
WINDOW = RATE * 30 // 1000  # samples
WINDOW_S = WINDOW / RATE
REACH_S = 0.3  # windows this far around a moment count: lips move before the voice sounds, and in pauses between words
MUTED = 8  # amplitude up to which samples are a muted track rather than the silence of a room
AGGRESSIVENESS = 1  # of the detector in rejecting what is no voice, 0 to 3
DRIFT_S = 0.1  # a packet of sound this far from the end of the previous one is placed by its own time
KEPT_S = 5.0


class Voice:
    """The voice in the first audio track of the file at path, from start on, seconds of the file's clock. Call `at` for moments
    in order; `close` frees the decoder.

    Where there is no sound or it cannot be decoded, nothing is raised and nothing is known.
    """

    def __init__(self, path: Path, start: float = -math.inf) -> None:
        self._times: list[float] = []  # centres of the most recent windows,
        self._heard: list[bool | None] = []  # whether a voice was in them, None where the track is muted
        self._container: av.container.InputContainer | None = None
        self._windows: Iterator[tuple[float, bool | None]] = iter(())
        try:
            self._container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
        except (av.error.FFmpegError, OSError, ValueError):
            return
        if self._container.streams.audio:
            if math.isfinite(start):
                with suppress(av.error.FFmpegError):  # heard from its beginning then
                    self._container.seek(int(start * av.time_base))
            self._windows = self._listen(self._container)

    def close(self) -> None:
        """Free the decoder."""
        if self._container is not None:
            self._container.close()

    def at(self, t: float) -> float | None:
        """Share of the time around t (seconds of the file's clock) in which a voice sounds; None where nothing is known."""
        while not self._times or self._times[-1] < t + REACH_S:
            window = next(self._windows, None)
            if window is None:
                break
            self._times.append(window[0])
            self._heard.append(window[1])
        stale = bisect_left(self._times, t - KEPT_S)
        if stale > KEPT_S / WINDOW_S:
            del self._times[:stale], self._heard[:stale]
        around = self._heard[bisect_left(self._times, t - REACH_S) : bisect_right(self._times, t + REACH_S)]
        known = [heard for heard in around if heard is not None]
        return sum(known) / len(known) if known else None

    @staticmethod
    def _listen(container: av.container.InputContainer) -> Iterator[tuple[float, bool | None]]:
        """The centre of each window, seconds, and whether a voice is in it, None where the track is muted."""
        detector = webrtcvad.Vad(AGGRESSIVENESS)
        first = True
        samples: I16 = np.zeros(0, np.int16)
        begin = offset = 0.0
        for stamp, more in _sound(container):
            start, expected = None if stamp is None else stamp + offset, begin + len(samples) / RATE
            restarts = start is not None and not first and not -GAP_S <= start - expected <= MAX_JUMP_S
            if start is not None and restarts:  # as in `stream.sources.clock`
                offset += expected - start
                start = expected
            if start is not None and abs(start - expected) > DRIFT_S:
                samples, begin = np.zeros(0, np.int16), start
            first = False
            samples = np.concatenate([samples, more])
            while len(samples) >= WINDOW:
                window, samples = samples[:WINDOW], samples[WINDOW:]
                muted = int(np.abs(window.astype(np.int32)).max()) <= MUTED
                yield begin + WINDOW_S / 2, None if muted else bool(detector.is_speech(window.tobytes(), RATE))
                begin += WINDOW_S


def _sound(container: av.container.InputContainer) -> Iterator[tuple[float | None, I16]]:
    """Time, seconds, and samples, mono, RATE a second, of what can be decoded; ends where the file is damaged."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    track = container.streams.audio[0]
    try:
        for packet in container.demux(track):
            try:
                frames = [part for frame in track.decode(packet) for part in resampler.resample(frame)]
            except (av.error.FFmpegError, ValueError):
                continue
            for frame in frames:
                yield frame.time, np.asarray(frame.to_ndarray(), np.int16).reshape(-1)
    except av.error.FFmpegError:
        return
