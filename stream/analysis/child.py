"""A process of its own for some of the sources: what runs in it, and what it sends to the process that started it.

    an ordinary Session --Outgoing--> Outbox --one thread--> pipe --> `stream.analysis.worker_process`

Nothing here waits for the other process but the one thread that writes to it. If that process is slow, events wait for it; of
signals, activities, pictures, statuses and logs the oldest are left out, so that memory does not grow. If it is gone, this
one ends at once, and if it says so, in order: it alone decides, a signal
that reaches the whole group is left to it.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from logging.handlers import QueueHandler
from typing import IO, Any

from engine.errors import ApexError, InputError
from stream.analysis.heartbeat import BEAT_S
from stream.analysis.session import Session
from stream.analysis.worker import Make
from stream.lean import load_less
from stream.messages import Acted, Decided, Preview, PreviewWish, Signal, SourceStatus
from stream.process import loaded_for_good, opencv_on_one_thread
from stream.settings import LiveSettings
from stream.shutdown import ENDED_BY

FLUSH_S = 0.3
"""Of the time for the end, kept for sending what the sources' ends left to send."""

SIGNALS, ACTIVITIES, EVIDENCES, LOGS, FIGURES = 20, 100, 16, 200, 2000
"""The most that wait for a slow reader: signals, activities and events with evidence a stream, lines of the log, figures."""

Message = tuple[str, Any]
"""What is sent: the name of one of the sink's methods, "processed", "loaded" or "log", and its value."""

Wishes = Mapping[str, PreviewWish | None]
"""What is sent the other way: the pictures that are asked for, by stream; or a float, the seconds in which to end."""


@dataclass(frozen=True)
class Orders:
    """What a process is to do; all of it can be pickled, `make` by its name."""

    settings: LiveSettings
    name: str
    make: Make | None
    log_level: int
    switch_s: float


class Outbox:
    """Messages in the order in which they came, until somebody takes them; may be filled from any thread and never blocks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards all fields below
        self._waiting: dict[Hashable, Message] = {}
        self._put: Counter[Hashable] = Counter()
        self._figures: deque[tuple[str, float, int]] = deque(maxlen=FIGURES)
        self._closed = False

    def put(
        self, what: str, value: Any, *, of: Hashable = None, newest: int = 0, reduced: Callable[[Any], Any] | None = None
    ) -> None:
        """Leave a message; where newest is given, only so many wait of one sort (what and of), the newest. Older ones stay as
        reduced makes them, where that is given."""
        with self._changed:
            sort = (what, of)
            self._put[sort] += 1
            old = (sort, self._put[sort] - newest)
            if newest and old in self._waiting:
                if reduced is None:
                    del self._waiting[old]
                else:
                    self._waiting[old] = (what, reduced(self._waiting[old][1]))
            self._waiting[sort, self._put[sort]] = (what, value)
            self._changed.notify_all()

    def processed(self, stream: str, seconds: float, waiting: int) -> None:
        """A frame's figures. They go with the next message, which comes ten times a second, and are not worth their own."""
        with self._changed:
            self._figures.append((stream, seconds, waiting))

    def take(self, timeout: float | None = None) -> list[Message] | None:
        """All that waits, waited for up to timeout seconds; None once closed and empty."""
        with self._changed:
            came = self._changed.wait_for(lambda: self._closed or bool(self._waiting), timeout)
            taken = list(self._waiting.values())
            if self._figures:
                taken.append(("processed", tuple(self._figures)))
            self._waiting.clear()
            self._figures.clear()
            return taken if taken or not came else None

    def close(self) -> None:
        """Nothing comes any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Outgoing:
    """The sink of a process's session (`stream.messages.Sink`): everything into the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.wishes: Wishes = {}  # replaced as a whole

    def decided(self, events: Sequence[Decided]) -> None:
        """Events are never left out; of each stream, the newest keep their evidence."""
        stream = events[0].event.stream
        self._outbox.put("decided", tuple(events), of=stream, newest=EVIDENCES, reduced=_without_evidence)

    def status(self, status: SourceStatus) -> None:
        """Of each state, the newest."""
        self._outbox.put("status", status, of=(status.stream, status.state), newest=1)

    def signal(self, signal: Signal) -> None:
        """Of each stream, the newest two seconds."""
        self._outbox.put("signal", signal, of=signal.stream, newest=SIGNALS)

    def activity(self, acted: Acted) -> None:
        """Of each stream, the newest ones."""
        self._outbox.put("activity", acted, of=acted.stream, newest=ACTIVITIES)

    def preview(self, preview: Preview) -> None:
        """Of each stream, the newest."""
        self._outbox.put("preview", preview, of=preview.stream, newest=1)

    def removed(self, stream: str) -> None:
        """A stream is gone."""
        self._outbox.put("removed", stream)

    def preview_wish(self, stream: str) -> PreviewWish | None:
        """What was told last."""
        return self.wishes.get(stream)


