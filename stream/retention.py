"""When it is, for what must not happen because a clock was wrong for a while: removing old events.

    the wall clock    may be set, by hand or from the network, years off and back
    a steady clock    counts seconds and is set by nobody (that of the boot, which goes on in a suspended machine)

Their difference stands still while nobody sets the wall clock. Where it jumps, the wall clock is not believed until the
difference is what it was, or has stood still for CONFIRM_S.
"""

from __future__ import annotations

import time
from collections.abc import Callable

JUMP_S = 60.0
"""Between two looks, the most by which a clock that runs slow or fast is corrected."""
CONFIRM_S = 86_400.0
"""How long a clock that was set has to go on from there before it is believed."""
AWAY_S = 2 * 86_400.0
"""The longest that a service may have been away, by its newest event, for its clock to be believed at once."""


def steady_time() -> float:
    """Seconds of a clock that nobody sets and, where the system has one, that goes on while the machine is suspended."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class TrustedClock:
    """The wall clock as far as it can be believed; newest is when the newest event was stored, None where there is none.

    Unix seconds; to be asked at least once in a while, as a jump is seen between two looks.
    """

    def __init__(
        self, newest: float | None, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = steady_time
    ) -> None:
        self._wall, self._steady = wall, steady
        now, at = wall(), steady()
        self._believed = now - at if newest is None or -JUMP_S <= now - newest <= AWAY_S else None
        self._claimed, self._since = now - at, at

    def stamp(self) -> float:
        """Unix seconds for what is stored now; while the wall clock is not believed, as it went on before it was set."""
        wall, steady = self._wall(), self._steady()
        if self._believed is None or abs(wall - steady - self._believed) <= JUMP_S:
            return wall
        return self._believed + steady

    def now(self) -> float | None:
        """Unix seconds; None while the wall clock is not believed."""
        wall, steady = self._wall(), self._steady()
        offset = wall - steady
        if self._believed is None or abs(offset - self._believed) > JUMP_S:
            if abs(offset - self._claimed) > JUMP_S:
                self._since = steady  # set just now, or set again
            self._claimed = offset
            if steady - self._since < CONFIRM_S:
                return None
        self._believed = self._claimed = offset
        return wall
