from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.errors import BackendError
from stream.analysis import worker_process
from stream.analysis.worker_process import WorkerProcess
from stream.messages import Decided, SourceStatus
from stream.outlets.settings import MqttSettings
from stream.settings import TOKEN_VARIABLE, LiveSettings
from stream.sources.settings import SourceSettings
from tests.blinking import PATTERN, Blinking, printing
from tests.live import PATIENCE_S, Collected
from tests.videos import stepping, write_video

ROOT = Path(__file__).resolve().parents[3]

Start = Callable[..., WorkerProcess]


class Loaded(list[Exception | None]):
    """The results of loading."""

    __call__ = list.append


def pid_of(worker: WorkerProcess) -> int | None:
    """The process's id, None while there is no process."""
    return None if worker._process is None else worker._process.pid


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts worker processes, which are ended after the test."""
    monkeypatch.setattr(worker_process, "FIRST_WAIT_S", 0.05)
    started: list[WorkerProcess] = []

    def start(
        sink: Collected, *sources: SourceSettings, make: Any = Blinking, loaded: Any = lambda error: None, **given: Any
    ) -> WorkerProcess:
        settings = LiveSettings(sources=sources or (SourceSettings(url=PATTERN, name="a"),), **given)
        worker = WorkerProcess(1, settings, sink, processed=lambda *figures: None, make=make, name="session")
        started.append(worker)
        worker.start({source.name: SourceStatus(source.name, "pattern", "starting") for source in settings.sources}, loaded)
        return worker

    yield start
    for worker in started:
        worker.end(1.0)
        if not worker.join(time.monotonic() + PATIENCE_S):
            worker.kill()
            assert worker.join(time.monotonic() + PATIENCE_S)
        assert pid_of(worker) is None


def test_it_ends_on_request_and_closes_everything(start: Start) -> None:
    sink, loaded = Collected(), Loaded()
    worker = start(sink, loaded=loaded)
    sink.until(lambda: len(sink.finals("a")) > 1, "events")
    assert loaded == [None]
    pid = pid_of(worker)
    assert pid is not None
    worker.end(2.0)
    assert worker.join(time.monotonic() + PATIENCE_S) and pid_of(worker) is None and not psutil.pid_exists(pid)
    assert sink.states("a") == ["starting", "live", "ended"]
    assert len(sink.finals("a")) == len({one.event.id for one in sink.events})


def test_one_that_has_not_responded_yet_is_killed_at_once(start: Start) -> None:
    sink = Collected()
    for _ in range(5):
        worker = start(sink)
        worker.end(1000.0)
        assert worker.join(time.monotonic() + PATIENCE_S)
    assert not sink.events


def test_an_exit_is_reported_and_lost_events_are_counted(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    sink = Collected()
    worker = start(sink)
    for run in (1, 2):
        sink.until(lambda run=run: any(f".{run}." in one.event.id for one in sink.events), "an event of this process")
        pid = pid_of(worker)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        sink.until(lambda run=run: [s.state for s in sink.statuses].count("reconnecting") >= run, "its exit to be reported")
    sink.until(lambda: any(".3." in one.event.id for one in sink.events), "an event of the third process")
    lost = {one.event.id for one in sink.events if ".3." not in one.event.id} - {one.event.id for one in sink.finals("a")}
    counted = sum(int(record.getMessage().split()[0]) for record in caplog.records if "are lost" in record.getMessage())
    assert counted == len(lost)


def test_a_file_that_has_ended_is_not_played_again(start: Start, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", stepping(64, 48, 5))
    sink = Collected()
    worker = start(sink, SourceSettings(url=str(clip), name="clip"), SourceSettings(url=PATTERN, name="a"))
    sink.until(lambda: "ended" in sink.states("clip") and sink.finals("a"), "the end of one and an event of the other")
    pid = pid_of(worker)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    sink.until(lambda: sink.states("a")[-2:] == ["reconnecting", "live"], "the other to go on")
    assert sink.states("clip")[-1] == "ended" and "reconnecting" not in sink.states("clip")


def test_a_process_that_cannot_be_started_is_reported(start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    loaded = Loaded()
    worker = start(Collected(), loaded=loaded)
    assert worker.join(time.monotonic() + PATIENCE_S), "it is not tried again"
    [error] = loaded
    assert isinstance(error, BackendError) and "No such file" in str(error) and "--processes 0" in str(error)


@pytest.mark.parametrize(
    ("child", "make", "message"),
    [
        ("print('INFO: a library says hello', flush=True)", Blinking, "ValueError"),
        ("import pickle; sys.stdout.buffer.write(pickle.dumps(17)); sys.stdout.flush()", Blinking, "TypeError"),
        ("pass", lambda *given: None, "pickle"),
    ],
)
def test_invalid_messages_are_reported(
    child: str, make: Any, message: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "CHILD", f"import sys, threading; {child}; threading.Event().wait()")
    loaded = Loaded()
    worker = start(Collected(), loaded=loaded, make=make)
    assert worker.join(time.monotonic() + PATIENCE_S) and pid_of(worker) is None
    [error] = loaded
    assert isinstance(error, BackendError) and message in str(error)


class Failing(Collected):
    """A sink that fails at the first events, and at the status that reports that."""

    refused = 0

    def decided(self, events: Sequence[Decided]) -> None:
        self._refuse(not self.refused)
        super().decided(events)

    def status(self, status: SourceStatus) -> None:
        super().status(status)
        self._refuse("OSError" in status.detail and self.refused == 1)

    def _refuse(self, refused: bool) -> None:
        self.refused += refused
        if refused:
            raise OSError("no room")


def test_the_process_is_restarted_after_an_error_of_the_sink(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    sink, loaded = Failing(), Loaded()
    start(sink, loaded=loaded)
    sink.until(lambda: sink.finals("a") and sink.states("a")[-1] == "live", "events of a second process")
    assert sink.refused == 2 and loaded == [None] and sink.states("a") == ["starting", "live", "reconnecting", "live"]
    assert any("OSError: no room" in status.detail for status in sink.statuses)
    assert "no room" in caplog.text


CLOSED = f"""
import time
from stream.analysis.worker_process import WorkerProcess
from stream.settings import LiveSettings, SourceSettings
from stream.messages import SourceStatus
from tests.blinking import Blinking
from tests.live import Collected

