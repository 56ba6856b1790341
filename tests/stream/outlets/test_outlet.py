from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from engine.errors import BackendError, OutputError
from stream.outlets import outlet
from stream.outlets.outlet import Outlet
from stream.protocol import Message
from tests.live import PATIENCE_S
from tests.outlets import reaches, started


class Scripted(Outlet):
    """Its runs do what a test says, one after another; then it waits."""

    def __init__(self, *runs: Callable[[], None]) -> None:
        super().__init__("scripted", "nowhere")
        self._runs, self._woken = list(runs), threading.Event()

    def offer(self, message: Message) -> None:
        raise AssertionError("not used")

    def wake(self) -> None:
        self._woken.set()

    def run(self) -> None:
        if self._runs:
            self._runs.pop(0)()
        self.report("working", "all is well")
        assert self._woken.wait(PATIENCE_S)


def failing(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


@pytest.fixture(autouse=True)
def _retried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "RETRY_S", (0.01, 0.02))


def test_what_fails_is_tried_again_and_logged_once_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    runs = [failing(OutputError("no network")), failing(OutputError("no network")), failing(ValueError("a defect"))]
    with caplog.at_level(logging.INFO), started(Scripted(*runs)) as one:
        assert one.status.state in ("starting", "failing", "working")
        reaches(one, lambda now: now.state == "working", "success")
    shown = [record.getMessage() for record in caplog.records]
    assert shown == [
        "scripted: failing: no network; it is tried again",
        "scripted: failing: unexpected error (ValueError: a defect); it is tried again",
        "scripted: working: all is well",
    ]


def test_what_is_missing_for_good_is_not_tried_again() -> None:
    with started(Scripted(failing(BackendError("not installed")))) as one:
        reaches(one, lambda now: now.state == "off", "the end")
        assert one.join(PATIENCE_S) and one.status.detail == "not installed"


def test_it_ends_while_it_waits_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "RETRY_S", (1000.0, 1000.0))
    with started(Scripted(failing(OutputError("no network")))) as one:
        reaches(one, lambda now: now.state == "failing", "the failure")


def test_one_that_was_never_started_has_ended() -> None:
    one = Scripted()
    one.stop()
    assert one.join(0.0)


def test_one_that_does_not_end_is_not_waited_for() -> None:
    hangs = threading.Event()
    one = Scripted(lambda: hangs.wait() and None)
    one.start()
    one.stop()
    assert not one.join(0.01)
    hangs.set()
    assert one.join(PATIENCE_S)
