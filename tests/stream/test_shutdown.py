from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stream.shutdown import EXIT_INTERRUPTED, HUNG_S, LIMIT_S, SHUTDOWN_SIGNALS, GracefulShutdown, signals_blocked
from tests.live import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


def send(number: int) -> None:
    """Send a signal to this process; it has been handled when this returns."""
    signal.raise_signal(number)


@pytest.mark.parametrize("number", SHUTDOWN_SIGNALS)
def test_the_first_signal_starts_the_shutdown_and_a_second_ctrl_c_exits(number: signal.Signals) -> None:
    called, left = [], list[int]()
    before = {each: signal.getsignal(each) for each in SHUTDOWN_SIGNALS}
    with GracefulShutdown(limit_s=None, leave=left.append) as shutdown:
        shutdown.on_signal(lambda: called.append(number))
        send(number)
        send(signal.SIGTERM)
        assert (called, left) == ([number], [])
        send(signal.SIGINT)
        assert (called, left) == ([number], [EXIT_INTERRUPTED])
    assert {each: signal.getsignal(each) for each in SHUTDOWN_SIGNALS} == before


def test_a_signal_before_the_callback_is_not_lost() -> None:
    called = []
    with GracefulShutdown(limit_s=None) as shutdown:
        send(signal.SIGTERM)
        shutdown.on_signal(lambda: called.append(True))
    assert called == [True]


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulShutdown(limit_s=None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_shutdown_that_takes_too_long_is_cut_off_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    gone, left = threading.Event(), list[int]()

    def leave(code: int) -> None:
        left.append(code)
        gone.set()

    with GracefulShutdown(limit_s=0.05, leave=leave):
        send(signal.SIGTERM)
        assert gone.wait(PATIENCE_S)
    assert left == [1] and "not everything has ended within" in caplog.text
    assert LIMIT_S + HUNG_S < 5


def test_a_shutdown_in_time_is_not_cut_off() -> None:
    left = list[int]()
    with GracefulShutdown(limit_s=PATIENCE_S, leave=left.append) as shutdown:
        send(signal.SIGTERM)
    assert shutdown._timer is not None
    shutdown._timer.join(PATIENCE_S)
    assert not left


@pytest.mark.parametrize("limit_s", [PATIENCE_S, None])
def test_it_works_while_no_descriptor_is_free(limit_s: float | None) -> None:
    called, left = [], list[int]()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with GracefulShutdown(limit_s=limit_s, leave=left.append) as shutdown:
        shutdown.on_signal(lambda: called.append(True))
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
            with pytest.raises(OSError, match="Too many open files"):
                os.open(os.devnull, os.O_RDONLY)
            send(signal.SIGTERM)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (called, left) == ([True], [])


def test_it_works_while_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    called = []
    with GracefulShutdown(limit_s=PATIENCE_S) as shutdown:
        shutdown.on_signal(lambda: called.append(True))
        with monkeypatch.context() as crowded:
            crowded.setattr(threading.Thread, "start", refuse)
            send(signal.SIGTERM)
    assert called == [True] and "can't start new thread" in caplog.text


def test_a_process_in_which_no_python_runs_exits_too() -> None:
    """As where a library hangs in a call while it holds Python's lock."""
    script = """
import ctypes, os, signal
from stream.shutdown import GracefulShutdown
with GracefulShutdown(limit_s=0.1) as shutdown:
    os.kill(os.getpid(), signal.SIGTERM)
    ctypes.PyDLL(None).pause()
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=dict(os.environ), timeout=PATIENCE_S, check=False)
    assert ended.returncode == 1


def test_a_process_is_started_with_signals_blocked() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    asking = [sys.executable, "-c", "import signal; print(*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))"]
    with signals_blocked():
        found = subprocess.run(asking, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert {*SHUTDOWN_SIGNALS} <= {*map(int, found.split())}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