def _without_evidence(events: Sequence[Decided]) -> tuple[Decided, ...]:
    return tuple(decided.without_evidence() for decided in events)


class _Told(QueueHandler):
    """Lines of the log, told to the other process."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # the outbox takes the queue's place
        self._outbox = outbox

    def enqueue(self, record: logging.LogRecord) -> None:
        """What every record has; what else its logger put into it may go through no pipe."""
        plain = {name: value for name, value in vars(record).items() if name in _EVERY_RECORD}
        self._outbox.put("log", logging.makeLogRecord(plain), newest=LOGS)


_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({})))


def begin(pipe: int) -> None:
    """The whole life of the process, once it finds its modules; does not return.

    Orders come from standard input. What is told goes to the descriptor `pipe`, which was standard output: what starts this has
    moved it, so that libraries that print do so to the errors, from their import on.
    """
    for number in ENDED_BY:
        signal.signal(number, signal.SIG_IGN)
    code = 1
    try:
        work(hear(sys.stdin.buffer), sys.stdin.buffer, os.fdopen(pipe, "wb"))
        code = 0
    except EOFError:
        pass  # whom it worked for is gone, and with it all that this could be of use for
    except Exception:  # noqa: BLE001 - said where the log may not be heard any more
        traceback.print_exc()
    finally:
        os._exit(code)  # at once: taking the libraries down in order takes longer than there is time


def work(orders: Orders, heard: IO[bytes], told: IO[bytes]) -> None:
    """Do as ordered until told to end, and send all that is left. Raises EOFError when the other process is gone."""
    sys.setswitchinterval(orders.switch_s)
    outbox = Outbox()
    logging.basicConfig(level=orders.log_level, handlers=[_Told(outbox)], format="%(message)s", force=True)
    sending = threading.Thread(target=_send, args=(outbox, told), name="send", daemon=True)
    sending.start()
    load_less()
    sink = Outgoing(outbox)
    session = Session(orders.settings, sink, processed=outbox.processed, make=orders.make, name=orders.name)
    with opencv_on_one_thread():
        _start(session, outbox)
        while not isinstance(wishes := hear(heard), float):
            sink.wishes = wishes
        session.stop(wishes)
    outbox.close()
    sending.join(FLUSH_S)


def _start(session: Session, outbox: Outbox) -> None:
    def loaded(error: Exception | None) -> None:
        if error is None:
            loaded_for_good()
        outbox.put("loaded", error and _known(error))

    try:
        session.start(loaded)
    except Exception as error:  # noqa: BLE001 - told to who started this
        loaded(error)


def say(what: Any, to: IO[bytes]) -> None:
    """Send something to the other process. Raises OSError where it is gone."""
    to.write(pickle.dumps(what, pickle.HIGHEST_PROTOCOL))
    to.flush()


def hear(of: IO[bytes]) -> Any:
    """The next that the other process says, waited for. Raises EOFError when it is gone, in the middle of it or not."""
    try:
        return pickle.load(of)
    except (OSError, pickle.UnpicklingError) as error:
        raise EOFError("the other process is gone") from error


def _send(outbox: Outbox, told: IO[bytes]) -> None:
    while (messages := outbox.take(BEAT_S)) is not None:
        try:
            say(messages, told)
        except OSError:  # nobody reads any more; who hears for this process learns of it as well
            return
        except Exception:  # noqa: BLE001 - a defect; a process that is mute is of no use, and one that ends is started anew
            traceback.print_exc()
            os._exit(1)


def _known(error: Exception) -> ApexError:
    """The error as one that every process knows."""
    return error if isinstance(error, ApexError) else InputError(f"the analysis cannot begin ({type(error).__name__}: {error})")
