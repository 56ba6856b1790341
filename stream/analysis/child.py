"""The code that runs in a worker process, and its messages to the process that started it (`stream.analysis.worker_process`).

    Session --> Outbox --one thread--> pipe

Only the thread that writes to the pipe ever waits for the other process. If that is slow, events wait for it; of signals,
activities, pictures, statuses and log records the oldest are dropped, so that memory is bounded. If its end of the pipe closes,
this process exits at once. Signals that end a process are ignored: the other process gets them too, and decides.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from logging.handlers import QueueHandler
from typing import IO, Any

from engine.errors import ApexError, InputError
from stream.analysis.heartbeat import BEAT_S
from stream.analysis.session import Session
from stream.analysis.worker import MakePipeline
from stream.messages import Acted, Decided, Preview, Signal, SourceStatus, WantedPreview
from stream.process import freeze_loaded, load_less, opencv_on_one_thread
from stream.settings import LiveSettings
from stream.shutdown import SHUTDOWN_SIGNALS

FLUSH_S = 0.3
"""Part of the time for the end that is kept for sending the last messages, which have what else is left as well."""

MAX_SIGNALS, MAX_ACTIVITIES, MAX_EVIDENCE, MAX_LOGS, MAX_FIGURES = 20, 100, 16, 200, 2000
"""The most that wait for a slow reader: of each stream signals, activities, messages with evidence; log records, figures."""

Message = tuple[str, Any]
"""What is sent: the name of one of the sink's methods, "processed", "loaded" or "log", and its value."""

WantedPreviews = Mapping[str, WantedPreview | None]
"""What is sent to the process: the previews asked for, by stream; or a float, the seconds in which to end."""


@dataclass(frozen=True)
class ProcessConfig:
    """What a process is started with; all of it can be pickled, `make` by its name."""

    settings: LiveSettings
    session: str
    make: MakePipeline | None
    log_level: int
    switch_s: float


class Outbox:
    """The sink of the process's session (`stream.messages.Sink`): messages in the order in which they were put, until they are
    taken; filled from any thread, and never blocks. wanted_previews are what the other process asked for last."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards all fields below
        self._waiting: dict[Hashable, Message] = {}
        self._counts: Counter[Hashable] = Counter()
        self._figures: deque[tuple[str, float, int]] = deque(maxlen=MAX_FIGURES)
        self._closed = False
        self.wanted_previews: WantedPreviews = {}  # replaced as a whole

    def put(
        self, what: str, value: Any, *, key: Hashable = None, keep: int = 0, reduce: Callable[[Any], Any] | None = None
    ) -> None:
        """Add a message; where keep is given, only the newest so many with the same what and key wait, and older ones as
        reduce makes them, where that is given."""
        with self._changed:
            kind = (what, key)
            self._counts[kind] += 1
            old = (kind, self._counts[kind] - keep)
            if keep and old in self._waiting:
                if reduce is None:
                    del self._waiting[old]
                else:
                    self._waiting[old] = (what, reduce(self._waiting[old][1]))
            self._waiting[kind, self._counts[kind]] = (what, value)
            self._changed.notify_all()

    def processed(self, stream: str, seconds: float, waiting: int) -> None:
        """Add a frame's figures, which go with the next message; those come ten times a second."""
        with self._changed:
            self._figures.append((stream, seconds, waiting))

    def decided(self, events: Sequence[Decided]) -> None:
        """Events are never dropped; the newest messages of each stream keep their evidence."""
        stream = events[0].event.stream
        self.put("decided", tuple(events), key=stream, keep=MAX_EVIDENCE, reduce=_without_evidence)

    def status(self, status: SourceStatus) -> None:
        """The newest of each state is kept."""
        self.put("status", status, key=(status.stream, status.state), keep=1)

    def signal(self, signal: Signal) -> None:
        """The newest two seconds of each stream are kept."""
        self.put("signal", signal, key=signal.stream, keep=MAX_SIGNALS)

    def activity(self, acted: Acted) -> None:
        """The newest of each stream are kept."""
        self.put("activity", acted, key=acted.stream, keep=MAX_ACTIVITIES)

    def preview(self, preview: Preview) -> None:
        """The newest of each stream is kept."""
        self.put("preview", preview, key=preview.stream, keep=1)

    def removed(self, stream: str) -> None:
        """A stream was removed."""
        self.put("removed", stream)

    def wanted_preview(self, stream: str) -> WantedPreview | None:
        """What the other process asked for last."""
        return self.wanted_previews.get(stream)

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
        """No more messages come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _without_evidence(events: Sequence[Decided]) -> tuple[Decided, ...]:
    return tuple(decided.without_evidence() for decided in events)


class _OutboxHandler(QueueHandler):
    """Puts log records into the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # the outbox replaces the queue
        self._outbox = outbox

    def enqueue(self, record: logging.LogRecord) -> None:
        """Only the fields that every record has: what a logger adds may not be picklable."""
        plain = {name: value for name, value in vars(record).items() if name in _RECORD_FIELDS}
        self._outbox.put("log", logging.makeLogRecord(plain), keep=MAX_LOGS)


