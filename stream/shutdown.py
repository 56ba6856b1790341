"""How a process ends: in order and within a bound at the first signal, at once at a second Ctrl-C.

    SIGINT, SIGTERM, SIGHUP   what is open is ended in order, exit code 0
    a second SIGINT           the process is gone at once, exit code 130; what was stored stays
    no end within LIMIT_S     the process is gone, exit code 1

A process that was started with SIGHUP ignored (nohup) goes on ignoring it.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, NoReturn, Self

log = logging.getLogger(__name__)

LIMIT_S = 4.3
"""In which the process ends in order; then it is left as it is."""
LAST_S = 0.4
"""Later than that, what ends a process in which no Python thread gets to run any more."""
AT_ONCE = 130
"""Exit code after a second Ctrl-C: 128 and the number of SIGINT, as a shell has it."""

ENDED_BY = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Ending:
    """Hears the signals that end a process while its block runs; to be entered on the main thread.

    limit_s: how long the end may take once a signal came, None: as long as it takes. leave is what ends the process at once.
    """

    def __init__(self, *, limit_s: float | None = LIMIT_S, leave: Callable[[int], None] | None = None) -> None:
        self._limit_s, self._leave = limit_s, leave or left_at_once
        self._act: Callable[[], object] | None = None
        self._begun = False
        self._before: dict[int, Any] = {}
        self._late: threading.Timer | None = None
        self._nowhere: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self._limit_s is not None:
            self._nowhere = Path(os.devnull).open("wb")  # at a signal no descriptor may be free
        hang_up = getattr(signal, "SIGHUP", None)
        for number in ENDED_BY:
            if number == hang_up and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._late is not None:
            self._late.cancel()
        if self._nowhere is not None:
            faulthandler.cancel_dump_traceback_later()
            self._nowhere.close()

    def on_end(self, act: Callable[[], object]) -> None:
        """Have act called, on the main thread, at the first signal; at once where that has come already."""
        self._act = act
        if self._begun:
            act()

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self._begun:
            if number == signal.SIGINT:
                self._leave(AT_ONCE)
            return
        self._begun = True
        if self._limit_s is not None and self._nowhere is not None:
            self._bound(self._limit_s, self._nowhere)
        if self._act is not None:
            self._act()

    def _bound(self, limit_s: float, nowhere: IO[bytes]) -> None:
        late = threading.Timer(limit_s, self._too_late)
        late.daemon = True
        try:
            faulthandler.dump_traceback_later(limit_s + LAST_S, exit=True, file=nowhere)  # needs no Python to run
            late.start()
        except (OSError, RuntimeError) as error:  # no thread can be started; the end itself needs none
            log.warning("the time of the end is not bounded: %s", error)
        else:
            self._late = late

    def _too_late(self) -> None:
        log.error("not everything has ended within %.1f s; the process is left as it is", self._limit_s)
        self._leave(1)


def left_at_once(code: int) -> NoReturn:
    """End the process now; what was printed is shown."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, broken, or in the middle of a line: nobody is left to hear of it
            stream.flush()
    os._exit(code)


def left_in_order(code: int) -> NoReturn:
    """End the process as the interpreter would, but for taking it down while libraries' threads still run in it.

    A thread that waits in a library (for a camera that does not answer) wakes up in what is left of the interpreter then, and
    the process dies of SIGSEGV or SIGABRT. What was registered to be done at the end is done.
    """
    for number in ENDED_BY:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    left_at_once(code)
