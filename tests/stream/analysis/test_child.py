from __future__ import annotations

import io
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from engine.errors import ConfigError, InputError, WeightsError
from engine.types import Activity, Event, Mark
from stream.analysis.child import (
    FLUSH_S,
    MAX_ACTIVITIES,
    MAX_EVIDENCE,
    MAX_SIGNALS,
    Message,
    Outbox,
    ProcessConfig,
    receive,
    send,
)
from stream.analysis.worker_process import CHILD
from stream.messages import Acted, Decided, FaceTrace, Preview, Signal, SourceStatus, WantedPreview
from stream.settings import LiveSettings
from stream.sources.settings import SourceSettings
from tests.blinking import PATTERN, Blinking, Unsendable, no_network, printing, unforeseen
from tests.events import an_event, evidence
from tests.live import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]

NOT_NEEDED = {
    "websockets",
    "prometheus_client",
    "sqlite3",
    "torch",
    "typer",
    "rich",
    "stream.server.server",
    "stream.events.hub",
    "tools",
}
"""What the service and its command line need, and a worker process does not."""


def decided(number: int, **changes: Any) -> Decided:
    return Decided(an_event(number, **changes), 1.0)


def acted(stream: str, t: float) -> Acted:
    return Acted(stream, Activity(0, "blink", Mark(0, t), Mark(3, t + 0.1)))


def signal_of(stream: str, t: float) -> Signal:
    return Signal(stream, t, t, (FaceTrace(0, (t,), (0.5,), (0.1,)),))


# --- messages that wait to be sent ------------------------------------------------------------------------------------------


def test_messages_are_taken_in_the_order_in_which_they_were_put() -> None:
    outbox = sink = Outbox()
    status = SourceStatus("a", "rtsp", "live")
    sink.status(status)
    sink.decided([decided(0)])
    sink.removed("a")
    assert outbox.take() == [("status", status), ("decided", (decided(0),)), ("removed", "a")]


def test_for_a_slow_reader_old_pictures_are_dropped_and_no_event() -> None:
    outbox = sink = Outbox()
    for number in range(100):
        sink.decided([decided(number, evidence=evidence())])
        sink.signal(signal_of("a", number))
        sink.activity(acted("a", number))
        sink.activity(acted("a", number + 0.5))
        sink.preview(Preview("a", {}, bytes([number])))
        sink.status(SourceStatus("a", "rtsp", "live" if number % 2 else "stalled", frames=number))
    sink.signal(signal_of("b", 0.0))
    taken = outbox.take()
    assert taken is not None

    def values(name: str) -> list[Any]:
        return [value for what, value in taken if what == name]

    assert [one.event.id for (one,) in values("decided")] == [decided(number).event.id for number in range(100)]
    assert [one.t for one in values("signal") if one.stream == "a"] == [*map(float, range(100 - MAX_SIGNALS, 100))]
    assert [one.stream for one in values("signal")].count("b") == 1, "of each stream so many"
    assert [one.activity.start.t for one in values("activity")] == [50 + k / 2 for k in range(MAX_ACTIVITIES)]
    assert [one.jpeg for one in values("preview")] == [bytes([99])]
    assert [one.event.evidence is not None for (one,) in values("decided")] == [False] * (100 - MAX_EVIDENCE) + [
        True
    ] * MAX_EVIDENCE
    assert [(one.state, one.frames) for one in values("status")] == [("stalled", 98), ("live", 99)], "of each state the newest"


def test_figures_go_with_the_next_message() -> None:
    outbox, taken = Outbox(), list[list[Message] | None]()
    reader = threading.Thread(target=lambda: taken.append(outbox.take()))
    reader.start()
    outbox.processed("a", 0.01, 2)
    outbox.processed("a", 0.02, 1)
    assert not taken, "they do not make a message of their own"
    outbox.put("removed", "a")
    reader.join(PATIENCE_S)
    assert taken == [[("removed", "a"), ("processed", (("a", 0.01, 2), ("a", 0.02, 1)))]]


def test_a_closed_outbox_returns_the_last_messages_and_then_none() -> None:
    outbox = Outbox()
    outbox.put("removed", "a")
    outbox.close()
    assert outbox.take() == [("removed", "a")]
    assert outbox.take() is None


def test_previews_asked_for_are_those_received_last() -> None:
    sink = Outbox()
    assert sink.wanted_preview("a") is None
    sink.wanted_previews = {"a": WantedPreview(320, 5.0)}
    assert sink.wanted_preview("a") == WantedPreview(320, 5.0) and sink.wanted_preview("b") is None


def test_a_truncated_message_is_the_end() -> None:
    whole = io.BytesIO()
    send([("removed", "a" * 100)], whole)
    assert receive(io.BytesIO(whole.getvalue())) == [("removed", "a" * 100)]
    for length in (0, 1, 20, len(whole.getvalue()) - 1):
        with pytest.raises(EOFError):
            receive(io.BytesIO(whole.getvalue()[:length]))


# --- a process of its own ---------------------------------------------------------------------------------------------------


