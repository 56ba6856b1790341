from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stream.shutdown import EXIT_INTERRUPTED, HUNG_S, LIMIT_S, SHUTDOWN_SIGNALS, GracefulShutdown
from tests.live import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


def sent(number: int) -> None:
    """Have this process hear a signal; it has been handled when this returns."""
    signal.raise_signal(number)


@pytest.mark.parametrize("number", SHUTDOWN_SIGNALS)
def test_the_first_signal_begins_the_end_and_a_second_ctrl_c_is_the_end(number: signal.Signals) -> None:
    begun, left = [], list[int]()
    before = {each: signal.getsignal(each) for each in SHUTDOWN_SIGNALS}
    with GracefulShutdown(limit_s=None, leave=left.append) as shutdown:
        shutdown.on_signal(lambda: begun.append(number))
        sent(number)
        sent(signal.SIGTERM)
        assert (begun, left) == ([number], [])
        sent(signal.SIGINT)
        assert (begun, left) == ([number], [EXIT_INTERRUPTED])
    assert {each: signal.getsignal(each) for each in SHUTDOWN_SIGNALS} == before


def test_a_signal_that_came_early_is_not_forgotten() -> None:
    begun = []
    with GracefulShutdown(limit_s=None) as shutdown:
        sent(signal.SIGTERM)
        shutdown.on_signal(lambda: begun.append(True))
    assert begun == [True]


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulShutdown(limit_s=None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_end_that_takes_too_long_is_cut_off_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    gone, left = threading.Event(), list[int]()

    def leave(code: int) -> None:
        left.append(code)
        gone.set()

    with GracefulShutdown(limit_s=0.05, leave=leave):
        sent(signal.SIGTERM)
        assert gone.wait(PATIENCE_S)
    assert left == [1] and "not everything has ended within" in caplog.text
    assert LIMIT_S + HUNG_S < 5


def test_an_end_in_time_is_not_cut_off() -> None:
    left = list[int]()
    with GracefulShutdown(limit_s=PATIENCE_S, leave=left.append) as shutdown:
        sent(signal.SIGTERM)
    assert shutdown._timer is not None
    shutdown._timer.join(PATIENCE_S)
    assert not left


@pytest.mark.parametrize("limit_s", [PATIENCE_S, None])
def test_it_ends_in_order_though_no_descriptor_is_free(limit_s: float | None) -> None:
    begun, left = [], list[int]()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with GracefulShutdown(limit_s=limit_s, leave=left.append) as shutdown:
        shutdown.on_signal(lambda: begun.append(True))
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
            with pytest.raises(OSError, match="Too many open files"):
                os.open(os.devnull, os.O_RDONLY)
            sent(signal.SIGTERM)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (begun, left) == ([True], [])


def test_it_ends_in_order_though_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    begun = []
    with GracefulShutdown(limit_s=PATIENCE_S) as shutdown:
        shutdown.on_signal(lambda: begun.append(True))
        with monkeypatch.context() as crowded:
            crowded.setattr(threading.Thread, "start", refuse)
            sent(signal.SIGTERM)
    assert begun == [True] and "can't start new thread" in caplog.text


def test_a_process_in_which_python_does_not_run_any_more_ends_too() -> None:
    """A library that keeps Python's lock, as one does that hangs in the middle of a call."""
    script = """
import ctypes, os, signal
from stream.shutdown import GracefulShutdown
with GracefulShutdown(limit_s=0.1) as shutdown:
    os.kill(os.getpid(), signal.SIGTERM)
    ctypes.PyDLL(None).pause()
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=dict(os.environ), timeout=PATIENCE_S, check=False)
    assert ended.returncode == 1