sink, loaded = Collected(), []
settings = LiveSettings(sources=(SourceSettings(url="{PATTERN}", name="a"),))
worker = WorkerProcess(1, settings, sink, processed=lambda *figures: None, make=Blinking, name="session")
worker.start({{"a": SourceStatus("a", "pattern", "starting")}}, loaded.append)
sink.until(lambda: loaded and (loaded[0] or sink.events), "an event")
print(loaded[0])
worker.end(1.0)
worker.join(time.monotonic() + 10)
"""


def test_a_service_without_standard_error_has_processes() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, CLOSED], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "None\n")


def test_log_records_are_passed_on_with_their_levels(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink = Collected()
    start(sink, make=printing)
    sink.until(lambda: sink.events, "an event, in spite of a record that cannot be pickled")
    assert ("printing", logging.WARNING, "a was printed") in caplog.record_tuples


def test_credentials_are_in_no_command_line_or_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cret-word"
    monkeypatch.setenv(TOKEN_VARIABLE, secret)
    monkeypatch.setenv("BROKER_PASSWORD", secret)
    mqtt = MqttSettings(host="127.0.0.1", username="me", password_env="BROKER_PASSWORD")
    sink = Collected()
    source = SourceSettings(url=f"rtsp://me:{secret}@127.0.0.1:1/a", name="far", password=secret)
    worker = start(sink, source, SourceSettings(url=PATTERN, name="a"), mqtt=mqtt)
    sink.until(lambda: sink.events and "reconnecting" in sink.states("far"), "both to be tried")
    pid = pid_of(worker)
    assert pid is not None
    process = psutil.Process(pid)
    assert secret not in " ".join(process.cmdline()) + " ".join(process.environ().values())
    assert process.cmdline()[-1] == "apexstream sources 1"
    assert secret in pickle.dumps(source).decode("latin-1"), "it is sent over the pipe"
    assert not any(secret in status.detail for status in sink.statuses)
