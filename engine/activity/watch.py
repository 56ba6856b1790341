"""What a face does besides expressions: it speaks, blinks, closes its eyes, looks elsewhere, turns its head, is covered.

Each kind has a measure of 0 to 1, and levels of it at which it starts and ends:

    kind         measure                                                  starts, ends
    -----------  -------------------------------------------------------  ------------
    speech       how often the mouth reverses, see `engine.activity.speech`        .5, .17
    blink        lids: 1 less their opening over the usual one            .3, .3, within half a second
    eyes_closed  the same                                                 .3, .3, longer, and once above .5
    gaze         change of the eyes' direction from the usual one         .35, .2
    head_turn    change of yaw, pitch or roll within TURN_S               .5, .25
    covered      see `_Cover`                                             .5, .3

Lids that are lowered but not closed while the eyes look down are a glance, no blink. An activity is reported once it is over;
speech is detected half a second after its start.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from engine.activity.speech import NEVER, Lips
from engine.quantiles import median, percentile
from engine.registration.head import roll_of, yaw_and_pitch
from engine.time_series import TimeSeries
from engine.types import F64, Activity, ActivityKind, Crop, Mark

BLINK_S = 0.5  # lids closed for longer are no blink
USUAL_LIDS_S = 3.0  # the usual opening is the 75th percentile over so long
CLOSED = 0.3  # lids lowered by this share of it are closed,
SQUINT = 0.5  # but only ones lowered so far at their lowest are closed for long
BLINKS = 0.5  # least of the blendshapes eyeBlinkLeft and eyeBlinkRight of closed lids,
LOWERED = 0.15  # if they are also lowered by this share
GLANCE_OPEN = 0.5  # lids that leave this share open while the eyes look down
GLANCE_DOWN = 0.1  # (eyeLookDown less eyeBlink) are lowered for a glance
USUAL_GAZE_S = 5.0
GAZE_S = 0.15  # shorter ones are dropped
TURN_S, TURNED = 0.4, 0.5
TURNS_DEG = (16.0, 24.0, 12.0)  # yaw, pitch and roll that count as 1; speech alone shakes the mesh's pitch by 5
FRESH_S = 1e-6  # age of a mesh of this very frame
APPEARANCE_STEP_S = 0.08
USUAL_APPEARANCE_S, USUAL_CHANGE_S = 4.0, 10.0  # memory of the usual appearance, and of its usual change,
TURNING_S = 0.5  # and of both while the head turns
LEAST_CHANGE = 1.0  # in standard deviations of the face's grey levels, from which on a part of it looks unusual,
CHANGES = 3.0  # or so many times its usual change,
FIRST_CHANGE = 0.2  # which is assumed at first
MOUTH_OPEN = 0.15  # jawOpen from which on the mouth may look unusual
COVERED_SHARE = 0.4
COVERED = 0.5
COVERED_S = 0.3  # shorter ones are dropped
USUAL_PRESENCE_S, MORE_PRESENCE_S = 30.0, 1.0  # memory of the usual presence, and where it is less than now
LESS_SURE = 11.0  # log odds by which presence falls below the usual one that count as 1, or,
LESS_SURE_UNUSUAL = 6.0  # where the appearance is unusual too, as much as that is
OPEN_MOUTH, TURNED_AWAY = 14.0, 0.25  # log odds by which presence falls by itself: per unit of jawOpen, per degree
SIGMA = 1.4826  # from a median deviation to a standard one

HIDDEN_FRAMES = 4096  # in which the face is covered or turns, kept for `hindrance`

Hindrance = Literal["covered", "turned away"]

_Ended = tuple[ActivityKind, Mark, Mark]  # with start and end
_GRID = 16
_FACE = (slice(3, 15), slice(3, 13))  # rows and columns of the grid that every face fills,
_MOUTH = (slice(7, 12), slice(2, 8))  # and of these the mouth


def _halves() -> F64:
    """[4, parts of the face]: a mean over its upper, lower, left and right half each."""
    rows, columns = np.indices((12, 10))
    halves = np.array([rows < 6, rows >= 6, columns < 5, columns >= 5], np.float64).reshape(4, -1)
    return np.asarray(halves / halves.sum(axis=1, keepdims=True))


_HALVES = _halves()


class ActivityWatch:
    """Follows one face; `observe` takes its crops in order, `finish` ends what is open (a gap, a lost face, the end)."""

    def __init__(self) -> None:
        self._face = 0
        self._spoken: deque[tuple[float, float]] = deque(maxlen=16)
        self._hidden: deque[tuple[float, Hindrance]] = deque(maxlen=HIDDEN_FRAMES)
        self._start()

    def _start(self) -> None:
        self._lips, self._lids, self._gaze, self._turn, self._cover = Lips(), _Lids(), _Gaze(), _Turn(), _Cover()
        self._levels = (
            _Hysteresis("gaze", 0.35, 0.2, GAZE_S),
            _Hysteresis("head_turn", TURNED, 0.25),
            _Hysteresis("covered", COVERED, 0.3, COVERED_S),
        )

    def doing(self) -> dict[ActivityKind, float]:
        """The open activities and their starts, seconds of the source."""
        now: dict[ActivityKind, float] = {}
        if self._lips.since is not None:
            now["speech"] = self._lips.since.t
        closed = self._lids.closed_since()
        if closed is not None:
            now["eyes_closed"] = closed
        now.update((level.kind, level.since.t) for level in self._levels if level.since is not None)
        return now

    def spoke(self, start: float, end: float) -> float:
        """Share of the time from start to end (seconds of the source, end > start) in which the face spoke, as known so far."""
        spans = [*self._spoken]
        if self._lips.since is not None:
            spans.append((self._lips.since.t, math.inf))
        return sum(max(0.0, min(end, last) - max(start, first)) for first, last in spans) / (end - start)

    def hindrance(self, start: float, end: float) -> Hindrance | None:
        """What kept the face from being seen well at some time from start to end, in seconds of the source."""
        kinds = {kind for t, kind in self._hidden if start <= t <= end}
        return "covered" if "covered" in kinds else "turned away" if kinds else None

    def observe(self, crop: Crop, *, voice: float | None = None) -> list[Activity]:
        """Takes the face's next crop; returns the activities that are over, in order of their ends.

        voice is that of `engine.types.Frame`: lips speak only while there is one.
        """
        self._face = crop.face
        spoken, closed = self._lips.observe(crop, voice), self._lids.observe(crop)
        gaze = self._gaze.observe(crop, self._lids)
        turn = self._turn.observe(crop)
        covered = self._cover.observe(crop, turning=turn > 0.25, away_deg=self._turn.away_deg)
        if covered >= COVERED:
            self._hidden.append((crop.mark.t, "covered"))
        elif turn >= TURNED:
            self._hidden.append((crop.mark.t, "turned away"))
        measured = zip(self._levels, (gaze, turn, covered), strict=True)
        return self._ended(spoken, closed, *(level.observe(crop.mark, value) for level, value in measured))

    def finish(self) -> list[Activity]:
        """Ends what is open and forgets the face; what `spoke` knows stays."""
        ended = self._ended(self._lips.finish(), self._lids.finish(), *(level.finish() for level in self._levels))
        self._start()
        return ended

    def _ended(self, spoken: tuple[Mark, Mark] | None, *others: _Ended | None) -> list[Activity]:
        """The activities that ended, in order of their ends; keeps the time of speech."""
        ended = [Activity(self._face, *one) for one in others if one is not None]
        if spoken is not None:
            self._spoken.append((spoken[0].t, spoken[1].t))
            ended.insert(0, Activity(self._face, "speech", *spoken))
        return sorted(ended, key=lambda one: one.end.t)


@dataclass(eq=False)
class _Hysteresis:
    """An activity from where its measure reaches one level to where it falls below another; ones shorter than `least_s` are
    dropped."""

    kind: ActivityKind
    starts: float
    ends: float
    least_s: float = 0.1
    since: Mark | None = None
    last: Mark = NEVER

    def observe(self, mark: Mark, value: float) -> _Ended | None:
        if self.since is None and value >= self.starts:
            self.since = mark
        if value >= self.ends:
            self.last = mark
            return None
        return self.finish()

    def finish(self) -> _Ended | None:
        since, self.since = self.since, None
        return None if since is None or self.last.t - since.t < self.least_s else (self.kind, since, self.last)


class _Lids:
    """Closures of the lids. After each call `lowered` is 1 less their opening over the usual one, 0 to 1; `glances` is whether
    they are lowered because the eyes look down, `closed` whether they are closed."""

    def __init__(self) -> None:
        self.lowered = 0.0
        self.glances = self.closed = False
        self._openings = TimeSeries(1)
        self._since: Mark | None = None
        self._last = NEVER
        self._lowest, self._lowest_glances = 0.0, False

    def observe(self, crop: Crop) -> _Ended | None:
        """Takes the next crop; returns a closure once the lids open again."""
        mark, openings = crop.mark, self._openings
        stay_closed = self._since is not None and mark.t - self._since.t > BLINK_S and self._lowest > SQUINT
        if not stay_closed:  # else closed eyes would become the usual
            openings.append(mark.frame, mark.t, np.array([crop.eye_opening]))
            openings.drop_before(mark.t - USUAL_LIDS_S)
        usual = percentile(openings.row[openings.first_at(openings.t[openings.size - 1] - USUAL_LIDS_S) : openings.size, 0], 75)
        self.lowered = min(1.0, max(0.0, 1 - crop.eye_opening / max(usual, 1e-6)))
        seen = crop.blendshapes.get
        blinks = min(seen("eyeBlinkLeft", 0.0), seen("eyeBlinkRight", 0.0))
        down = min(seen("eyeLookDownLeft", 0.0), seen("eyeLookDownRight", 0.0))
        self.glances = self.lowered < 1 - GLANCE_OPEN and down > blinks + GLANCE_DOWN
        self.closed = self.lowered > CLOSED or (blinks > BLINKS and self.lowered > LOWERED)
        if not self.closed:
            return self.finish()
        if self._since is None:
            self._since, self._lowest = mark, 0.0
        self._last = mark
        if self.lowered >= self._lowest:
            self._lowest, self._lowest_glances = self.lowered, self.glances
        return None

    def closed_since(self) -> float | None:
        """Since when the eyes are closed, if for longer than a blink."""
        return self._since.t if self._since is not None and self._last.t - self._since.t >= BLINK_S else None

    def finish(self) -> _Ended | None:
        """Ends a closure."""
        since, self._since = self._since, None
        if since is None or self._lowest_glances:
            return None
        if self._last.t - since.t < BLINK_S:
            return "blink", since, self._last
        return ("eyes_closed", since, self._last) if self._lowest > SQUINT else None


class _Gaze:
    """How far the gaze is from its usual direction, by the blendshapes eyeLook*, 0 to 1."""

    def __init__(self) -> None:
        self._usual: tuple[float, float] | None = None
        self._t = 0.0
        self._value = 0.0

    def observe(self, crop: Crop, lids: _Lids) -> float:
        if lids.closed and not lids.glances:
            return self._value
        seen = crop.blendshapes.get
        aside = seen("eyeLookOutLeft", 0.0) - seen("eyeLookInLeft", 0.0) + seen("eyeLookInRight", 0.0)
        aside = (aside - seen("eyeLookOutRight", 0.0)) / 2
        down = seen("eyeLookDownLeft", 0.0) + seen("eyeLookDownRight", 0.0) - seen("eyeLookUpLeft", 0.0)
        down = (down - seen("eyeLookUpRight", 0.0)) / 2
        x, y = self._usual or (aside, down)
        share = 1 - math.exp((self._t - crop.mark.t) / USUAL_GAZE_S) if self._usual else 1.0
        self._usual, self._t = (x + share * (aside - x), y + share * (down - y)), crop.mark.t
        self._value = min(1.0, math.hypot(aside - x, down - y))
        return self._value


class _Turn:
    """How much the head turned within TURN_S, 1 at TURNS_DEG: yaw and pitch from the mesh, roll from the registration.
    `away_deg` is how far yaw and pitch are from the usual ones."""

    def __init__(self) -> None:
        self.away_deg = 0.0
        self._poses = TimeSeries(3)
        self._seen = 0.0, 0.0
        self._usual: F64 | None = None

    def observe(self, crop: Crop) -> float:
        mark, poses = crop.mark, self._poses
        if crop.mesh_age < FRESH_S or not poses.size:
            self._seen = yaw_and_pitch(crop.landmarks)
        self._compare_with_usual(mark.t)
        roll = roll_of(crop.transform)
        poses.append(mark.frame, mark.t, np.array([*self._seen, roll]))
        poses.drop_before(mark.t - TURN_S)
        then = poses.row[poses.first_at(mark.t - TURN_S)].tolist()
        now = (*self._seen, roll)
        turns = (abs(math.remainder(b - a, math.tau)) for a, b in zip(then, now, strict=True))
        return min(1.0, max(math.degrees(turn) / full for turn, full in zip(turns, TURNS_DEG, strict=True)))

    def _compare_with_usual(self, t: float) -> None:
        """Updates `away_deg`, before the pose of time t is kept."""
        seen, poses = np.degrees(self._seen), self._poses
        usual = seen if self._usual is None else self._usual
        elapsed = t - poses.t[poses.size - 1] if poses.size else 0.0
        self._usual = usual + (1 - math.exp(-elapsed / USUAL_PRESENCE_S)) * (seen - usual)
        self.away_deg = float(np.hypot(*(seen - self._usual)))


class _Cover:
    """How much of the face something covers, 0 to 1: the mesh network is less sure than usual that it sees a face, beyond
    what an open mouth or a turned head make of that; a little less is enough where the appearance is unusual too. Where
    presence is not known, the appearance alone. A smile makes the appearance unusual, but the network no less sure."""

    def __init__(self) -> None:
        self._appearance = _Appearance()
        self._usual: float | None = None
        self._t = 0.0
        self._less_sure = 0.0

    def observe(self, crop: Crop, *, turning: bool, away_deg: float) -> float:
        unusual = self._appearance.observe(crop, turning=turning)
        if math.isinf(crop.presence):
            return unusual
        if crop.mesh_age < FRESH_S or self._usual is None:
            self._less_sure = (
                self._below_usual(crop) - OPEN_MOUTH * crop.blendshapes.get("jawOpen", 0.0) - TURNED_AWAY * away_deg
            )
        return min(1.0, max(0.0, self._less_sure / LESS_SURE, min(unusual, self._less_sure / LESS_SURE_UNUSUAL)))

    def _below_usual(self, crop: Crop) -> float:
        usual = self._usual
        if usual is None:
            usual = crop.presence
        memory = MORE_PRESENCE_S if crop.presence > usual else USUAL_PRESENCE_S
        self._usual = usual + (1 - math.exp((self._t - crop.mark.t) / memory)) * (crop.presence - usual)
        self._t = crop.mark.t
        return self._usual - crop.presence


class _Appearance:
    """How much of the face has an unusual appearance, as with a hand before it; 1 where COVERED_SHARE of a half of it has.

    Every APPEARANCE_STEP_S the crop, shrunk to a grid, is compared with a slow mean of it. Parts that change all the time need
    a larger change, and an open mouth is left out. The halves are upper, lower, left and right.
    """

    def __init__(self) -> None:
        self._usual: F64 | None = None
        self._change: F64 = np.zeros(0)
        self._t = -math.inf
        self._value = 0.0

    def observe(self, crop: Crop, *, turning: bool) -> float:
        elapsed = crop.mark.t - self._t
        if elapsed < APPEARANCE_STEP_S:
            return self._value
        self._t = crop.mark.t
        face = np.asarray(cv2.resize(crop.pixels, (_GRID, _GRID), interpolation=cv2.INTER_AREA)[_FACE], np.float64)
        face = face - median(face.ravel())
        face = face / max(SIGMA * float(median(np.abs(face).ravel())), 1.0)
        if self._usual is None:
            self._usual, self._change = face, np.full(face.shape, FIRST_CHANGE)
            return 0.0
        change = np.abs(face - self._usual)
        unusual = change > np.maximum(LEAST_CHANGE, CHANGES * self._change)
        if crop.blendshapes.get("jawOpen", 0.0) > MOUTH_OPEN:
            unusual[_MOUTH] = False
        share = float((_HALVES @ unusual.ravel()).max())
        self._value = min(1.0, share / COVERED_SHARE)
        memories = (TURNING_S, TURNING_S) if turning else (USUAL_APPEARANCE_S, USUAL_CHANGE_S)
        rate, change_rate = (1 - math.exp(-elapsed / memory) for memory in memories)
        self._usual = self._usual + rate * (face - self._usual)
        self._change = self._change + change_rate * (change - self._change)
        return self._value
