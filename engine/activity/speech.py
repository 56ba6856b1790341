"""Whether a face speaks, from its lips alone.

Speech repeats: lips and jaw reverse several times a second, a smile or a yawn goes out and back once. Each of four measures
of the mouth (gap of the lips, chin against nose, width, jaw) is followed as a zigzag: a reversal counts once the measure has
come back from its last extremum by more than its noise, and counts less the longer the swing before it took. The counts add
up and decay within FADE_S. One measure that opens the mouth (gap, jaw) and one that shapes it (chin, width) must agree. No
history is searched, so a frame costs the same at every frame rate; where frames are too few to follow the lips, the jaw of the
mesh still shows speech.

The constants were chosen on five GRID sentences, six long talkers, people who pose mouth shapes or turn their heads, and
rendered clips. Of the time in which a voice sounds, speech covers .89 in five other GRID sentences and .92 in ten clips of five
other talkers; of quiet faces and rendered expressions, nothing.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from engine.registration.regions import REGION_NAMES
from engine.types import Crop, Mark

FADE_S = 0.7
SPEAKS = 1.2  # level of reversals from which on a face speaks,
SILENT = 0.4  # and below which it no longer does
SHARE, LARGEST_S = 0.15, 2.0  # least share of the largest recent swing that counts: a mouth held open trembles
JAW = 0.05  # swing of the blendshape jawOpen that speech needs to start: lips are unreliable while the head turns far
VOICED = 0.2  # least `Frame.voice` at which reversals count
CLEAR = 0.7  # a swing that counts less marks neither start nor end of speech
REACH_S = 1.5  # how far back speech may have started
QUICK_S, SLOW_S = 0.35, 0.7  # a swing counts in full up to the first, not at all from the second on

NEVER = Mark(0, -math.inf)

LEAST = (0.6, 0.8, 0.6, 0.04)
"""Least swing of lip gap, chin and mouth width in pixels of the crop, and of the blendshape jawOpen."""

_UPPER, _LOWER, _CHIN, _LEFT, _RIGHT, _NOSE_LEFT, _NOSE_RIGHT = (
    REGION_NAMES.index(name)
    for name in ("upper_lip", "lower_lip", "chin", "lip_corner_left", "lip_corner_right", "nose_left", "nose_right")
)


@dataclass(eq=False)
class _Zigzag:
    """One measure: the extremum of its last reversal, the one it moves towards, and the decaying count of reversals.

    `reached` is when the current extremum was reached, `left` when the one before was left.
    """

    floor: float
    low: float
    high: float
    left: Mark
    direction: int = 0
    origin: float = 0.0
    extremum: float = 0.0
    reached: Mark = NEVER
    level: float = 0.0
    moved_to: float = 0.0
    largest: float = 0.0

    @property
    def least(self) -> float:
        """Least swing that counts now."""
        return max(self.floor, SHARE * self.largest)

    def decay(self, elapsed: float) -> None:
        """Decays the count and the largest swing."""
        self.level *= math.exp(-elapsed / FADE_S)
        self.largest *= math.exp(-elapsed / LARGEST_S)

    def take(self, mark: Mark, value: float, *, silent: bool) -> Mark | None:
        """Takes the next value; counts a swing that is over and returns its start if it was clear."""
        if not self.direction:
            self._start(mark, value)
            return None
        start = None
        back = (self.extremum - value) * self.direction
        if back < 0:
            self.extremum, self.reached = value, mark
        elif back > self.least:
            start = None if silent else self._count(mark.t)
            self.origin, self.direction = self.extremum, -self.direction
            self.extremum, self.reached, self.left = value, mark, mark
        size = abs(value - self.origin)
        if size < self.least:
            self.left = mark
        self.largest = max(self.largest, size)
        return start

    def moves(self, value: float) -> bool:
        """Whether the measure has moved by more than its noise since this was last true."""
        if abs(value - self.moved_to) < self.floor:
            return False
        self.moved_to = value
        return True

    def _start(self, mark: Mark, value: float) -> None:
        self.low, self.high = min(self.low, value), max(self.high, value)
        if self.high - self.low <= self.least:
            self.left = mark
            return
        self.direction = 1 if value == self.high else -1
        self.origin = self.low if self.direction > 0 else self.high
        self.extremum, self.reached = value, mark

    def _count(self, now: float) -> Mark | None:
        size, took = abs(self.extremum - self.origin), self.reached.t - self.left.t
        quick = min(1.0, max(0.0, (SLOW_S - took) / (SLOW_S - QUICK_S)))
        counts = quick * min(1.0, size / (2 * self.least)) * math.exp((self.reached.t - now) / FADE_S)
        self.level += counts
        return self.left if counts > CLEAR else None


class Lips:
    """Follows the mouth of one face; `observe` takes its crops in order, without a gap.

    After each call `level` is the decaying count of reversals, `since` the start of the open speech, None while the face
    is silent, and `last` when its mouth last moved.
    """

    def __init__(self) -> None:
        self.level = 0.0
        self.since: Mark | None = None
        self.last = NEVER
        self._measures: list[_Zigzag] = []
        self._t = 0.0
        self._jaw_moves = False
        self._ended = -math.inf  # when the last speech ended
        self._swing_starts: deque[Mark] = deque(maxlen=64)

    def observe(self, crop: Crop, voice: float | None = None) -> tuple[Mark, Mark] | None:
        """Takes the next crop, with `Frame.voice`; returns start and end of a speech that is over."""
        motion, mark = crop.motion, crop.mark
        down = motion[:, 1].tolist()
        values = (
            down[_LOWER] - down[_UPPER],
            down[_CHIN] - (down[_NOSE_LEFT] + down[_NOSE_RIGHT]) / 2,
            float(motion[_RIGHT, 0] - motion[_LEFT, 0]),
            crop.blendshapes.get("jawOpen", 0.0),
        )
        if not self._measures:
            self._measures = [_Zigzag(least, v, v, mark) for least, v in zip(LEAST, values, strict=True)]
        elapsed, self._t = mark.t - self._t, mark.t
        silent = voice is not None and voice < VOICED
        for measure, value in zip(self._measures, values, strict=True):
            measure.decay(elapsed)
            start = measure.take(mark, value, silent=silent)
            if start is not None:
                self._swing_starts.append(start)
            continues = measure.moves(value) and not silent and mark.t - self.last.t < QUICK_S
            if start is not None or continues:  # after its last reversal the mouth still closes
                self.last = mark
        gap, chin, width, jaw = (measure.level for measure in self._measures)
        self.level = min(max(gap, jaw), max(chin, width))
        self._jaw_moves = "jawOpen" not in crop.blendshapes or self._measures[-1].largest >= JAW
        return self._decide(mark)

    def _decide(self, mark: Mark) -> tuple[Mark, Mark] | None:
        if self.since is None and self.level >= SPEAKS and self._jaw_moves:
            earliest = max(mark.t - REACH_S, self._ended)
            self.since = min((at for at in self._swing_starts if at.t >= earliest), key=lambda at: at.t, default=mark)
        elif self.since is not None and self.level < SILENT:
            return self.finish()
        return None

    def finish(self) -> tuple[Mark, Mark] | None:
        """Ends the open speech; returns its start and end."""
        spoken = None if self.since is None else (self.since, self.last)
        if spoken is not None:
            self._ended = spoken[1].t
        self.since = None
        self._swing_starts.clear()
        return spoken
