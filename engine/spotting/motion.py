"""The signal that the spotter watches: how far each region of a face is from its baseline, and how far noise alone takes it.

For every crop the registration gives the displacement of each region (`Crop.motion`). It is smoothed over +-SMOOTH_S, and what
turns of the head explain is subtracted. Its deviation from the baseline, the median of the last BASELINE_S, is compared with a
threshold for each region: a multiple of that region's usual deviation or of its frame-to-frame noise, so that a noisy camera, a
trembling head or stubble raise the threshold instead of an alarm. The loudness of a face is the mean ratio of its TOGETHER
loudest regions, since an expression never moves one alone.
"""

from __future__ import annotations

import math

import numpy as np

from engine.config import SpotterSettings
from engine.quantiles import median
from engine.registration.align import region_places, without_head
from engine.registration.regions import REGION_NAMES
from engine.time_series import TimeSeries
from engine.types import F32, F64, Crop, Mark

SMOOTH_S = 0.05
BASELINE_S = 0.6
DEVIATION_S = 4.0  # memory of a region's usual deviation
NOISE_S = 2.0  # memory of a region's noise from frame to frame
NEUTRAL_S = 8.0  # memory of the neutral position
FIRST_DEVIATION_PX = 0.08  # assumed of a new face
MAX_DEVIATION_PX = 0.6
REPEATED_PX = 1e-4  # a picture in which no region has moved so far is the one before, repeated
TOGETHER = 2  # an expression moves at least this many regions; noise and codec artefacts seldom do
TURN_TERMS = 5  # a constant and the terms of `Crop.turn`
TURN_MEMORY_S = 20.0  # of what turns leave in the motion
MAX_ERROR_PX = 0.3  # of that, from which on it is clipped
MAX_RESPONSE = 1.5  # pixels a region may move for one unit of turn: no part of a face lies further before or behind the rest
_WIDTH = 2 * len(REGION_NAMES)


def region_lengths(motion: F64) -> F64:
    """How far each region goes [R], of motion [2 R]."""
    return np.asarray(np.hypot(motion[::2], motion[1::2]))


def loudest(sizes: F64) -> float:
    """Mean of the TOGETHER largest of sizes [R]."""
    return float(np.add.reduce(np.sort(sizes)[-TOGETHER:])) / TOGETHER


class HeadMotionRegression:
    """Linear map from (1, `Crop.turn`) to the motion of each region: `coefficients` [TURN_TERMS, width].

    The mesh's depth is only roughly that of the face at hand, so a turn leaves some motion in every region and in the
    bridge of the nose, always in the same proportion. Recursive least squares (Ljung 1999, ch. 11) with a memory of
    TURN_MEMORY_S estimates it; errors are clipped so that expressions have little influence.
    """

    def __init__(self, width: int) -> None:
        self.coefficients: F64 = np.zeros((TURN_TERMS, width))
        self._covariance: F64 = np.eye(TURN_TERMS)

    def update(self, regressors: F64, motion: F64, dt: float) -> None:
        """Takes in motion [width] at regressors [TURN_TERMS], dt seconds after the last."""
        memory = math.exp(-dt / TURN_MEMORY_S)
        projected = self._covariance @ regressors
        gain = (projected / (memory + float(regressors @ projected)))[:, None]
        error = np.minimum(np.maximum(motion - regressors @ self.coefficients, -MAX_ERROR_PX), MAX_ERROR_PX)
        coefficients = self.coefficients + gain * error
        coefficients[1:] = np.minimum(np.maximum(coefficients[1:], -MAX_RESPONSE), MAX_RESPONSE)
        self.coefficients = coefficients
        self._covariance = np.minimum((self._covariance - gain * projected) / memory, 10.0)


