"""Crops -> spans: when an expression began, peaked and ended, told while it happens.

An expression is a motion of some part of the face that rises above its noise, turns, and comes to rest. For every crop the
registration gives the displacement of each region (`Crop.motion`). Smoothed over +-SMOOTH_S, less the resting position of
the last moments (REST_S), it is the deviation e(t), two numbers a region. The loudness |e_r| / T_r compares each region with a
threshold T_r of its own, a multiple of that region's usual unrest, so that a noisy camera, a trembling head or stubble
decide nothing; the mean of the three loudest regions must pass it, since an expression never moves one alone.

One machine per face, moved only by its table:

    state      meets        goes to   what happens
    ---------  -----------  --------  -------------------------------------------------------------
    QUIET      MOVES        RISING    the resting position is frozen
    RISING     TURNS        FALLING   the apex is sure: a provisional span
    RISING     SETTLES      QUIET     it never stood out: nothing is said, unless it was announced before
    FALLING    GROWS        RISING    the apex was not the last word
    FALLING    SETTLES      QUIET     the offset is known: the final span *
    FALLING    CHANGES      QUIET     another expression takes over: final *, up to where that begins
    any open   OUTLASTS     QUIET     held too long: final *, truncated, and the new neutral
    any open   BREAKS       QUIET     source, face or time broke off: final *, truncated

    * if it was announced, or if it stands out and is no blink; else nothing is said

While a span is open, e(t) is projected on its own direction at the apex (all regions at once), which gives one curve p(t)
of high signal to noise; onset and offset are where that curve bends out of its rest and back into it (see
`engine.spotting.curve.foot`), whatever the level of that rest and however it drifts.

A blink moves brow and cheek by a few tenths of a pixel. Lids that close in the middle of a short motion around the eyes
alone say that it was one: it is not reported.

After the outline of the training-free methods of MEGC 2021 (regional optical flow, nose as the head, peaks by prominence), made
causal. Everything is measured in pixels of the crop and seconds of the source, so frame rate does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from engine.config import SpotterSettings
from engine.quantiles import median, percentile
from engine.registration.align import REGION_NAMES, region_places, without_head
from engine.spotting.curve import foot
from engine.spotting.turning import TURN_TERMS, Turning
from engine.tape import Tape
from engine.types import F32, F64, Crop, Mark, Span

SMOOTH_S = 0.05
REST_S = 0.6  # the resting position is the median over this long
NEAR_REST = 0.12  # below this share of its peak the curve is near its rest,
SETTLE_S = 0.12  # where it must stay this long before an offset is believed,
SETTLE_FALLS = 1.2  # and this many times as long as it took from half its height
STILL_S = 0.35  # a curve that has not moved for so long rests, at whatever level below half
UNREST_S = 4.0  # memory of a region's usual unrest
USUAL_LIDS_S = 3.0  # lids are usually as far open as the 75th percentile over so long before a motion,
LIDS_REACH_S = 0.1  # closed where they fall, so near its apex,
CLOSED_LIDS = 0.65  # below this share of that,
LIDS_MOVE_PX = 4.0  # and move the skin around them no further
SAME_PX = 1e-4  # a picture in which no region has moved so far is the one before, repeated
NOISE_S = 2.0  # memory of a region's noise from frame to frame
FIRST_UNREST_PX = 0.08  # what is assumed of a face just met
MOST_UNREST_PX = 0.6
BREAK_S = 0.34  # a face away longer than this ends what was open
TOGETHER = 2  # an expression moves at least this many regions; noise and codec artefacts seldom do
CHANGE_SHARE = 1.0  # a motion aside of at least this share of the open span's height is another expression,
CHANGE_PX = 8.0  # and so is one of this length over all regions, pixels
STANDS_OUT = 1.05  # loudness of an apex against the line between its feet
BRIDGE_SHARE = 0.9  # expressions hardly move the bridge of the nose: what moves it as much as the rest is a turn of the head
RETURN_COSINE = 0.7  # a motion that points so straight to the usual rest is a return
DETOUR = 0.5  # one that meanwhile leaves the straight way by this share of its length is more than that
HOME_S = 8.0  # memory of how the face usually rests
ANNOUNCED = 1.35  # and loudness of one that is told without its offset

_AROUND_EYES = np.array([name.startswith(("brow", "glabella", "forehead", "cheek")) for name in REGION_NAMES])


def _lengths(motion: F64) -> F64:
    """How far each region goes [R], of motion [2 R]."""
    return np.asarray(np.hypot(motion[::2], motion[1::2]))


def _loudest(size: F64) -> float:
    """The mean of the largest few of sizes [R]."""
    return float(np.add.reduce(np.sort(size)[-TOGETHER:])) / TOGETHER


class State(Enum):
    """Where the machine stands."""

    QUIET = "quiet"
    RISING = "rising"
    FALLING = "falling"


class Meets(Enum):
    """What the machine meets."""

    MOVES = "moves"
    TURNS = "turns"
    GROWS = "grows"
    SETTLES = "settles"
    CHANGES = "changes"
    OUTLASTS = "outlasts"
    BREAKS = "breaks"


TABLE: dict[tuple[State, Meets], tuple[State, str]] = {
    (State.QUIET, Meets.MOVES): (State.RISING, "open"),
    (State.RISING, Meets.TURNS): (State.FALLING, "announce"),
    (State.RISING, Meets.SETTLES): (State.QUIET, "drop"),
    (State.FALLING, Meets.GROWS): (State.RISING, "resume"),
    (State.FALLING, Meets.SETTLES): (State.QUIET, "conclude"),
    (State.FALLING, Meets.CHANGES): (State.QUIET, "give_way"),
    (State.RISING, Meets.OUTLASTS): (State.QUIET, "cut"),
    (State.FALLING, Meets.OUTLASTS): (State.QUIET, "cut"),
    (State.RISING, Meets.BREAKS): (State.QUIET, "cut"),
    (State.FALLING, Meets.BREAKS): (State.QUIET, "cut"),
}
"""(state, what it meets) -> (next state, action)."""


@dataclass
class _Open:
    """The span being followed: its direction, and where its curve peaked (indices into the tape).

    rise is how many rows it took from its onset to its peak, with the times of the first row looked at and of that peak.
    """

    start: int
    rest: F64
    answer: F64
    direction: F64
    peak: int
    height: float
    announced: bool = False
    rise: tuple[tuple[float, float], int] | None = None


class Spotter:
    """Follows one face; `observe` takes its crops in order, `finish` ends what is open.

    After each call `loudness` is how loud the face was (1 is the threshold) and `moved_px` the largest regional motion in
    pixels of the crop.
    """

    def __init__(self, settings: SpotterSettings | None = None) -> None:
        self._settings = settings or SpotterSettings()
        width = 2 * len(REGION_NAMES)
        self._raw = Tape(width + TURN_TERMS)  # motion, then the regressors of the head's turn
        self._tape = Tape(width + TURN_TERMS)
        self._turning = Turning(width)
        self._home: F64 | None = None  # how the face usually rests
        self._landmarks: F32 = np.zeros((478, 3), np.float32)  # the last crop's
        self._lids = Tape(1)
        self._smoothed = 0  # raw rows already smoothed
        self._unrest = np.full(len(REGION_NAMES), FIRST_UNREST_PX)
        self._noise = np.zeros(len(REGION_NAMES))
        self._heard = 0
        self._quiet_since = -np.inf
        self._state = State.QUIET
        self._open: _Open | None = None
        self._ordinal = 0
        self.loudness = 0.0
        self.moved_px = 0.0
        self._actions: dict[str, Callable[[int], list[Span]]] = {
            "open": self._begin,
            "announce": self._announce,
            "resume": self._resume,
            "drop": self._drop,
            "conclude": self._conclude,
            "give_way": self._give_way,
            "cut": self._cut,
        }

    @property
    def state(self) -> State:
        """Where the machine stands."""
        return self._state

    def observe(self, crop: Crop) -> list[Span]:
        """Takes the face's next crop; returns spans that became sure, provisional or final."""
        spans: list[Span] = []
        t = crop.mark.t
        if self._raw.size and t - self._raw.t[self._raw.size - 1] > BREAK_S:
            spans += self.finish()
        self._see_lids(crop)
        self._take(crop)
        while self._smoothed < self._raw.size and self._raw.t[self._smoothed] <= t - SMOOTH_S + 1e-9:
            self._smooth(self._smoothed)
            self._smoothed += 1
            spans += self._step()
        self._trim(t)
        return spans

    def steps(self, onset: Mark, offset: Mark) -> int:
        """How many pictures of the face came after the onset, up to the offset."""
        return self._tape.first_at(offset.t) - self._tape.first_at(onset.t)

    def after(self, onset: Mark, steps: int) -> Mark:
        """The picture that came so many after the onset, or the last."""
        return self._mark(min(self._tape.first_at(onset.t) + steps, self._tape.size - 1))

    def foreseen(self) -> tuple[Mark, Mark] | None:
        """Onset and apex of the span that would be announced if the open one turned with the next crop; None where none would.

        Changes nothing. Of later crops only a new peak can move it.
        """
        span = self._open
        if span is None or self._state is not State.RISING:
            return None
        onset = self._onset(span)
        if not self._stands_out(span, onset, span.peak, ANNOUNCED):
            return None
        return self._mark(onset), self._apex(span)

    def extent(self, start: float, end: float) -> tuple[Mark, Mark, Mark] | None:
        """Onset, apex and offset of the motion from start to end, seconds: the apex is where the face stands furthest from the
        line between both ends. None where less than three rows of that time are remembered, or where the face only goes back to
        how it usually rests, without going elsewhere meanwhile."""
        tape = self._tape
        first, last = tape.first_at(start), min(tape.first_at(end), tape.size - 1)
        if last - first < 2:
            return None
        motion = self._motion(first, last + 1)
        share = ((tape.t[first : last + 1] - tape.t[first]) / (tape.t[last] - tape.t[first]))[:, None]
        away = np.linalg.norm(motion - (motion[0] + share * (motion[-1] - motion[0])), axis=1)
        straight = away.max() < DETOUR * float(np.linalg.norm(motion[-1] - motion[0]))
        if straight and self._home is not None and self._returns(motion[0] - self._home, motion[-1] - self._home):
            return None
        peak = first + int(away.argmax())
        return self._mark(first), self._mark(min(max(peak, first + 1), last)), self._mark(last)

    def lids_alone(self, onset: Mark, apex: Mark, offset: Mark) -> bool:
        """Whether a motion is that of lids that close: they are closed at its apex, and nothing moves far but the skin around
        the eyes, which follows them."""
        tape, lids = self._tape, self._lids
        first, peak, last = (min(tape.first_at(mark.t), tape.size - 1) for mark in (onset, apex, offset))
        before, at = lids.first_at(onset.t - USUAL_LIDS_S), lids.first_at(apex.t - LIDS_REACH_S)
        if last <= first or lids.first_at(apex.t + LIDS_REACH_S) <= at:
            return False
        lowest = float(lids.row[at : lids.first_at(apex.t + LIDS_REACH_S), 0].min())
        if lowest > CLOSED_LIDS * percentile(lids.row[before : lids.first_at(offset.t) + 1, 0], 75):
            return False
        ends = self._motion(first, last + 1)[[0, -1]]
        size = _lengths(self._motion(peak, peak + 1)[0] - ends.mean(axis=0))
        return bool(size.max() < LIDS_MOVE_PX and size[~_AROUND_EYES].max() < 0.6 * size.max())

    def finish(self) -> list[Span]:
        """The source, the face or time breaks off here: ends what is open and starts from rest."""
        spans = self.end()
        self.forget()
        return spans

    def end(self) -> list[Span]:
        """Ends what is open, as `finish` does; what was seen can still be asked for until `forget`."""
        spans: list[Span] = []
        while self._smoothed < self._raw.size:
            self._smooth(self._smoothed)
            self._smoothed += 1
            spans += self._step()
        if self._state is not State.QUIET:
            spans += self._meet(Meets.BREAKS)
        return spans

    def forget(self) -> None:
        """Starts from rest."""
        for tape in (self._raw, self._tape, self._lids):
            tape.size = 0
        self._smoothed = 0
        self._home = None
        self._quiet_since = -np.inf
        self.loudness = self.moved_px = 0.0

    # --- what the machine sees -------------------------------------------------------------------------------------------

    def _take(self, crop: Crop) -> None:
        """Puts a crop's motion on the raw tape, and learns from it how the regions answer to turns of the head."""
        motion = crop.motion.astype(np.float64).ravel()
        regressors = np.ones(TURN_TERMS)
        regressors[1:] = crop.turn
        self._landmarks = crop.landmarks
        last = self._raw.t[self._raw.size - 1] if self._raw.size else crop.mark.t
        self._turning.learn(regressors, motion, min(crop.mark.t - last, 0.2))
        self._raw.append(crop.mark.frame, crop.mark.t, np.concatenate([motion, regressors]))

    def _smooth(self, index: int) -> None:
        """Adds raw row `index` to the tape, averaged with a triangle of +-SMOOTH_S."""
        raw, t = self._raw, self._raw.t[index]
        first, last = raw.first_at(t - SMOOTH_S), raw.first_at(t + SMOOTH_S + 2e-9)
        weight = np.maximum(1.0 - np.abs(raw.t[first:last] - t) / (SMOOTH_S * 1.01), 1e-3)
        weight /= np.add.reduce(weight)
        self._hear_noise(index, math.sqrt(weight @ weight))
        self._tape.append(int(raw.frame[index]), float(t), weight @ raw.row[first:last])

    def _hear_noise(self, index: int, left: float) -> None:
        """Learns each region's noise from how its raw motion jumps from frame to frame, open span or not.

        Second differences of white noise are sqrt(6) times it; smoothing leaves the share `left`. No expression is so fast.
        """
        raw = self._raw
        if index < 2 or np.abs(raw.row[index] - raw.row[index - 1]).max() < SAME_PX:
            return  # a repeated picture: no jump, though the noise is there
        jump = raw.row[index] - 2 * raw.row[index - 1] + raw.row[index - 2]
        size = _lengths(jump[:-TURN_TERMS]) * (left / math.sqrt(6.0))
        self._heard += 1
        pace = min(max(float(raw.t[index] - raw.t[index - 1]) / NOISE_S, 1 / self._heard), 1.0)
        self._noise += pace * (np.minimum(size, 4 * np.maximum(self._noise, FIRST_UNREST_PX)) - self._noise)

    def _motion(self, first: int, stop: int) -> F64:
        """Smoothed motion of tape rows first..stop - 1, [n, 2 R], less what the head's turns explain."""
        rows = self._tape.row[first:stop]
        answer = self._turning.answer if self._open is None else self._open.answer
        return rows[:, :-TURN_TERMS] - rows[:, -TURN_TERMS:] @ answer

    def _curve(self, span: _Open, first: int, stop: int) -> F64:
        """The open span's curve p(t) over tape rows first..stop - 1, in pixels."""
        return np.asarray((self._motion(first, stop) - span.rest) @ span.direction)

    def _rest(self, stop: int) -> F64:
        """Resting position before tape row `stop`: the median of the quiet rows of the last REST_S."""
        tape = self._tape
        t = tape.t[max(stop - 1, 0)]
        first = tape.first_at(max(t - REST_S, self._quiet_since))
        return median(self._motion(first, max(stop, first + 1)))

    def _without_head(self, motion: F64) -> F64:
        """Regions' motion [2 R] less what all of them share, as a head's motion would be."""
        return without_head(motion, region_places(self._landmarks))

    def _thresholds(self) -> F64:
        unrest = np.minimum(np.maximum(self._unrest, self._noise), MOST_UNREST_PX)
        return np.asarray(np.maximum(self._settings.floor_px, self._settings.noise_factor * unrest))

    def _step(self) -> list[Span]:
        """One smoothed row has come: works out what the machine meets, if anything."""
        now = self._tape.size - 1
        span = self._open
        rest = self._rest(now) if span is None else span.rest
        away = _lengths(self._motion(now, now + 1)[0] - rest)
        self.moved_px = float(away.max())
        self.loudness = _loudest(away / self._thresholds())
        if span is None:
            if self.loudness > 1 and self._tape.t[now] > self._quiet_since:
                return self._meet(Meets.MOVES)
            self._learn(away, now)
            self._settle_home(rest, now)
            return []
        return self._follow(span, now)

    def _learn(self, away: F64, now: int) -> None:
        """A quiet row: it teaches how restless each region is. Quickly upwards, slowly down."""
        dt = min(self._tape.t[now] - self._tape.t[now - 1], 0.2) if now else 0.0
        pace = np.where(away > self._unrest, dt / (0.5 * UNREST_S), dt / UNREST_S)
        self._unrest += np.minimum(pace, 1.0) * (np.minimum(away, 3 * self._unrest) - self._unrest)

    def _settle_home(self, rest: F64, now: int) -> None:
        """How the face usually rests follows slowly where it rests now."""
        if self._home is None:
            self._home = rest
        dt = min(self._tape.t[now] - self._tape.t[now - 1], 0.2) if now else 0.0
        self._home = self._home + dt / HOME_S * (rest - self._home)

    def _follow(self, span: _Open, now: int) -> list[Span]:
        """The open span's curve goes on by one row."""
        deviation = self._motion(now, now + 1)[0] - span.rest
        size = float(np.linalg.norm(deviation))
        value = float(deviation @ span.direction)
        if self._state is State.RISING and size > span.height and value > 0.5 * size:
            span.peak, span.height, span.direction = now, size, deviation / max(size, 1e-9)
            return self._outlasts(span, now)
        drop = 1 - value / span.height
        if self._state is State.RISING and self._turned(span, now, drop):
            return self._meet(Meets.TURNS)
        if self._state is State.FALLING and value > 1.03 * span.height:
            return self._meet(Meets.GROWS)
        if self._settled(span, now):
            return self._meet(Meets.SETTLES)
        if self._state is State.FALLING and self._changed(span, now):
            return self._meet(Meets.CHANGES)
        return self._outlasts(span, now)

    def _turned(self, span: _Open, now: int, drop: float) -> bool:
        held = self._tape.t[now] - self._tape.t[span.peak]
        return drop > self._settings.apex_drop or held > 0.6

    def _settled(self, span: _Open, now: int) -> bool:
        """Whether the curve has come to rest: near its old level, or still at a new one, or turning up again from a valley.

        The slower it fell, the longer it must rest: the end of a slow fall is slow too.
        """
        tape = self._tape
        since = self._curve(span, span.peak, now + 1) / span.height
        times = tape.t[span.peak : now + 1]
        high, near = np.nonzero(since > 0.5)[0], np.nonzero(since > NEAR_REST)[0]
        falls = times[near[-1]] - times[high[-1]] if len(high) and len(near) else 0.0
        if times[-1] - times[near[-1] if len(near) else 0] >= max(SETTLE_S, SETTLE_FALLS * falls):
            return True
        valley = float(since.min())
        if valley < 0.5 and since[-1] > valley + 0.25:
            return True
        lately = since[times >= times[-1] - STILL_S]
        return bool(times[-1] - times[0] > STILL_S and lately.max() < 0.5 and lately.max() - lately.min() < 0.08)

    def _changed(self, span: _Open, now: int) -> bool:
        """Whether the face has begun a motion of its own in another direction than the open span's, and not a small one."""
        first = max(self._tape.first_at(self._tape.t[now] - REST_S), span.peak)
        if now - first < 3:
            return False
        lately = self._motion(first, now + 1)
        aside = lately - np.outer((lately - span.rest) @ span.direction, span.direction)
        step = aside[-1] - median(aside[: (len(aside) + 1) // 2])
        if float(np.linalg.norm(step)) < min(CHANGE_SHARE * span.height, CHANGE_PX):
            return False
        size = _lengths(self._without_head(step))
        return _loudest(size / self._thresholds()) > 1.5

    def _outlasts(self, span: _Open, now: int) -> list[Span]:
        if self._tape.t[now] - self._tape.t[span.start] > self._settings.longest_s:
            return self._meet(Meets.OUTLASTS)
        return []

    def _see_lids(self, crop: Crop) -> None:
        """Keeps how far the eyes are open."""
        self._lids.append(crop.mark.frame, crop.mark.t, np.array([crop.eye_opening]))

    # --- what the machine does -------------------------------------------------------------------------------------------

    def _meet(self, met: Meets) -> list[Span]:
        self._state, action = TABLE[self._state, met]
        return self._actions[action](self._tape.size - 1)

    def _begin(self, now: int) -> list[Span]:
        rest = self._rest(now)
        deviation = self._motion(now, now + 1)[0] - rest
        height = max(float(np.linalg.norm(deviation)), 1e-9)
        self._open = _Open(now, rest, self._turning.answer, deviation / height, now, height)
        return []

    def _announce(self, now: int) -> list[Span]:
        span = self._expect_open()
        onset = self._onset(span)
        if self._is_blink(span, onset, now) or not self._stands_out(span, onset, span.peak, ANNOUNCED):
            return []
        span.announced = True
        return [Span(0, self._ordinal, "provisional", self._mark(onset), self._apex(span))]

    def _resume(self, now: int) -> list[Span]:
        span = self._expect_open()
        deviation = self._motion(now, now + 1)[0] - span.rest
        span.peak, span.height = now, float(np.linalg.norm(deviation))
        span.direction = deviation / max(span.height, 1e-9)
        return []

    def _drop(self, now: int) -> list[Span]:
        if self._expect_open().announced:
            return self._conclude(now)
        self._close(now)
        return []

    def _cut(self, now: int) -> list[Span]:
        span = self._expect_open()
        onset = self._onset(span)
        return self._tell(span, onset, now, truncated=True)

    def _conclude(self, now: int) -> list[Span]:
        span = self._expect_open()
        onset, offset = self._onset(span), self._offset(span, now)
        return self._tell(span, onset, offset, truncated=False)

    def _give_way(self, now: int) -> list[Span]:
        span = self._expect_open()
        onset, offset = self._onset(span), self._offset(span, now)
        begun = max(self._tape.first_at(self._tape.t[now] - 0.25 * REST_S), span.peak + 1)
        return self._tell(span, onset, min(offset, begun), truncated=False)

    def _tell(self, span: _Open, onset: int, offset: int, truncated: bool) -> list[Span]:
        tape = self._tape
        long_enough = tape.t[offset] - tape.t[onset] >= self._settings.shortest_s
        known = (span.peak, ANNOUNCED) if truncated else (offset, STANDS_OUT)
        expression = long_enough and self._stands_out(span, onset, *known)
        blink = self._is_blink(span, onset, offset)
        told: list[Span] = []
        if (expression and not blink) or span.announced:
            apex = self._apex(span)
            told = [Span(0, self._ordinal, "final", self._mark(onset), apex, self._mark(offset), truncated)]
        if told or span.announced:
            self._ordinal += 1
        self._close(offset)
        return told

    def _close(self, rest_from: int) -> None:
        """Back to quiet; the resting position is learned anew from here."""
        self._open = None
        self._quiet_since = float(self._tape.t[rest_from])

    def _expect_open(self) -> _Open:
        assert self._open is not None, "the table lets this action run only with a span open"
        return self._open

    def _mark(self, index: int) -> Mark:
        return Mark(int(self._tape.frame[index]), float(self._tape.t[index]))

    def _apex(self, span: _Open) -> Mark:
        return self._mark(span.peak)

    def _onset(self, span: _Open) -> int:
        """Row of the onset on the open span's curve, read from the motion before smoothing: an edge stays an edge.

        Nothing after the peak moves it, so what was foreseen is still known when the apex is decided.
        """
        tape, raw = self._tape, self._raw
        first = tape.first_at(max(tape.t[span.peak] - self._settings.longest_s - 1, self._quiet_since))
        start, peak = raw.first_at(tape.t[first]), raw.first_at(tape.t[span.peak])
        times = raw.t[start : peak + 1]
        seen = float(times[0]), float(times[-1])
        if span.rise is None or span.rise[0] != seen:
            curve = self._raw_curve(span, start, peak + 1)
            curve[-1] = max(curve[-1], span.height)
            span.rise = seen, foot(-times[::-1], curve[::-1])
        return max(span.peak - span.rise[1], first)

    def _offset(self, span: _Open, now: int) -> int:
        """Row of the offset, no later than `now`, as `_onset` finds the onset."""
        raw = self._raw
        peak, stop = (raw.first_at(self._tape.t[k]) for k in (span.peak, now))
        curve = self._raw_curve(span, peak, stop + 1)
        curve[0] = max(curve[0], span.height)
        return min(span.peak + foot(raw.t[peak : stop + 1], curve), now)

    def _raw_curve(self, span: _Open, first: int, stop: int) -> F64:
        """The open span's curve before smoothing over raw rows first..stop - 1, in pixels."""
        rows = self._raw.row[first:stop]
        return np.asarray((rows[:, :-TURN_TERMS] - rows[:, -TURN_TERMS:] @ span.answer - span.rest) @ span.direction)

    def _stands_out(self, span: _Open, onset: int, offset: int, least: float = STANDS_OUT) -> bool:
        """Whether the apex rises above the line from onset to offset, also when it is taken as far as possible for the head's.

        A drift that goes only one way is no expression, nor is one that all regions share as they share a turn of the head.
        """
        tape = self._tape
        feet, share = self._motion(onset, onset + 1)[0], 0.0
        if offset > span.peak:
            share = (tape.t[span.peak] - tape.t[onset]) / max(tape.t[offset] - tape.t[onset], 1e-9)
            feet = feet + share * (self._motion(offset, offset + 1)[0] - feet)
        apex = self._motion(span.peak, span.peak + 1)[0]
        own = self._without_head(apex - feet)
        if self._home is not None and self._returns(self._motion(onset, onset + 1)[0] - self._home, apex - self._home):
            return False
        size = _lengths(own)
        bridge = tape.row[:, -2:]
        turned = bridge[span.peak] - bridge[onset]
        turned = turned - share * (bridge[offset] - bridge[onset])
        if _loudest(size) < BRIDGE_SHARE * float(np.hypot(*turned)):
            return False
        return _loudest(size / self._thresholds()) > least

    def _returns(self, before: F64, after: F64) -> bool:
        """Whether the face only goes back towards how it usually rests: a laugh that fades is no sorrow.

        before and after [2 R] are onset and apex seen from the usual rest.
        """
        away, step = self._without_head(before), self._without_head(after - before)
        far, length = float(np.linalg.norm(away)), float(np.linalg.norm(step))
        return far > 1.0 and float(-away @ step) > RETURN_COSINE * far * length

    def _is_blink(self, span: _Open, onset: int, offset: int) -> bool:
        tape = self._tape
        start, stop = tape.t[onset], tape.t[offset]
        if stop - start > 0.6:
            return False
        size = _lengths(self._motion(span.peak, span.peak + 1)[0] - span.rest)
        elsewhere = size[~_AROUND_EYES].max()
        if size.max() > 1.0 or elsewhere > 0.6 * size.max():
            return False
        lids = self._lids
        first, last = lids.first_at(start - 0.15), lids.first_at(stop + 0.15)
        before = lids.first_at(start - 2.0)
        if last <= first:
            return False
        usual = percentile(lids.row[before:last, 0], 75)
        return bool(lids.row[first:last, 0].min() < 0.75 * usual)

    def _trim(self, t: float) -> None:
        keep = t - self._settings.longest_s - 4.0
        if self._open is not None:
            keep = min(keep, self._tape.t[self._open.start] - self._settings.longest_s)
        self._smoothed -= self._raw.forget_before(keep)
        self._lids.forget_before(keep)
        gone = self._tape.forget_before(keep)
        if self._open is not None and gone:
            self._open.start -= gone
            self._open.peak -= gone
