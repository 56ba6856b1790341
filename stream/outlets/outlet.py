"""What all outlets share: the thread that each has for itself, its status, and what an outlet is given of the service.

    event loop --offer--> the outlet's queue --> its thread --> a recorder, a broker

`offer` only queues. An outlet that fails says so in its status and in the log, once for each reason, and tries again with
growing waits; nothing else of the service waits for it.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.errors import ApexError, BackendError, first_line
from stream.backoff import Backoff
from stream.protocol import Message

log = logging.getLogger(__name__)

RETRY_S = (1.0, 60.0)
"""The first and the longest wait before a failed outlet is tried again."""
JITTER = 0.25

OutletState = Literal["starting", "working", "failing", "off"]


@dataclass(frozen=True)
class OutletStatus:
    """The state of an outlet; detail is one sentence, without credentials, or "". sent counts expressions that were delivered
    (to LSL: handed over), dropped messages that were not and never will be."""

    name: str
    state: OutletState = "starting"
    detail: str = ""
    sent: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class OutletContext:
    """What an outlet knows of the service: the store's folder, identity and last seq; stored(since, limit) returns stored
    events after since, on any thread but the loop's, and raises OutputError; the network, the program's version and the names
    of the configured sources for descriptions."""

    folder: Path
    store: str
    seq: int
    stored: Callable[[int, int], list[dict[str, Any]]]
    model: str
    version: str
    sources: tuple[str, ...] = ()


class Outlet(ABC):
    """One outlet. A subclass queues in `offer` what `run` takes from the queue, on the outlet's thread.

    shown says where it sends to, without credentials; retry_s are the first and the longest wait after a failure, RETRY_S where
    it is None.
    """

    def __init__(self, name: str, shown: str, *, retry_s: tuple[float, float] | None = None) -> None:
        self.name, self.shown = name, shown
        self._lock = threading.Lock()  # guards _status
        self._status = OutletStatus(name)
        self._stopping = threading.Event()
        self._backoff = Backoff(*(retry_s or RETRY_S), jitter=JITTER)
        self._thread = threading.Thread(target=self._main, name=f"outlet {name}", daemon=True)

    @property
    def status(self) -> OutletStatus:
        """The current status; from any thread."""
        with self._lock:
            return self._status

    @abstractmethod
    def offer(self, message: Message) -> None:
        """Queue what the outlet wants of a message to all; on the event loop, never blocks."""

    @abstractmethod
    def run(self) -> None:
        """Work until the outlet is stopped; an ApexError is reported, and it is called again. BackendError: it is not."""

    @abstractmethod
    def wake(self) -> None:
        """End a wait of `run`, as the outlet is stopping."""

    def start(self) -> None:
        """Start the thread; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Have the thread deliver what is queued, and end; returns at once."""
        self._stopping.set()
        self.wake()

    def join(self, timeout: float) -> bool:
        """Wait for the thread; False where it has not ended after timeout seconds. It then ends with the process."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def report(self, state: OutletState, detail: str = "") -> None:
        """Set the state, and log it where it is a new one."""
        with self._lock:
            was = self._status
            self._status = replace(was, state=state, detail=detail)
        if state == "working":
            self._backoff.reset()
        if (was.state, was.detail) != (state, detail):
            level = logging.INFO if state == "working" else logging.WARNING
            more = "; it is tried again" if state == "failing" else ""
            log.log(level, "%s: %s%s%s", self.name, state, detail and f": {detail}", more)

    def count(self, *, sent: int = 0, dropped: int = 0) -> None:
        """Count expressions that were delivered, and messages that were dropped."""
        with self._lock:
            was = self._status
            self._status = replace(was, sent=was.sent + sent, dropped=was.dropped + dropped)

    def _main(self) -> None:
        while True:
            try:
                self.run()
            except BackendError as error:
                self.report("off", str(error))
                return
            except ApexError as error:
                self.report("failing", str(error))
            except Exception as error:  # whatever is wrong with an outlet, the service goes on
                log.debug("the outlet %s failed", self.name, exc_info=error)
                self.report("failing", f"unexpected error ({type(error).__name__}: {first_line(error)})")
            if self._stopping.wait(self._backoff.next()):
                return
