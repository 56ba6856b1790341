"""Crops -> candidate spans, found while they happen: a state machine over the motion of one face.

A candidate is a motion of some part of the face that rises above its noise, peaks, and settles. `engine.spotting.motion` is the
signal it is found in, `engine.spotting.candidate` locates its onset and offset and judges it. Only the table moves the machine:

    state      trigger        next      action
    ---------  -------------  --------  ---------------------------------------------------------------
    QUIET      STARTS         RISING    freezes the baseline
    RISING     PEAKS          FALLING   the apex is known: a provisional span
    RISING     SETTLES        QUIET     never stood out: dropped, unless it was announced before
    FALLING    RISES          RISING    the apex was not the highest point
    FALLING    SETTLES        QUIET     the offset is known: the final span *
    FALLING    CHANGES        QUIET     another expression takes over: the final span *, up to its start
    any open   TIMES_OUT      QUIET     held too long: the final span *, truncated, and a new baseline
    any open   BREAKS_OFF     QUIET     source, face or time broke off: the final span *, truncated

    * if it was announced, or if it stands out and is no blink; else none

After the outline of the training-free methods of MEGC 2021 (regional optical flow, nose as the head, peaks by prominence), made
causal. Everything is measured in pixels of the crop and seconds of the source, so frame rate does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np

from engine.config import SpotterSettings
from engine.quantiles import median
from engine.spotting.candidate import Candidate
from engine.spotting.motion import BASELINE_S, SMOOTH_S, MotionSignal, region_lengths
from engine.types import F64, Crop, Mark, Span

NEAR_BASELINE = 0.12  # below this share of its height the curve is near its baseline,
SETTLE_S = 0.12  # where it must stay this long before an offset counts,
SETTLE_FALLS = 1.2  # and this many times as long as it took from half its height
STILL_S = 0.35  # a curve that has not moved for so long is settled at whatever level below half
PEAK_HELD_S = 0.6  # after so long without a higher point the apex is known
BREAK_S = 0.34  # a face away longer than this ends what was open
CHANGE_SHARE = 1.0  # a motion aside of at least this share of the candidate's height is another expression,
CHANGE_PX = 8.0  # and so is one of this length over all regions, pixels


State = Enum("State", "QUIET RISING FALLING")
"""State of the machine."""

Trigger = Enum("Trigger", "STARTS PEAKS RISES SETTLES CHANGES TIMES_OUT BREAKS_OFF")
"""What moves the machine."""


class Spotter:
    """Follows one face; `observe` takes its crops in order, `finish` ends what is open.

    After each call `loudness` is how loud the face was (1 is the threshold) and `moved_px` the largest regional motion in
    pixels of the crop, both at `measured_t`, seconds of the source: SMOOTH_S before the crop, None where nothing was measured
    yet. `signal` is the face's motion until `reset`, `state` the machine's.
    """

    def __init__(self, settings: SpotterSettings | None = None) -> None:
        self._settings = settings or SpotterSettings()
        self.signal = MotionSignal(self._settings)
        self.state = State.QUIET
        self._open: Candidate | None = None
        self._ordinal = 0
        self.loudness = 0.0
        self.moved_px = 0.0
        self.measured_t: float | None = None

    def observe(self, crop: Crop) -> list[Span]:
        """Takes the face's next crop; returns spans that became known, provisional or final."""
        spans: list[Span] = []
        t, last = crop.mark.t, self.signal.last_t
        if last is not None and t - last > BREAK_S:
            spans += self.finish()
        self.signal.append(crop)
        while self.signal.advance(t - SMOOTH_S + 1e-9):
            spans += self._step()
        self._drop_old(t)
        return spans

    def pending(self) -> tuple[Mark, Mark] | None:
        """Onset and apex of the span that would be announced if the face peaked with the next crop; None where none would.

        Changes nothing. Of later crops only a new apex can move it.
        """
        span = self._open
        if span is None or self.state is not State.RISING:
            return None
        onset = span.onset()
        return (self.signal.mark(onset), self.signal.mark(span.apex)) if span.stands_out(onset) else None

    def finish(self) -> list[Span]:
        """Ends what is open and forgets the crops: source, face or time break off here."""
        spans = self.end()
        self.reset()
        return spans

    def end(self) -> list[Span]:
        """Ends what is open, as `finish` does; the crops are known until `reset`."""
        spans: list[Span] = []
        while self.signal.advance():
            spans += self._step()
        if self.state is not State.QUIET:
            spans += self._fire(Trigger.BREAKS_OFF)
        return spans

    def reset(self) -> None:
        """Forgets the crops; ordinals go on."""
        self.signal.clear()
        self.loudness = self.moved_px = 0.0
        self.measured_t = None

    # --- triggers --------------------------------------------------------------------------------------------------------

    def _step(self) -> list[Span]:
        """Takes in the newest smoothed row."""
        signal, span = self.signal, self._open
        now = signal.now
        baseline = signal.baseline(now) if span is None else span.baseline
        lengths = region_lengths(signal.motion(now, now + 1)[0] - baseline)
        self.moved_px = float(lengths.max())
        self.loudness = signal.loudness(lengths)
        self.measured_t = float(signal.smooth.t[now])
        if span is not None:
            trigger = self._trigger(span, now)
            return [] if trigger is None else self._fire(trigger)
        if self.loudness > 1 and signal.smooth.t[now] > signal.quiet_since:
            return self._fire(Trigger.STARTS)
        signal.learn_quiet(lengths, baseline)
        return []

    def _trigger(self, span: Candidate, now: int) -> Trigger | None:
        """What the newest row means for the candidate; a higher point becomes its apex."""
        t = self.signal.smooth.t
        deviation = span.deviation(now)
        size, value = float(np.linalg.norm(deviation)), float(deviation @ span.direction)
        rising, falling = self.state is State.RISING, self.state is State.FALLING
        if rising and size > span.height and value > 0.5 * size:
            span.move_apex(now, deviation)
        elif rising and (1 - value / span.height > self._settings.apex_drop or t[now] - t[span.apex] > PEAK_HELD_S):
            return Trigger.PEAKS
        elif falling and value > 1.03 * span.height:
            return Trigger.RISES
        elif self._settled(span, now):
            return Trigger.SETTLES
        elif falling and self._changed(span, now):
            return Trigger.CHANGES
        return Trigger.TIMES_OUT if t[now] - t[span.start] > self._settings.longest_s else None

    def _settled(self, span: Candidate, now: int) -> bool:
        """Whether the curve stays near its old level, or is still at a new one, or rises again from a valley.

        The slower it fell, the longer it must stay: the end of a slow fall is slow too.
        """
        curve = span.curve(span.apex, now + 1) / span.height
        times = self.signal.smooth.t[span.apex : now + 1]
        high, away = np.nonzero(curve > 0.5)[0], np.nonzero(curve > NEAR_BASELINE)[0]
        fall_s = times[away[-1]] - times[high[-1]] if len(high) and len(away) else 0.0
        if times[-1] - times[away[-1] if len(away) else 0] >= max(SETTLE_S, SETTLE_FALLS * fall_s):
            return True
        valley = float(curve.min())
        if valley < 0.5 and curve[-1] > valley + 0.25:
            return True
        recent = curve[times >= times[-1] - STILL_S]
        return bool(times[-1] - times[0] > STILL_S and recent.max() < 0.5 and recent.max() - recent.min() < 0.08)

    def _changed(self, span: Candidate, now: int) -> bool:
        """Whether the face has started another motion, not a small one, in another direction than the candidate's."""
        signal = self.signal
        first = max(signal.smooth.first_at(signal.smooth.t[now] - BASELINE_S), span.apex)
        if now - first < 3:
            return False
        recent = signal.motion(first, now + 1)
        aside: F64 = recent - np.outer((recent - span.baseline) @ span.direction, span.direction)
        step = aside[-1] - median(aside[: (len(aside) + 1) // 2])
        if float(np.linalg.norm(step)) < min(CHANGE_SHARE * span.height, CHANGE_PX):
            return False
        return signal.loudness(region_lengths(signal.without_shared(step))) > 1.5

    # --- actions ---------------------------------------------------------------------------------------------------------

    def _fire(self, trigger: Trigger) -> list[Span]:
        self.state, action = TABLE[self.state, trigger]
        return action(self, self.signal.now)

    def _start(self, now: int) -> list[Span]:
        baseline = self.signal.baseline(now)
        self.signal.freeze()
        self._open = Candidate(self.signal, self._settings.longest_s, now, baseline, np.zeros_like(baseline), now, 0.0)
        self._open.move_apex(now, self._open.deviation(now))
        return []

    def _announce(self, now: int) -> list[Span]:
        span = self._candidate()
        onset = span.onset()
        if span.is_blink(onset, now) or not span.stands_out(onset):
            return []
        span.announced = True
        return [Span(0, self._ordinal, "provisional", self.signal.mark(onset), self.signal.mark(span.apex))]

    def _resume(self, now: int) -> list[Span]:
        span = self._candidate()
        span.move_apex(now, span.deviation(now))
        return []

    def _drop(self, now: int) -> list[Span]:
        if self._candidate().announced:
            return self._finalize(now)
        self._close(now)
        return []

    def _truncate(self, now: int) -> list[Span]:
        return self._report(now, truncated=True)

    def _finalize(self, now: int) -> list[Span]:
        return self._report(self._candidate().offset(now), truncated=False)

    def _hand_over(self, now: int) -> list[Span]:
        span, smooth = self._candidate(), self.signal.smooth
        next_start = max(smooth.first_at(smooth.t[now] - 0.25 * BASELINE_S), span.apex + 1)
        return self._report(min(span.offset(now), next_start), truncated=False)

    def _report(self, offset: int, *, truncated: bool) -> list[Span]:
        """Closes the candidate; returns the final span if it is reported."""
        span, signal = self._candidate(), self.signal
        onset = span.onset()
        long_enough = signal.smooth.t[offset] - signal.smooth.t[onset] >= self._settings.shortest_s
        expression = long_enough and span.stands_out(onset, None if truncated else offset)
        spans: list[Span] = []
        if span.announced or (expression and not span.is_blink(onset, offset)):
            marks = signal.mark(onset), signal.mark(span.apex), signal.mark(offset)
            spans = [Span(0, self._ordinal, "final", *marks, truncated)]
            self._ordinal += 1
        self._close(offset)
        return spans

    def _close(self, quiet_since: int) -> None:
        self._open = None
        self.signal.release(quiet_since)

    def _candidate(self) -> Candidate:
        assert self._open is not None, "the table runs this action only with a candidate open"
        return self._open

    def _drop_old(self, t: float) -> None:
        keep = t - self._settings.longest_s - 4.0
        if self._open is not None:
            keep = min(keep, self.signal.smooth.t[self._open.start] - self._settings.longest_s)
        dropped = self.signal.drop_before(keep)
        if self._open is not None:
            self._open.start -= dropped
            self._open.apex -= dropped


TABLE: dict[tuple[State, Trigger], tuple[State, Callable[[Spotter, int], list[Span]]]] = {
    (State.QUIET, Trigger.STARTS): (State.RISING, Spotter._start),
    (State.RISING, Trigger.PEAKS): (State.FALLING, Spotter._announce),
    (State.RISING, Trigger.SETTLES): (State.QUIET, Spotter._drop),
    (State.FALLING, Trigger.RISES): (State.RISING, Spotter._resume),
    (State.FALLING, Trigger.SETTLES): (State.QUIET, Spotter._finalize),
    (State.FALLING, Trigger.CHANGES): (State.QUIET, Spotter._hand_over),
    (State.RISING, Trigger.TIMES_OUT): (State.QUIET, Spotter._truncate),
    (State.FALLING, Trigger.TIMES_OUT): (State.QUIET, Spotter._truncate),
    (State.RISING, Trigger.BREAKS_OFF): (State.QUIET, Spotter._truncate),
    (State.FALLING, Trigger.BREAKS_OFF): (State.QUIET, Spotter._truncate),
}
"""(state, trigger) -> (next state, action)."""