class MotionSignal:
    """The motion of one face: `append` takes its crops in order, `advance` smooths one more row.

    raw and smooth have the same rows [2 R + TURN_TERMS], regions' motion and head regressors; the last rows of raw are not
    smoothed yet. lids has the eye opening of each crop. neutral [2 R] is the long-term position of the regions, None while
    unknown; quiet_since is the time from which on rows count for the baseline.
    """

    def __init__(self, settings: SpotterSettings) -> None:
        self._settings = settings
        self.raw, self.smooth, self.lids = TimeSeries(_WIDTH + TURN_TERMS), TimeSeries(_WIDTH + TURN_TERMS), TimeSeries(1)
        self.neutral: F64 | None = None
        self.quiet_since = -np.inf
        self._regression = HeadMotionRegression(_WIDTH)
        self._frozen: F64 | None = None
        self._landmarks: F32 = np.zeros((478, 3), np.float32)  # of the last crop
        self._smoothed = 0  # raw rows already smoothed
        self._deviation = np.full(len(REGION_NAMES), FIRST_DEVIATION_PX)
        self._noise = np.zeros(len(REGION_NAMES))
        self._noise_samples = 0

    @property
    def now(self) -> int:
        """Index of the newest smoothed row."""
        return self.smooth.size - 1

    @property
    def last_t(self) -> float | None:
        """Time of the last crop; None before the first."""
        return float(self.raw.t[self.raw.size - 1]) if self.raw.size else None

    @property
    def head_response(self) -> F64:
        """Regression [TURN_TERMS, 2 R] of the regions' motion on the head's."""
        return self._regression.coefficients if self._frozen is None else self._frozen

    def freeze(self) -> None:
        """Holds `head_response` as it is while a candidate is open."""
        self._frozen = self._regression.coefficients

    def release(self, quiet_since: int) -> None:
        """Ends `freeze`; the baseline is taken from row quiet_since on."""
        self._frozen = None
        self.quiet_since = float(self.smooth.t[quiet_since])

    def append(self, crop: Crop) -> None:
        """Takes the next crop."""
        self.lids.append(crop.mark.frame, crop.mark.t, np.array([crop.eye_opening]))
        motion = crop.motion.astype(np.float64).ravel()
        regressors = np.ones(TURN_TERMS)
        regressors[1:] = crop.turn
        self._landmarks = crop.landmarks
        last = crop.mark.t if self.last_t is None else self.last_t
        self._regression.update(regressors, motion, min(crop.mark.t - last, 0.2))
        self.raw.append(crop.mark.frame, crop.mark.t, np.concatenate([motion, regressors]))

    def advance(self, until: float = math.inf) -> bool:
        """Smooths the next raw row if it lies no later than until, seconds; returns whether it did."""
        raw, index = self.raw, self._smoothed
        if index >= raw.size or raw.t[index] > until:
            return False
        t = raw.t[index]
        first, last = raw.first_at(t - SMOOTH_S), raw.first_at(t + SMOOTH_S + 2e-9)
        weight = np.maximum(1.0 - np.abs(raw.t[first:last] - t) / (SMOOTH_S * 1.01), 1e-3)
        weight /= np.add.reduce(weight)
        self._update_noise(index, math.sqrt(weight @ weight))
        self.smooth.append(int(raw.frame[index]), float(t), weight @ raw.row[first:last])
        self._smoothed += 1
        return True

    def _update_noise(self, index: int, remaining: float) -> None:
        """Estimates each region's noise from the second difference of its raw motion, with a candidate open or not.

        That of white noise is sqrt(6) times the noise; smoothing leaves the share `remaining`. No expression is so fast.
        """
        raw = self.raw
        if index < 2 or np.abs(raw.row[index] - raw.row[index - 1]).max() < REPEATED_PX:
            return  # a repeated picture has the noise of the one before
        difference = raw.row[index] - 2 * raw.row[index - 1] + raw.row[index - 2]
        size = region_lengths(difference[:-TURN_TERMS]) * (remaining / math.sqrt(6.0))
        self._noise_samples += 1
        rate = min(max(float(raw.t[index] - raw.t[index - 1]) / NOISE_S, 1 / self._noise_samples), 1.0)
        self._noise += rate * (np.minimum(size, 4 * np.maximum(self._noise, FIRST_DEVIATION_PX)) - self._noise)

    def motion(self, first: int, stop: int) -> F64:
        """Smoothed motion of rows first..stop - 1, [n, 2 R], less what turns of the head explain, in pixels."""
        return self._without_turns(self.smooth.row[first:stop])

    def raw_motion(self, first: int, stop: int) -> F64:
        """`motion` before smoothing, of raw rows."""
        return self._without_turns(self.raw.row[first:stop])

    def _without_turns(self, rows: F64) -> F64:
        return np.asarray(rows[:, :-TURN_TERMS] - rows[:, -TURN_TERMS:] @ self.head_response)

    def bridge(self, row: int) -> F64:
        """Motion [2] of the bridge of the nose in a smoothed row."""
        return np.asarray(self.smooth.row[row, -2:])

    def baseline(self, stop: int) -> F64:
        """Baseline [2 R] before row `stop`: the median of the quiet rows of the last BASELINE_S."""
        t = self.smooth.t[max(stop - 1, 0)]
        first = self.smooth.first_at(max(t - BASELINE_S, self.quiet_since))
        return median(self.motion(first, max(stop, first + 1)))

    def without_shared(self, motion: F64) -> F64:
        """Regions' motion [2 R] less what all of them share, as a head's motion would be."""
        return without_head(motion, region_places(self._landmarks))

    def loudness(self, lengths: F64) -> float:
        """How far regions that went so far [R] are above their thresholds; 1 is the threshold."""
        deviation = np.minimum(np.maximum(self._deviation, self._noise), MAX_DEVIATION_PX)
        return loudest(lengths / np.maximum(self._settings.floor_px, self._settings.noise_factor * deviation))

    def learn_quiet(self, lengths: F64, baseline: F64) -> None:
        """Takes in that the newest row is quiet, its regions so far [R] from the baseline [2 R].

        The usual deviation follows quickly upwards and slowly down, the neutral position slowly.
        """
        t = self.smooth.t
        dt = min(t[self.now] - t[self.now - 1], 0.2) if self.now else 0.0
        rate = np.where(lengths > self._deviation, dt / (0.5 * DEVIATION_S), dt / DEVIATION_S)
        self._deviation += np.minimum(rate, 1.0) * (np.minimum(lengths, 3 * self._deviation) - self._deviation)
        neutral = baseline if self.neutral is None else self.neutral
        self.neutral = neutral + dt / NEUTRAL_S * (baseline - neutral)

    def mark(self, row: int) -> Mark:
        """Frame and time of a smoothed row."""
        return Mark(int(self.smooth.frame[row]), float(self.smooth.t[row]))

    def frames_between(self, onset: Mark, offset: Mark) -> int:
        """How many frames of the face came after the onset, up to the offset."""
        return self.smooth.first_at(offset.t) - self.smooth.first_at(onset.t)

    def frame_after(self, onset: Mark, count: int) -> Mark:
        """The frame that came so many after the onset, or the last."""
        return self.mark(min(self.smooth.first_at(onset.t) + count, self.now))

    def drop_before(self, t: float) -> int:
        """Drops old rows, see `TimeSeries.drop_before`; returns how many smoothed ones were dropped."""
        self._smoothed -= self.raw.drop_before(t)
        self.lids.drop_before(t)
        return self.smooth.drop_before(t)

    def clear(self) -> None:
        """Drops all rows, baseline and neutral position; what was learned of noise and head stays."""
        for series in (self.raw, self.smooth, self.lids):
            series.size = 0
        self._smoothed = 0
        self.neutral = None
        self.quiet_since = -np.inf
