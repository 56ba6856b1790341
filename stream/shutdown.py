"""Shutdown of a process: graceful and within a time limit at the first signal, immediate at a second Ctrl-C.

    SIGINT, SIGTERM, SIGHUP   graceful shutdown, exit code 0
    a second SIGINT           immediate exit, exit code 130; what was stored stays
    longer than LIMIT_S       immediate exit, exit code 1

A process that was started with SIGHUP ignored (nohup) keeps ignoring it.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, NoReturn, Self

log = logging.getLogger(__name__)

LIMIT_S = 4.3
"""Time limit of a graceful shutdown, seconds; after it the process exits."""
HUNG_S = 0.4
"""Seconds after LIMIT_S at which a process exits in which no Python thread gets to run any more."""
EXIT_INTERRUPTED = 130
"""Exit code after a second Ctrl-C: 128 plus the number of SIGINT, as in shells."""

SHUTDOWN_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """A process started inside has the signals that end a process blocked from its start."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SHUTDOWN_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class GracefulShutdown:
    """A context, entered on the main thread, that handles the signals that end a process.

    limit_s is the time limit in seconds from the first signal, None for no limit; leave exits the process immediately.
    """

    def __init__(self, *, limit_s: float | None = LIMIT_S, leave: Callable[[int], None] | None = None) -> None:
        self._limit_s, self._leave = limit_s, leave or exit_now
        self._callback: Callable[[], object] | None = None
        self._started = False
        self._handlers: dict[int, Any] = {}
        self._timer: threading.Timer | None = None
        self._devnull: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self._limit_s is not None:
            self._devnull = Path(os.devnull).open("wb")  # opened now, as no descriptor may be free at a signal
        sighup = getattr(signal, "SIGHUP", None)
        for number in SHUTDOWN_SIGNALS:
            if number == sighup and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._timer is not None:
            self._timer.cancel()
        if self._devnull is not None:
            faulthandler.cancel_dump_traceback_later()
            self._devnull.close()

    def on_signal(self, callback: Callable[[], object]) -> None:
        """Call callback, on the main thread, at the first signal; immediately where that has come already."""
        self._callback = callback
        if self._started:
            callback()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._started:
            if number == signal.SIGINT:
                self._leave(EXIT_INTERRUPTED)
            return
        self._started = True
        if self._limit_s is not None and self._devnull is not None:
            self._start_timer(self._limit_s, self._devnull)
        if self._callback is not None:
            self._callback()

    def _start_timer(self, limit_s: float, devnull: IO[bytes]) -> None:
        timer = threading.Timer(limit_s, self._timed_out)
        timer.daemon = True
        try:
            faulthandler.dump_traceback_later(limit_s + HUNG_S, exit=True, file=devnull)  # works while Python does not run
            timer.start()
        except (OSError, RuntimeError) as error:  # no thread can be started; the shutdown itself needs none
            log.warning("the shutdown has no time limit: %s", error)
        else:
            self._timer = timer

    def _timed_out(self) -> None:
        log.error("not everything has ended within %.1f s; the process exits all the same", self._limit_s)
        self._leave(1)


def exit_now(code: int) -> NoReturn:
    """Exit the process immediately; what was printed is flushed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, broken, or in use by another thread
            stream.flush()
    os._exit(code)


def exit_after_cleanup(code: int) -> NoReturn:
    """Run the functions registered with `atexit`, then exit the process without finalizing the interpreter.

    A thread that waits in a library (for a camera that does not answer) would wake up in a finalized interpreter, and the
    process would die of SIGSEGV or SIGABRT.
    """
    for number in SHUTDOWN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    exit_now(code)