class Child:
    """A worker process, used as `stream.analysis.worker_process` does."""

    def __init__(self, config: ProcessConfig) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.to: IO[bytes] = self.process.stdin
        self.of: IO[bytes] = self.process.stdout
        self.received: list[Message] = []
        send(sys.path, self.to)
        send(config, self.to)

    def until(self, enough: Callable[[list[Message]], Any]) -> Any:
        """What `enough` finds in the messages received until then. Raises EOFError when the process sends no more."""
        while not (found := enough(self.received)):
            self.received += receive(self.of)
        return found

    def rest(self) -> None:
        """Receive the remaining messages."""
        with pytest.raises(EOFError):
            self.until(lambda received: False)

    def events(self) -> list[Event]:
        return [one.event for what, value in self.received if what == "decided" for one in value]


def config(make: Any = Blinking, **source: Any) -> ProcessConfig:
    settings = LiveSettings(sources=(SourceSettings(**{"url": PATTERN, "name": "a", **source}),))
    return ProcessConfig(settings, "session", make, logging.INFO, 0.001)


@pytest.fixture
def start() -> Iterator[Callable[[ProcessConfig], Child]]:
    """Starts processes, which are killed after the test."""
    started: list[Child] = []

    def start(config: ProcessConfig) -> Child:
        started.append(Child(config))
        return started[-1]

    yield start
    for child in started:
        child.process.kill()
        with child.process:  # which closes its pipes
            pass


def loaded(messages: list[Message]) -> list[Any]:
    return [value for what, value in messages if what == "loaded"]


def a_provisional(messages: list[Message]) -> bool:
    return any(one.event.state == "provisional" for what, value in messages if what == "decided" for one in value)


def test_it_runs_until_asked_to_end_and_ignores_signals(start: Callable[[ProcessConfig], Child]) -> None:
    child = start(config())
    child.until(a_provisional)
    assert loaded(child.received) == [None]
    child.process.send_signal(signal.SIGTERM)
    child.process.send_signal(signal.SIGINT)
    before = len(child.received)
    child.until(lambda messages: len(messages) > before + 20)
    send(2.0, child.to)
    child.rest()
    assert child.process.wait(PATIENCE_S) == 0
    events = child.events()
    assert events[-1].state == "final", "the open event was flushed"
    assert all(event.id.startswith("session.1/a/") for event in events)
    statuses = [value.state for what, value in child.received if what == "status"]
    assert statuses[0] == "starting" and statuses[-1] == "ended"


def test_its_last_messages_wait_for_a_slow_reader_while_there_is_time(start: Callable[[ProcessConfig], Child]) -> None:
    child = start(config())
    child.until(a_provisional)
    send(PATIENCE_S, child.to)
    with pytest.raises(subprocess.TimeoutExpired):
        child.process.wait(3 * FLUSH_S)
    child.rest()
    assert child.process.wait(PATIENCE_S) == 0
    assert child.events()[-1].state == "final", "what was open is not lost"


def test_it_exits_when_the_other_process_is_gone(start: Callable[[ProcessConfig], Child]) -> None:
    child = start(config())
    child.until(a_provisional)
    child.to.close()
    assert child.process.wait(PATIENCE_S) == 1


def test_previews_are_sent_while_they_are_asked_for(start: Callable[[ProcessConfig], Child]) -> None:
    child = start(config())
    child.until(a_provisional)
    assert not any(what == "preview" for what, _ in child.received)
    send({"a": WantedPreview(64, 20.0)}, child.to)
    shown = child.until(lambda messages: [value for what, value in messages if what == "preview"])
    assert shown[0].stream == "a" and shown[0].jpeg.startswith(b"\xff\xd8")


def test_prints_go_to_standard_error_and_log_records_are_sent(start: Callable[[ProcessConfig], Child]) -> None:
    child = start(config(printing))
    child.until(a_provisional)
    records = [value for what, value in child.received if what == "log" and value.name == "printing"]
    assert [(record.levelname, record.getMessage()) for record in records] == [("WARNING", "a was printed")]
    child.process.kill()
    assert child.process.stderr is not None
    assert child.process.stderr.read() == b"a is here\nso it is\n"


def test_prints_during_imports_go_to_standard_error_too(
    start: Callable[[ProcessConfig], Child], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = "import sys; print('uuid is here', flush=True); sys.path.pop(0); del sys.modules['uuid']; import uuid"
    (tmp_path / "uuid.py").write_text(shown, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    child = start(config())
    child.until(a_provisional)
    child.process.kill()
    assert child.process.stderr is not None
    assert child.process.stderr.read() == b"uuid is here\n"


def test_a_process_that_cannot_send_exits_with_a_traceback(start: Callable[[ProcessConfig], Child]) -> None:
    child = start(config(Unsendable))
    child.rest()
    assert child.process.wait(PATIENCE_S) == 1
    assert child.process.stderr is not None
    assert b"cannot pickle '_thread.lock' object" in child.process.stderr.read()


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (config(no_network), WeightsError, "no network for a"),
        (config(unforeseen), InputError, "ZeroDivisionError: an unexpected error"),
        (config(password_env="NOT_THERE"), ConfigError, "NOT_THERE"),
    ],
)
def test_what_prevents_the_analysis_is_reported(
    given: ProcessConfig, kind: type[Exception], message: str, start: Callable[[ProcessConfig], Child]
) -> None:
    child = start(given)
    [error] = child.until(loaded)
    assert type(error) is kind and message in str(error)


def test_it_loads_nothing_that_only_the_service_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, stream.analysis.child; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    found = set(done.stdout.split())
    assert "stream.analysis.session" in found
    assert not found & NOT_NEEDED
