"""A worker process for some of the sources, as the service sees it: started, monitored, restarted and ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

from engine.errors import BackendError
from stream.analysis.child import Message, ProcessConfig, WantedPreviews, receive, send
from stream.analysis.heartbeat import LOADING_S, REPLACED_S, STALLED_S, Heartbeat
from stream.analysis.status import Fault, visible_status
from stream.analysis.worker import MakePipeline, OnProcessed
from stream.backoff import Backoff
from stream.messages import Sink, SourceStatus
from stream.settings import TOKEN_VARIABLE, LiveSettings
from stream.shutdown import signals_blocked
from stream.sources.settings import SourceSettings

log = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
"""Backoff before a process that exited is restarted."""

STABLE_S = 30.0
"""A process that has run for so long is stable: the next wait is a first one."""

EXIT_S = 1.0
"""Time in which a process whose pipe has ended exits, else it is killed."""

KILL_S = 0.2
"""Time in which a killed process is gone."""

CHILD = """
import os, pickle, sys
pipe = os.dup(1)
os.dup2(2, 1)
sys.path[:] = pickle.load(sys.stdin.buffer)
from stream.analysis.child import main
main(pipe)
"""
"""The code of a process. Not a fork, which would copy held locks and the GPU's state, and not multiprocessing's spawn, which
would load the command line again."""


class WorkerProcess:
    """A process with its share of the sources, and the thread that starts it, passes on its messages, and restarts it."""

    def __init__(
        self, number: int, settings: LiveSettings, sink: Sink, *, processed: OnProcessed, make: MakePipeline | None, name: str
    ) -> None:
        self.number, self._settings, self._sink = number, settings, sink
        self._processed, self._make, self._name = processed, make, name
        self._lock = threading.Lock()  # guards _process, _responded and _silent, and what is sent
        self._process: subprocess.Popen[bytes] | None = None
        self._responded = False  # before its first message a process does not read its pipe, and has nothing to lose
        self._heartbeat, self._silent = Heartbeat(), False
        self._stopping = threading.Event()
        self._on_loaded: Callable[[Exception | None], None] | None = None
        # Only used by the thread:
        self._starts, self._problem = 0, ""
        self._statuses: dict[str, SourceStatus] = {}
        self._previous: dict[str, SourceStatus] = {}  # the statuses when the last process exited
        self._open_events: set[str] = set()
        self._wanted_previews: WantedPreviews = {}
        self._thread = threading.Thread(target=self._run, name=f"process {number}", daemon=True)

    def start(self, statuses: Mapping[str, SourceStatus], on_loaded: Callable[[Exception | None], None]) -> None:
        """Start the thread; returns at once. on_loaded is called once, with None or with what prevents the analysis."""
        self._statuses = {source.name: statuses[source.name] for source in self._settings.sources}
        self._on_loaded = on_loaded
        self._thread.start()

    def end(self, within: float) -> None:
        """Have the process end its sources within so many seconds; returns at once."""
        with self._lock:
            self._stopping.set()
            if self._responded:
                self._send(within)
            elif self._process is not None:
                self._process.kill()

    def join(self, until: float) -> bool:
        """Wait for its end until that moment of the monotonic clock; whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def kill(self) -> None:
        """Kill the process; returns at once."""
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def check(self) -> None:
        """Report the sources as stalled where the process does not respond, and kill it where that lasts.

        To be called every `heartbeat.CHECK_S`, on one thread.
        """
        silent_s = self._heartbeat.silent_s()
        with self._lock:
            if self._process is None or self._stopping.is_set():
                return
            if silent_s >= (REPLACED_S if self._responded and self._on_loaded is None else LOADING_S):
                log.error("worker process %d has not responded for %g s and is killed", self.number, silent_s)
                self._process.kill()
            elif silent_s >= STALLED_S and self._responded and not self._silent:
                self._silent = True
                detail = "its worker process does not respond; it is replaced if that lasts"
                fault = Fault("process silent", detail, time.time())
                for status in list(self._statuses.values()):
                    if status.state != "ended":
                        self._sink.status(visible_status(status, fault))

    def _send(self, what: WantedPreviews | float) -> None:
        """To be called with the lock held. A broken pipe is noticed where the process is read from."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                send(what, self._process.stdin)

    # The thread.

    def _run(self) -> None:
        backoff = Backoff(FIRST_WAIT_S, LONGEST_WAIT_S)
        while not self._stopping.is_set() and (sources := self._unfinished()):
            began = time.monotonic()
            reason = self._run_once(sources)
            if self._stopping.is_set() or not self._report_exit(reason):
                return
            if time.monotonic() - began > STABLE_S:
                backoff.reset()
            self._stopping.wait(backoff.next())

    def _unfinished(self) -> tuple[SourceSettings, ...]:
        """The sources that have not ended."""
        return tuple(source for source in self._settings.sources if self._statuses[source.name].state != "ended")

    def _hidden(self) -> set[str]:
        """Environment variables with secrets that the process does not need: the service's token and a broker's password."""
        mqtt, needed = self._settings.mqtt, {source.password_env for source in self._settings.sources}
        return {TOKEN_VARIABLE, *([mqtt.password_env] if mqtt and mqtt.password_env else [])} - needed

    def _run_once(self, sources: tuple[SourceSettings, ...]) -> str:
        """Run one process from its start to its exit; returns why it exited."""
        self._starts += 1
        self._heartbeat.beat()
        self._wanted_previews, self._problem = {}, ""
        try:
            process = _spawn(f"apexstream sources {self.number}", self._hidden())
        except OSError as error:
            return f"it cannot be started: {error.strerror}"
        with self._lock:
            self._process, self._responded, self._silent = process, False, False
            if self._stopping.is_set():
                process.kill()
        try:
            self._exchange(process, sources)
        except EOFError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(EXIT_S)
        except Exception as error:  # its messages are invalid, or the sink failed: reported, and restarted
            log.debug("worker process %d is given up", self.number, exc_info=error)
            self._problem = f"{type(error).__name__}: {error}"
        finally:
            self._reap(process)
        return self._problem or _exit_reason(process.returncode)

    def _exchange(self, process: subprocess.Popen[bytes], sources: tuple[SourceSettings, ...]) -> None:
        """Send the process its configuration and handle its messages. Raises EOFError when its pipe has ended."""
        assert process.stdin is not None and process.stdout is not None
        settings = self._settings.model_copy(update={"sources": sources, "lsl": None, "mqtt": None})
        level, switch_s = logging.getLogger().getEffectiveLevel(), sys.getswitchinterval()
        with contextlib.suppress(OSError):  # it has exited, which is noticed by the first read
            send(sys.path, process.stdin)
            send(ProcessConfig(settings, f"{self._name}.{self._starts}", self._make, level, switch_s), process.stdin)
        while True:
            messages = receive(process.stdout)
            self._on_response()
            for message in messages:
                self._handle(message)
            self._forward_wanted_previews(sources)

    def _on_response(self) -> None:
        """Note a sign of life; statuses that were reported as stalled are restored."""
        self._heartbeat.beat()
        with self._lock:
            was_silent, self._responded, self._silent = self._silent, True, False
            for status in list(self._statuses.values()) if was_silent else ():
                self._sink.status(status)

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        """Leave neither process nor zombie nor pipe behind."""
        with self._lock:
            self._process = None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _handle(self, message: Message) -> None:
        what, value = message
        if what == "status":
            status = visible_status(value, previous=self._previous.get(value.stream))
            self._statuses[status.stream] = status
            self._sink.status(status)
        elif what == "processed":
            for figures in value:
                self._processed(*figures)
        elif what == "loaded":
            self._handle_loaded(value)
        elif what == "log":
            logger = logging.getLogger(value.name)
            if logger.isEnabledFor(value.levelno):
                logger.handle(value)
        else:
            if what == "decided":
                for decided in value:
                    update = self._open_events.add if decided.event.state == "provisional" else self._open_events.discard
                    update(decided.event.id)
            getattr(self._sink, what)(value)

    def _handle_loaded(self, error: Exception | None) -> None:
        if self._on_loaded is not None:
            on_loaded, self._on_loaded = self._on_loaded, None
            on_loaded(error)
        elif error is not None:  # it could be loaded before: tried again as after any other exit
            self._problem = str(error)
            self.kill()

    def _forward_wanted_previews(self, sources: tuple[SourceSettings, ...]) -> None:
        """Send which previews are asked for, if that has changed; called ten times a second and source."""
        wanted = {source.name: self._sink.wanted_preview(source.name) for source in sources}
        if wanted != self._wanted_previews:
            self._wanted_previews = wanted
            with self._lock:
                self._send(wanted)

    def _report_exit(self, reason: str) -> bool:
        """Report that the process exited; False where it never worked, and another one would not either."""
        if self._on_loaded is not None:
            self._handle_loaded(BackendError(f"a worker process does not work ({reason}); try --processes 0"))
            return False
        if self._open_events:
            log.warning("%d events that were open in worker process %d are lost", len(self._open_events), self.number)
            self._open_events.clear()
        fault = Fault("process exited", f"its worker process has exited ({reason}) and is restarted", time.time())
        for source in self._unfinished():
            status = visible_status(self._statuses[source.name], fault)
            self._statuses[source.name] = self._previous[source.name] = status
            try:
                self._sink.status(status)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the sink, the process is restarted
                log.warning("the status of %s could not be reported: %s: %s", source.name, type(error).__name__, error)
        return True


def _spawn(name: str, hidden: set[str]) -> subprocess.Popen[bytes]:
    """A process that waits for its configuration; name is shown in lists of processes. It does not get the environment's hidden
    variables. Raises OSError."""
    command = [sys.executable, "-P", "-c", CHILD, name]
    errors = subprocess.DEVNULL if sys.__stderr__ is None else None  # None: where those of this process go
    environment = {variable: value for variable, value in os.environ.items() if variable not in hidden}
    with signals_blocked():
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment)


def _exit_reason(code: int) -> str:
    """Why a process exited, from its exit code."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name + (", as when memory runs out" if -code == signal.SIGKILL else "")
    return f"signal {-code}"
