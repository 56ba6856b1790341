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
from stream.analysis.child import ACTIVITIES, EVIDENCES, SIGNALS, Message, Orders, Outbox, Outgoing, hear, say
from stream.analysis.worker_process import CHILD
from stream.messages import Acted, Decided, FaceTrace, Preview, PreviewWish, Signal, SourceStatus
from stream.settings import LiveSettings, SourceSettings
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
"""What the service and its command line need, and no process of the sources."""


def decided(number: int, **changes: Any) -> Decided:
    return Decided(an_event(number, **changes), 1.0)


def acted(stream: str, t: float) -> Acted:
    return Acted(stream, Activity(0, "blink", Mark(0, t), Mark(3, t + 0.1)))


def signal_of(stream: str, t: float) -> Signal:
    return Signal(stream, t, t, (FaceTrace(0, (t,), (0.5,), (0.1,)),))


# --- what waits to be sent --------------------------------------------------------------------------------------------------


def test_messages_are_taken_in_the_order_in_which_they_came() -> None:
    outbox = Outbox()
    sink = Outgoing(outbox)
    status = SourceStatus("a", "rtsp", "live")
    sink.status(status)
    sink.decided([decided(0)])
    sink.removed("a")
    assert outbox.take() == [("status", status), ("decided", (decided(0),)), ("removed", "a")]


def test_a_slow_reader_misses_old_pictures_and_no_event() -> None:
    outbox = Outbox()
    sink = Outgoing(outbox)
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
    assert [one.t for one in values("signal") if one.stream == "a"] == [*map(float, range(100 - SIGNALS, 100))]
    assert [one.stream for one in values("signal")].count("b") == 1, "of each stream so many"
    assert [one.activity.start.t for one in values("activity")] == [50 + k / 2 for k in range(ACTIVITIES)]
    assert [one.jpeg for one in values("preview")] == [bytes([99])]
    assert [one.event.evidence is not None for (one,) in values("decided")] == [False] * (100 - EVIDENCES) + [True] * EVIDENCES
    assert [(one.state, one.frames) for one in values("status")] == [("stalled", 98), ("live", 99)], "of each state the newest"


def test_figures_go_with_the_next_message() -> None:
    outbox, taken = Outbox(), list[list[Message] | None]()
    reader = threading.Thread(target=lambda: taken.append(outbox.take()))
    reader.start()
    outbox.processed("a", 0.01, 2)
    outbox.processed("a", 0.02, 1)
    assert not taken, "they are not worth a message of their own"
    outbox.put("removed", "a")
    reader.join(PATIENCE_S)
    assert taken == [[("removed", "a"), ("processed", (("a", 0.01, 2), ("a", 0.02, 1)))]]


def test_a_closed_outbox_gives_what_is_left_and_then_nothing() -> None:
    outbox = Outbox()
    outbox.put("removed", "a")
    outbox.close()
    assert outbox.take() == [("removed", "a")]
    assert outbox.take() is None


def test_pictures_asked_for_are_those_told_last() -> None:
    sink = Outgoing(Outbox())
    assert sink.preview_wish("a") is None
    sink.wishes = {"a": PreviewWish(320, 5.0)}
    assert sink.preview_wish("a") == PreviewWish(320, 5.0) and sink.preview_wish("b") is None


def test_what_breaks_off_is_the_end() -> None:
    whole = io.BytesIO()
    say([("removed", "a" * 100)], whole)
    assert hear(io.BytesIO(whole.getvalue())) == [("removed", "a" * 100)]
    for length in (0, 1, 20, len(whole.getvalue()) - 1):
        with pytest.raises(EOFError):
            hear(io.BytesIO(whole.getvalue()[:length]))


# --- a process of its own ---------------------------------------------------------------------------------------------------


class Child:
    """A process at work, spoken to as `stream.analysis.worker_process` does."""

    def __init__(self, orders: Orders) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.to: IO[bytes] = self.process.stdin
        self.of: IO[bytes] = self.process.stdout
        self.heard: list[Message] = []
        say(sys.path, self.to)
        say(orders, self.to)

    def until(self, enough: Callable[[list[Message]], Any]) -> Any:
        """What `enough` finds in what was said until then. Raises EOFError when the process says no more."""
        while not (found := enough(self.heard)):
            self.heard += hear(self.of)
        return found

    def rest(self) -> None:
        """Hear all that is still said."""
        with pytest.raises(EOFError):
            self.until(lambda heard: False)

    def events(self) -> list[Event]:
        return [one.event for what, value in self.heard if what == "decided" for one in value]


