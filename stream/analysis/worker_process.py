"""A process for some of the sources, seen from the process that started it: kept alive, heard, and ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from engine.errors import BackendError
from stream.analysis.child import Message, Orders, Wishes, hear, say
from stream.analysis.heartbeat import LOADING_S, REPLACED_S, STALLED_S, Pulse
from stream.analysis.worker import Make, Processed
from stream.messages import Sink, SourceStatus
from stream.settings import TOKEN_VARIABLE, LiveSettings, SourceSettings
from stream.shutdown import ENDED_BY

log = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
"""Before a process that died is started anew, doubling from one to the other."""

SOUND_S = 30.0
"""A process that has lived for so long counts as sound: its death is a first one."""

LEAVE_S = 1.0
"""In which a process that says no more is gone, else it is killed."""

KILL_S = 0.2
"""In which one that is killed is gone."""

CHILD = """
import os, pickle, sys
pipe = os.dup(1)
os.dup2(2, 1)
sys.path[:] = pickle.load(sys.stdin.buffer)
from stream.analysis.child import begin
begin(pipe)
"""
"""What a process runs: no fork, which would copy threads' locks and the GPU's state as they happen to be, and not
multiprocessing's spawn, which would load the command line and what it needs once more."""


class Member:
    """A process with its share of the sources, and the thread that keeps it: starts it, brings on what it sends, and starts it
    anew when it dies."""

    def __init__(
        self, number: int, settings: LiveSettings, sink: Sink, *, processed: Processed, make: Make | None, name: str
    ) -> None:
        self.number, self._settings, self._sink = number, settings, sink
        self._processed, self._make, self._name = processed, make, name
        self._lock = threading.Lock()  # guards _process, _talks and _silent, and what is sent
        self._process: subprocess.Popen[bytes] | None = None
        self._talks = False  # it has said something: before that it could not listen, nor has it anything to lose
        self._pulse, self._silent = Pulse(), False
        self._stopping = threading.Event()
        self._loaded: Callable[[Exception | None], None] | None = None
        # Of the thread alone:
        self._lives, self._problem = 0, ""
        self._told: dict[str, SourceStatus] = {}
        self._before: dict[str, SourceStatus] = {}  # how sources stood when the last process died
        self._open: set[str] = set()
        self._wishes: Wishes = {}
        self._thread = threading.Thread(target=self._keep, name=f"process {number}", daemon=True)

    def start(self, statuses: Sequence[SourceStatus], loaded: Callable[[Exception | None], None]) -> None:
        """Begin; returns at once. loaded is called once, with None or with what keeps the sources from being analysed."""
        names = {source.name for source in self._settings.sources}
        self._told = {status.stream: status for status in statuses if status.stream in names}
        self._loaded = loaded
        self._thread.start()

    def end(self, within: float) -> None:
        """Have the process end its sources in so many seconds; returns at once."""
        with self._lock:
            self._stopping.set()
            if self._talks:
                self._say(within)
            elif self._process is not None:
                self._process.kill()

    def join(self, until: float) -> bool:
        """Wait for its end until that moment of the monotonic clock; whether it came."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def kill(self) -> None:
        """End the process at once, whatever it does; returns at once."""
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def look(self) -> None:
        """See whether the process gives signs of life: its sources are stalled where it does not, and it is killed in the end.

        To be called every `heartbeat.LOOK_S`, on one thread.
        """
        silent_s = self._pulse.silent_s()
        with self._lock:
            if self._process is None or self._stopping.is_set():
                return
            if silent_s >= (REPLACED_S if self._talks and self._loaded is None else LOADING_S):
                log.error("process %d of the sources has given no sign of life for %g s and is killed", self.number, silent_s)
                self._process.kill()
            elif silent_s >= STALLED_S and self._talks and not self._silent:
                self._silent = True
                detail = "the process of its analysis gives no sign of life; it is replaced if that lasts"
                for status in list(self._told.values()):
                    if status.state != "ended":
                        self._sink.status(replace(status, state="stalled", detail=detail, fps=0.0, since=time.time()))

    def _hear(self) -> None:
        """A sign of life; a process reported as silent is reported as before."""
        self._pulse.beat()
        with self._lock:
            silent, self._talks, self._silent = self._silent, True, False
            for status in list(self._told.values()) if silent else ():
                self._sink.status(status)

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        with self._lock:
            return self._process.pid if self._process is not None else None

    def _say(self, what: Wishes | float) -> None:
        """To be called with the lock held. One that cannot be told anything has died, which is noticed where it is heard."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                say(what, self._process.stdin)

    # The thread.

    def _keep(self) -> None:
        wait = FIRST_WAIT_S
        while not self._stopping.is_set() and (sources := self._left()):
            began = time.monotonic()
            reason = self._live(sources)
            if self._stopping.is_set() or not self._mourn(reason):
                return
            wait = FIRST_WAIT_S if time.monotonic() - began > SOUND_S else wait
            self._stopping.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _left(self) -> tuple[SourceSettings, ...]:
        """The sources that have not come to their end."""
        return tuple(source for source in self._settings.sources if self._told[source.name].state != "ended")

    def _live(self, sources: tuple[SourceSettings, ...]) -> str:
        """One process, from its start to its end; why it ended."""
        self._lives += 1
        self._pulse.beat()
        self._wishes, self._problem = {}, ""
        try:
            process = _started(f"apexstream sources {self.number}")
        except OSError as error:
            return f"none can be started: {error.strerror}"
        with self._lock:
            self._process, self._talks, self._silent = process, False, False
            if self._stopping.is_set():
                process.kill()
        try:
            self._attend(process, sources)
        except EOFError:  # it has ended, one way or the other
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LEAVE_S)
        except Exception as error:  # it cannot be understood, or the sink failed: told, and begun anew
            log.debug("process %d is given up", self.number, exc_info=error)
            self._problem = f"{type(error).__name__}: {error}"
        finally:
            self._bury(process)
        return self._problem or _ending(process.returncode)

    def _attend(self, process: subprocess.Popen[bytes], sources: tuple[SourceSettings, ...]) -> None:
        """Give the process its orders and bring on what it says. Raises EOFError when it says no more."""
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):  # it has died, which is noticed in a moment
            say(sys.path, process.stdin)
            say(self._orders(sources), process.stdin)
        while True:
            messages = hear(process.stdout)
            self._hear()
            for message in messages:
                self._bring(message)
            self._ask_for_pictures(sources)

    def _orders(self, sources: tuple[SourceSettings, ...]) -> Orders:
        name, level = f"{self._name}.{self._lives}", logging.getLogger().getEffectiveLevel()
        return Orders(self._settings.model_copy(update={"sources": sources}), name, self._make, level, sys.getswitchinterval())

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        """Nothing is left of it: neither process nor zombie nor pipe."""
        with self._lock:
            self._process = None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _bring(self, message: Message) -> None:
        what, value = message
        if what == "status":
            self._sink.status(self._as_told(value))
        elif what == "processed":
            for figures in value:
                self._processed(*figures)
        elif what == "loaded":
            self._note_loaded(value)
        elif what == "log":
            logger = logging.getLogger(value.name)
            if logger.isEnabledFor(value.levelno):
                logger.handle(value)
        else:
            if what == "decided":
                self._note_open(value)
            getattr(self._sink, what)(value)

    def _note_loaded(self, error: Exception | None) -> None:
        if self._loaded is not None:
            loaded, self._loaded = self._loaded, None
            loaded(error)
        elif error is not None:  # it could be loaded before: tried again like any other death
            self._problem = str(error)
            self.kill()

    def _note_open(self, events: Any) -> None:
        for decided in events:
            (self._open.add if decided.event.state == "provisional" else self._open.discard)(decided.event.id)

    def _as_told(self, status: SourceStatus) -> SourceStatus:
        """A status with the figures of the lives before added; after a death, a new start is still part of the reconnecting."""
        before = self._before.get(status.stream)
        if before is not None:
            if status.state == "starting":
                status = replace(status, state="reconnecting", detail=before.detail)
            status = replace(
                status,
                frames=before.frames + status.frames,
                drops=before.drops + status.drops,
                reconnects=before.reconnects + status.reconnects + (status.frames > 0),
            )
        self._told[status.stream] = status
        return status

    def _ask_for_pictures(self, sources: tuple[SourceSettings, ...]) -> None:
        """Pass on which pictures are asked for, where that has changed; it is looked at whenever the process has sent
        something, which is ten times a second and source."""
        wishes = {source.name: self._sink.preview_wish(source.name) for source in sources}
        if wishes != self._wishes:
            self._wishes = wishes
            with self._lock:
                self._say(wishes)

    def _mourn(self, reason: str) -> bool:
        """Tell that the process died; False where it never worked, and another one would not either."""
        if self._loaded is not None:
            self._note_loaded(BackendError(f"a process for the sources cannot be had ({reason}); try --processes 0"))
            return False
        if self._open:
            log.warning("%d events that were open in process %d are lost", len(self._open), self.number)
            self._open.clear()
        detail = f"the process of its analysis has ended ({reason}) and is started anew"
        for source in self._left():
            status = replace(self._told[source.name], state="reconnecting", detail=detail, fps=0.0, since=time.time())
            self._told[source.name] = self._before[source.name] = status
            try:
                self._sink.status(status)
            except Exception as error:  # noqa: BLE001 - whatever ails the sink, there will be another process
                log.warning("what became of %s cannot be told: %s: %s", source.name, type(error).__name__, error)
        return True


def _started(name: str) -> subprocess.Popen[bytes]:
    """A process that waits for its orders; name is what lists of processes show besides. It is not told the service's
    token. Raises OSError."""
    command = [sys.executable, "-P", "-c", CHILD, name]
    errors = subprocess.DEVNULL if sys.__stderr__ is None else None  # None: where those of this process go
    known = {variable: value for variable, value in os.environ.items() if variable != TOKEN_VARIABLE}
    with _signals_held():
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=known)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """What is started inside hears none of the signals that end the service, from its first moment on."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(ENDED_BY))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int) -> str:
    """Why a process ended, from its exit code."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name + (", as when memory runs out" if -code == signal.SIGKILL else "")
    return f"signal {-code}"
