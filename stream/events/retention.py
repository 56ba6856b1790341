"""When it is, for what must not happen because a clock was wrong for a while: removing old events.

    the wall clock    may be set, by hand or from the network, years off and back
    a steady clock    counts seconds and is set by nobody (that of the boot, which goes on in a suspended machine)

Their difference stands still while nobody sets the wall clock. Where it jumps, the wall clock is not believed until the
difference is what it was, or has stood still for CONFIRM_S of running. How much of that has passed may be kept for the next
run, so that a service that runs for hours a week gets there, too.

A machine without a battery for its clock (a Raspberry Pi) is behind until the network has set it, soon after the start. What is
stored then follows the wall clock at once where that fits the newest event.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

JUMP_S = 60.0
"""Between two looks, the most by which a clock that runs slow or fast is corrected."""
CONFIRM_S = 86_400.0
"""How long a clock that was set has to go on from there before it is believed."""
AWAY_S = 2 * 86_400.0
"""The longest that a service may have been away, by its newest event, for its clock to be believed at once."""
CONTINUED_S = 31 * 86_400.0
"""The longest that it may have been away for a clock to be taken for the one that went on in its last run."""
SETTLED_S = 600.0
"""From the start of the service, in which the network sets a clock that was wrong when the machine was switched on."""


class Waited(NamedTuple):
    """Seconds of running for which a clock that is not believed yet has gone on, and what it said last (Unix seconds)."""

    seen: float
    seconds: float


def steady_time() -> float:
    """Seconds of a clock that nobody sets and that goes on while the machine is suspended.

    On Linux that is CLOCK_BOOTTIME, on macOS CLOCK_MONOTONIC, where `time.monotonic` stands still meanwhile.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class TrustedClock:
    """The wall clock as far as it can be believed; newest is when the newest event was stored, None where there is none.

    waited: what another run left of `waited`. Unix seconds; to be asked at least once in a while, as a jump is seen between two
    looks. reason says why the clock was not believed last.
    """

    def __init__(
        self,
        newest: float | None,
        waited: Waited | None = None,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady_time,
    ) -> None:
        self._wall, self._steady = wall, steady
        self._newest, self._kept = newest, waited
        now, at = wall(), steady()
        self._began = at
        self._believed = now - at if newest is None or self._away(now, AWAY_S) else None
        self._stamped = self._believed
        self._claimed, self._since, self._carried = now - at, at, self._continued(now)
        self.reason = "" if newest is None else f"by the clock of this machine the newest event is {_distance(now - newest)}"

    def stamp(self) -> float:
        """Unix seconds for what is stored now; where the wall clock was set and is not believed, as it went on before."""
        wall, steady = self._look()
        if self._stamped is None or abs(wall - steady - self._stamped) <= JUMP_S:
            return wall
        return self._stamped + steady

    def now(self) -> float | None:
        """Unix seconds; None while the wall clock is not believed."""
        wall, steady = self._look()
        offset = wall - steady
        if self._believed is None or abs(offset - self._believed) > JUMP_S:
            if self._carried + steady - self._since < CONFIRM_S:
                return None
            self._kept = None
        self._believed = self._stamped = offset
        self._carried, self._since = 0.0, steady
        return wall

    def waited(self) -> Waited | None:
        """What to keep for the next run; None while the clock is believed."""
        if self.now() is not None:
            return None
        wall, steady = self._look()
        return Waited(wall, self._carried + steady - self._since)

    def _look(self) -> tuple[float, float]:
        """Both clocks, a jump noticed."""
        wall, steady = self._wall(), self._steady()
        if abs(wall - steady - self._claimed) > JUMP_S:
            self._was_set(wall, steady)
        self._claimed = wall - steady
        return wall, steady

    def _was_set(self, wall: float, steady: float) -> None:
        self.reason = "the clock of this machine was set"
        self._since, self._carried = steady, 0.0
        if self._believed is not None and abs(wall - steady - self._believed) <= JUMP_S:
            self._stamped = self._believed  # it is back
            return
        if steady - self._began > SETTLED_S:
            return
        self._carried = self._continued(wall)
        if self._newest is None or self._away(wall, CONTINUED_S):
            self._stamped = wall - steady
        if self._newest is not None and self._away(wall, AWAY_S):
            self._believed = wall - steady

    def _away(self, now: float, longest: float) -> bool:
        return self._newest is not None and -JUMP_S <= now - self._newest <= longest

    def _continued(self, now: float) -> float:
        """Seconds for which this clock has gone on in runs before."""
        kept = self._kept
        return kept.seconds if kept is not None and -JUMP_S <= now - kept.seen <= CONTINUED_S else 0.0


def _distance(seconds: float) -> str:
    return f"{seconds / 86_400:.0f} days old" if seconds > 0 else f"{-seconds / 86_400:.1f} days ahead"