_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({})))


def main(pipe: int) -> None:
    """Run the process; does not return.

    The configuration comes from standard input. Messages go to the descriptor `pipe`, which was standard output: the code that
    calls this has moved it, so that what libraries print goes to standard error, even while they are imported.
    """
    for number in SHUTDOWN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    code = 1
    try:
        run(receive(sys.stdin.buffer), sys.stdin.buffer, os.fdopen(pipe, "wb"))
        code = 0
    except EOFError:
        pass  # the process that started this one has exited
    except Exception:  # noqa: BLE001 - printed, as the log may not reach anybody any more
        traceback.print_exc()
    finally:
        os._exit(code)  # at once: unloading the libraries in order takes longer than there is time


def run(config: ProcessConfig, commands: IO[bytes], messages: IO[bytes]) -> None:
    """Analyse until a command says to end, and send the last messages. Raises EOFError when the other process has exited."""
    sys.setswitchinterval(config.switch_s)
    outbox = Outbox()
    logging.basicConfig(level=config.log_level, handlers=[_OutboxHandler(outbox)], format="%(message)s", force=True)
    sender = threading.Thread(target=_send_messages, args=(outbox, messages), name="send", daemon=True)
    sender.start()
    load_less()
    session = Session(config.settings, outbox, processed=outbox.processed, make=config.make, name=config.session)

    def on_loaded(error: Exception | None) -> None:
        if error is None:
            freeze_loaded()
        elif not isinstance(error, ApexError):  # one that the other process may not know
            error = InputError(f"the analysis cannot begin ({type(error).__name__}: {error})")
        outbox.put("loaded", error)

    with opencv_on_one_thread():
        try:
            session.start(on_loaded)
        except Exception as error:  # noqa: BLE001 - reported to the other process
            on_loaded(error)
        while not isinstance(command := receive(commands), float):
            outbox.wanted_previews = command
        until = time.monotonic() + command
        session.stop(command)
    outbox.close()
    sender.join(max(0.0, until - time.monotonic()) + FLUSH_S)


def send(what: Any, to: IO[bytes]) -> None:
    """Send an object to the other process. Raises OSError where it has exited."""
    to.write(pickle.dumps(what, pickle.HIGHEST_PROTOCOL))
    to.flush()


def receive(source: IO[bytes]) -> Any:
    """The next object from the other process, waited for. Raises EOFError where it exited, also in the middle of one."""
    try:
        return pickle.load(source)
    except (OSError, pickle.UnpicklingError) as error:
        raise EOFError("the other process has exited") from error


def _send_messages(outbox: Outbox, pipe: IO[bytes]) -> None:
    while (messages := outbox.take(BEAT_S)) is not None:
        try:
            send(messages, pipe)
        except OSError:  # the other process has exited, which the main thread notices too
            return
        except Exception:  # noqa: BLE001 - a defect: a process that cannot send is of no use, and is restarted
            traceback.print_exc()
            os._exit(1)
