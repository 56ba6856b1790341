"""A clock for retention, which must not remove events because the machine's clock was wrong for a while.

    wall clock      may be set, by hand or from the network, years off and back
    steady clock    counts seconds since the boot and cannot be set; goes on while the machine is suspended

Their difference is constant until the wall clock is set. Where it jumps, the wall clock is not trusted until the difference is
back, or has been constant for CONFIRM_S of running. How much of that has passed may be stored for the next run, so that a
service that runs a few hours a week gets there, too.

A machine without a battery for its clock (a Raspberry Pi) is behind until the network has set it, soon after the start. Time
stamps then follow the wall clock at once where it fits the newest event.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

JUMP_S = 60.0
"""The most by which a slow or fast clock is corrected between two readings; more is a jump."""
CONFIRM_S = 86_400.0
"""How long a clock that was set must run without a jump before it is trusted."""
AWAY_S = 2 * 86_400.0
"""The longest time since the newest event for which the clock is trusted at the start."""
CONTINUED_S = 31 * 86_400.0
"""The longest time since the last run for which waiting (`Waited`) continues."""
SETTLED_S = 600.0
"""Time from the start of the service in which the network may set a clock that was wrong when the machine was switched on."""


class Waited(NamedTuple):
    """Seconds for which a clock that is not trusted yet has run without a jump, and its last reading (Unix seconds)."""

    seen: float
    seconds: float


def steady_time() -> float:
    """Seconds of a clock that cannot be set and that goes on while the machine is suspended.

    That is CLOCK_BOOTTIME on Linux and CLOCK_MONOTONIC on macOS, where `time.monotonic` stops meanwhile.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class TrustedClock:
    """The wall clock as far as it can be trusted; newest is when the newest event was stored, None where there is none.

    waited is what `waited` returned in the run before. Unix seconds. To be read regularly: a jump is found between two
    readings. reason says why the clock was last not trusted.
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
        self._started = at
        self._trusted_offset = now - at if newest is None or self._away(now, AWAY_S) else None
        self._stamp_offset = self._trusted_offset
        self._offset, self._since, self._carried = now - at, at, self._continued(now)
        self.reason = "" if newest is None else f"by the clock of this machine the newest event is {_distance(now - newest)}"

    def stamp(self) -> float:
        """Unix seconds for what is stored now; counted from before the jump where the wall clock is not trusted."""
        wall, steady = self._read()
        if self._stamp_offset is None or abs(wall - steady - self._stamp_offset) <= JUMP_S:
            return wall
        return self._stamp_offset + steady

    def now(self) -> float | None:
        """Unix seconds; None while the wall clock is not trusted."""
        wall, steady = self._read()
        offset = wall - steady
        if self._trusted_offset is None or abs(offset - self._trusted_offset) > JUMP_S:
            if self._carried + steady - self._since < CONFIRM_S:
                return None
            self._kept = None
        self._trusted_offset = self._stamp_offset = offset
        self._carried, self._since = 0.0, steady
        return wall

    def waited(self) -> Waited | None:
        """What to store for the next run; None while the clock is trusted."""
        if self.now() is not None:
            return None
        wall, steady = self._read()
        return Waited(wall, self._carried + steady - self._since)

    def _read(self) -> tuple[float, float]:
        """Both clocks; notes a jump."""
        wall, steady = self._wall(), self._steady()
        if abs(wall - steady - self._offset) > JUMP_S:
            self._note_jump(wall, steady)
        self._offset = wall - steady
        return wall, steady

    def _note_jump(self, wall: float, steady: float) -> None:
        self.reason = "the clock of this machine was set"
        self._since, self._carried = steady, 0.0
        if self._trusted_offset is not None and abs(wall - steady - self._trusted_offset) <= JUMP_S:
            self._stamp_offset = self._trusted_offset  # the clock was set back
            return
        if steady - self._started > SETTLED_S:
            return
        self._carried = self._continued(wall)
        if self._newest is None or self._away(wall, CONTINUED_S):
            self._stamp_offset = wall - steady
        if self._newest is not None and self._away(wall, AWAY_S):
            self._trusted_offset = wall - steady

    def _away(self, now: float, longest: float) -> bool:
        return self._newest is not None and -JUMP_S <= now - self._newest <= longest

    def _continued(self, now: float) -> float:
        """Seconds for which this clock has run without a jump in earlier runs."""
        kept = self._kept
        return kept.seconds if kept is not None and -JUMP_S <= now - kept.seen <= CONTINUED_S else 0.0


def _distance(seconds: float) -> str:
    return f"{seconds / 86_400:.0f} days old" if seconds > 0 else f"{-seconds / 86_400:.1f} days ahead"