def orders(make: Any = Blinking, **source: Any) -> Orders:
    settings = LiveSettings(sources=(SourceSettings(**{"url": PATTERN, "name": "a", **source}),))
    return Orders(settings, "session", make, logging.INFO, 0.001)


@pytest.fixture
def begin() -> Iterator[Callable[[Orders], Child]]:
    """Starts processes that are gone after the test."""
    begun: list[Child] = []

    def begin(orders: Orders) -> Child:
        begun.append(Child(orders))
        return begun[-1]

    yield begin
    for child in begun:
        child.process.kill()
        with child.process:  # which closes its pipes
            pass


def loaded(heard: list[Message]) -> list[Any]:
    return [value for what, value in heard if what == "loaded"]


def a_provisional(heard: list[Message]) -> bool:
    return any(one.event.state == "provisional" for what, value in heard if what == "decided" for one in value)


def test_it_analyses_until_told_to_end_and_not_by_signals(begin: Callable[[Orders], Child]) -> None:
    child = begin(orders())
    child.until(a_provisional)
    assert loaded(child.heard) == [None]
    child.process.send_signal(signal.SIGTERM)
    child.process.send_signal(signal.SIGINT)
    before = len(child.heard)
    child.until(lambda heard: len(heard) > before + 20)
    say(2.0, child.to)
    child.rest()
    assert child.process.wait(PATIENCE_S) == 0
    events = child.events()
    assert events[-1].state == "final", "what was open has come to its end"
    assert all(event.id.startswith("session.1/a/") for event in events)
    statuses = [value.state for what, value in child.heard if what == "status"]
    assert statuses[0] == "starting" and statuses[-1] == "ended"


def test_it_ends_with_whom_it_works_for(begin: Callable[[Orders], Child]) -> None:
    child = begin(orders())
    child.until(a_provisional)
    child.to.close()
    assert child.process.wait(PATIENCE_S) == 1


def test_pictures_are_sent_while_they_are_asked_for(begin: Callable[[Orders], Child]) -> None:
    child = begin(orders())
    child.until(a_provisional)
    assert not any(what == "preview" for what, _ in child.heard)
    say({"a": PreviewWish(64, 20.0)}, child.to)
    shown = child.until(lambda heard: [value for what, value in heard if what == "preview"])
    assert shown[0].stream == "a" and shown[0].jpeg.startswith(b"\xff\xd8")


def test_what_is_printed_goes_to_the_errors_and_what_is_logged_is_told(begin: Callable[[Orders], Child]) -> None:
    child = begin(orders(printing))
    child.until(a_provisional)
    records = [value for what, value in child.heard if what == "log" and value.name == "printing"]
    assert [(record.levelname, record.getMessage()) for record in records] == [("WARNING", "a was printed")]
    child.process.kill()
    assert child.process.stderr is not None
    assert child.process.stderr.read() == b"a is here\nso it is\n"


def test_what_is_printed_while_modules_load_goes_to_the_errors_too(
    begin: Callable[[Orders], Child], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = "import sys; print('uuid is here', flush=True); sys.path.pop(0); del sys.modules['uuid']; import uuid"
    (tmp_path / "uuid.py").write_text(shown, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    child = begin(orders())
    child.until(a_provisional)
    child.process.kill()
    assert child.process.stderr is not None
    assert child.process.stderr.read() == b"uuid is here\n"


def test_one_that_cannot_send_something_ends_and_says_why(begin: Callable[[Orders], Child]) -> None:
    child = begin(orders(Unsendable))
    child.rest()
    assert child.process.wait(PATIENCE_S) == 1
    assert child.process.stderr is not None
    assert b"cannot pickle '_thread.lock' object" in child.process.stderr.read()


@pytest.mark.parametrize(
    ("ordered", "kind", "said"),
    [
        (orders(no_network), WeightsError, "no network for a"),
        (orders(unforeseen), InputError, "ZeroDivisionError: nobody foresaw this"),
        (orders(password_env="NOT_THERE"), ConfigError, "NOT_THERE"),
    ],
)
def test_what_keeps_it_from_working_is_told(
    ordered: Orders, kind: type[Exception], said: str, begin: Callable[[Orders], Child]
) -> None:
    child = begin(ordered)
    [error] = child.until(loaded)
    assert type(error) is kind and said in str(error)


def test_it_loads_nothing_that_only_the_service_needs() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys, stream.analysis.child; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    found = set(told.stdout.split())
    assert "stream.analysis.session" in found
    assert not found & NOT_NEEDED
