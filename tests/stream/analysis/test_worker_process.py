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
from stream.analysis import worker_process as crew_member
from stream.analysis.worker_process import Member
from stream.messages import Decided, SourceStatus
from stream.settings import TOKEN_VARIABLE, LiveSettings, SourceSettings
from tests.blinking import PATTERN, Blinking, printing
from tests.live import PATIENCE_S, Collected
from tests.videos import stepping, write_video

ROOT = Path(__file__).resolve().parents[3]

Begin = Callable[..., Member]


class Loaded(list[Exception | None]):
    """What was told of loading."""

    __call__ = list.append


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Starts members, whose processes and threads are gone after the test."""
    monkeypatch.setattr(crew_member, "FIRST_WAIT_S", 0.05)
    begun: list[Member] = []

    def begin(sink: Collected, *sources: SourceSettings, make: Any = Blinking, loaded: Any = lambda error: None) -> Member:
        settings = LiveSettings(sources=sources or (SourceSettings(url=PATTERN, name="a"),))
        member = Member(1, settings, sink, processed=lambda *figures: None, make=make, name="session")
        begun.append(member)
        member.start([SourceStatus(source.name, "pattern", "starting") for source in settings.sources], loaded)
        return member

    yield begin
    for member in begun:
        member.end(1.0)
        if not member.join(time.monotonic() + PATIENCE_S):
            member.kill()
            assert member.join(time.monotonic() + PATIENCE_S)
        assert member.pid is None


def test_it_ends_when_told_and_nothing_is_left_open(begin: Begin) -> None:
    sink, loaded = Collected(), Loaded()
    member = begin(sink, loaded=loaded)
    sink.until(lambda: len(sink.finals("a")) > 1, "events")
    assert loaded == [None]
    pid = member.pid
    assert pid is not None
    member.end(2.0)
    assert member.join(time.monotonic() + PATIENCE_S) and member.pid is None and not psutil.pid_exists(pid)
    assert sink.states("a") == ["starting", "live", "ended"]
    assert len(sink.finals("a")) == len({one.event.id for one in sink.events})


def test_one_that_has_not_begun_is_ended_at_once(begin: Begin) -> None:
    sink = Collected()
    for _ in range(5):
        member = begin(sink)
        member.end(1000.0)
        assert member.join(time.monotonic() + PATIENCE_S)
    assert not sink.events


def test_what_dies_is_told_and_lost_events_are_counted(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    sink = Collected()
    member = begin(sink)
    for life in (1, 2):
        sink.until(lambda life=life: any(f".{life}." in one.event.id for one in sink.events), "an event of this life")
        pid = member.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        sink.until(lambda life=life: [s.state for s in sink.statuses].count("reconnecting") >= life, "its death to be told")
    sink.until(lambda: any(".3." in one.event.id for one in sink.events), "an event of the third life")
    lost = {one.event.id for one in sink.events if ".3." not in one.event.id} - {one.event.id for one in sink.finals("a")}
    counted = sum(int(record.getMessage().split()[0]) for record in caplog.records if "are lost" in record.getMessage())
    assert counted == len(lost)


def test_a_file_that_has_ended_is_not_played_again(begin: Begin, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", stepping(64, 48, 5))
    sink = Collected()
    member = begin(sink, SourceSettings(url=str(clip), name="clip"), SourceSettings(url=PATTERN, name="a"))
    sink.until(lambda: "ended" in sink.states("clip") and sink.finals("a"), "the end of one and an event of the other")
    pid = member.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    sink.until(lambda: sink.states("a")[-2:] == ["reconnecting", "live"], "the other to go on")
    assert sink.states("clip")[-1] == "ended" and "reconnecting" not in sink.states("clip")


def test_a_machine_without_room_for_it_says_so(begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    loaded = Loaded()
    member = begin(Collected(), loaded=loaded)
    assert member.join(time.monotonic() + PATIENCE_S), "what never worked is not tried again"
    [error] = loaded
    assert isinstance(error, BackendError) and "No such file" in str(error) and "--processes 0" in str(error)


@pytest.mark.parametrize(
    ("child", "make", "said"),
    [
        ("print('INFO: a library says hello', flush=True)", Blinking, "ValueError"),
        ("import pickle; sys.stdout.buffer.write(pickle.dumps(17)); sys.stdout.flush()", Blinking, "TypeError"),
        ("pass", lambda *given: None, "pickle"),
    ],
)
def test_one_that_cannot_be_understood_is_told(
    child: str, make: Any, said: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_member, "CHILD", f"import sys, threading; {child}; threading.Event().wait()")
    loaded = Loaded()
    member = begin(Collected(), loaded=loaded, make=make)
    assert member.join(time.monotonic() + PATIENCE_S) and member.pid is None
    [error] = loaded
    assert isinstance(error, BackendError) and said in str(error)


class Failing(Collected):
    """A sink that has no place for the first events, nor for the news of what came of that."""

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


def test_an_error_of_the_sink_is_not_the_end(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    sink, loaded = Failing(), Loaded()
    begin(sink, loaded=loaded)
    sink.until(lambda: sink.finals("a") and sink.states("a")[-1] == "live", "events of a second life")
    assert sink.refused == 2 and loaded == [None] and sink.states("a") == ["starting", "live", "reconnecting", "live"]
    assert any("OSError: no room" in status.detail for status in sink.statuses)
    assert "no room" in caplog.text


CLOSED = f"""
import time
from stream.analysis.worker_process import Member
from stream.settings import LiveSettings, SourceSettings
from stream.messages import SourceStatus
from tests.blinking import Blinking
from tests.live import Collected

sink, told = Collected(), []
settings = LiveSettings(sources=(SourceSettings(url="{PATTERN}", name="a"),))
member = Member(1, settings, sink, processed=lambda *figures: None, make=Blinking, name="session")
member.start([SourceStatus("a", "pattern", "starting")], told.append)
sink.until(lambda: told and (told[0] or sink.events), "an event")
print(told[0])
member.end(1.0)
member.join(time.monotonic() + 10)
"""


def test_a_service_without_standard_error_has_processes() -> None:
    begun = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, CLOSED], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (begun.returncode, begun.stdout) == (0, "None\n")


def test_its_log_is_the_services_with_its_own_levels(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink = Collected()
    begin(sink, make=printing)
    sink.until(lambda: sink.events, "an event, in spite of what no pipe can take")
    assert ("printing", logging.WARNING, "a was printed") in caplog.record_tuples


def test_credentials_show_up_in_no_list_of_processes(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cret-word"
    monkeypatch.setenv(TOKEN_VARIABLE, secret)
    sink = Collected()
    source = SourceSettings(url=f"rtsp://me:{secret}@127.0.0.1:1/a", name="far", password=secret)
    member = begin(sink, source, SourceSettings(url=PATTERN, name="a"))
    sink.until(lambda: sink.events and "reconnecting" in sink.states("far"), "both to be tried")
    pid = member.pid
    assert pid is not None
    process = psutil.Process(pid)
    assert secret not in " ".join(process.cmdline()) + " ".join(process.environ().values())
    assert process.cmdline()[-1] == "apexstream sources 1"
    assert secret in pickle.dumps(source).decode("latin-1"), "it goes over a pipe that nobody else reads"
    assert not any(secret in status.detail for status in sink.statuses)
