from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.errors import ApexError, BackendError, ConfigError, InputError, OutputError, SourceError, WeightsError
from engine.types import Frame
from stream.analysis import supervisor as crew_module
from stream.analysis import worker_process as crew_member
from stream.analysis.session import Session
from stream.analysis.supervisor import Crew, at_work, how_many
from stream.events.query import Reader
from stream.mailbox import Mailbox
from stream.messages import Arrival, PreviewWish, SourceStatus
from stream.settings import LiveSettings, SourceSettings
from tests.blinking import PATTERN, Blinking, dying, no_network, not_at_second, unforeseen
from tests.faces import grey_picture
from tests.live import PATIENCE_S, Collected, Ready, arrivals

ROOT = Path(__file__).resolve().parents[3]


def settings(*urls: str, processes: Any = 2) -> LiveSettings:
    sources = tuple(SourceSettings(url=url, name=f"s{number}") for number, url in enumerate(urls))
    return LiveSettings(sources=sources, processes=processes)


@pytest.fixture
def crews() -> Iterator[list[Crew]]:
    """Crews to be stopped, however the test ends, with nothing left behind."""
    begun: list[Crew] = []
    yield begun
    for crew in begun:
        crew.stop(PATIENCE_S)
        assert crew.pids == []
    assert not [t.name for t in threading.enumerate() if t.name.startswith("process ")]


def two_at_work(crews: list[Crew], make: Any) -> tuple[Crew, Collected]:
    """Two sources in two processes, each of which has had an event."""
    sink = Collected()
    crew = Crew(settings(PATTERN, PATTERN), sink, make=make)
    crews.append(crew)
    crew.start()
    sink.until(lambda: sink.finals("s0") and sink.finals("s1"), "events of both")
    return crew, sink


def until(true: Callable[[], Any], what: str) -> Any:
    """What `true` returns once it is true, asked again and again."""
    end = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.02)
    return found


def test_two_processes_bring_what_a_session_would(crews: list[Crew], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink, ready, figures = Collected(), Ready(), []
    crew = Crew(settings(PATTERN, PATTERN, PATTERN), sink, make=Blinking, processed=lambda *each: figures.append(each))
    crews.append(crew)
    began = time.monotonic()
    crew.start(ready)
    assert [status.stream for status in sink.statuses] == ["s0", "s1", "s2"], "all are known from the start"
    assert ready.error() is None
    assert len(set(crew.pids)) == 2 and os.getpid() not in crew.pids and crew.running == 3
    for name in ("s0", "s1", "s2"):
        sink.until(lambda name=name: len(sink.finals(name)) > 1, f"events of {name}")
        events = [one for one in sink.events if one.event.stream == name]
        assert [one.event.state for one in events[:4]] == ["provisional", "final"] * 2, "in order"
        assert all(began < one.arrived < time.monotonic() and one.event.evidence for one in events)
        assert sink.states(name) == ["starting", "live"]
        sink.until(lambda name=name: any(signal_.stream == name for signal_ in sink.signals), "a signal")
        sink.until(lambda name=name: any(one.stream == name for one in sink.activities), "an activity")
        assert any(stream == name and seconds >= 0 for stream, seconds, _ in figures)
    assert not sink.previews
    sink.wish = PreviewWish(64, 20.0)
    sink.until(lambda: {preview.stream for preview in sink.previews} == {"s0", "s1", "s2"}, "the pictures asked for")
    sink.wish = None
    assert crew.stop(PATIENCE_S)
    for name in ("s0", "s1", "s2"):
        assert sink.states(name) == ["starting", "live", "ended"]
        ids = [one.event.id for one in sink.events if one.event.stream == name]
        assert len(sink.finals(name)) == len(set(ids)), "whatever was announced has come to an end"
    assert crew.running == 0 and crew.pids == [] and crew.stop()


def test_a_process_that_dies_is_started_anew(crews: list[Crew], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_member, "FIRST_WAIT_S", 0.05)
    crew, sink = two_at_work(crews, not_at_second)
    victim = crew.pids[0]
    os.kill(victim, signal.SIGKILL)
    sink.until(lambda: "reconnecting" in sink.states("s0"), "its death to be told")
    told = next(status for status in sink.statuses if status.state == "reconnecting")
    assert "SIGKILL" in told.detail and "started anew" in told.detail and told.stream == "s0"
    before = {one.event.id for one in sink.events if one.event.stream == "s0"}
    sink.until(lambda: sink.states("s0")[-1] == "live" and sink.finals("s0")[-1].event.id not in before, "a new life")
    details = [status.detail for status in sink.statuses if status.state == "reconnecting"]
    assert any("no network for s0" in detail for detail in details), "the second one could not begin, and that was told"
    last = next(status for status in reversed(sink.statuses) if status.stream == "s0")
    assert last.frames > told.frames > 0 and last.reconnects == 1 and last.drops >= told.drops
    assert sink.states("s0") == ["starting", "live", "reconnecting", "live"]
    assert sink.states("s1") == ["starting", "live"], "the others do not notice"
    assert victim not in crew.pids and not psutil.pid_exists(victim)
    ids = [one.event.id for one in sink.finals("s0")]
    assert len(ids) == len(set(ids)), "no event of the new life is called like one of the old"


def test_a_process_that_hangs_is_stalled_and_replaced_if_that_lasts(crews: list[Crew], monkeypatch: pytest.MonkeyPatch) -> None:
    crew, sink = two_at_work(crews, Blinking)
    victim = crew.pids[0]
    os.kill(victim, signal.SIGSTOP)
    sink.until(lambda: sink.states("s0")[-1] == "stalled", "its silence to be reported")
    os.kill(victim, signal.SIGCONT)
    sink.until(lambda: sink.states("s0")[-1] == "live", "its return")
    monkeypatch.setattr(crew_member, "REPLACED_S", 4.0)
    monkeypatch.setattr(crew_member, "FIRST_WAIT_S", 0.05)
    os.kill(victim, signal.SIGSTOP)
    sink.until(lambda: sink.states("s0")[-3:] == ["stalled", "reconnecting", "live"], "another process")
    assert sink.states("s1") == ["starting", "live"], "the others do not notice"
    assert victim not in crew.pids and not psutil.pid_exists(victim)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (no_network, WeightsError, "no network for s"),
        (unforeseen, InputError, r"cannot begin \(ZeroDivisionError: nobody foresaw this\)"),
        (dying, BackendError, "SIGKILL"),
    ],
)
def test_what_keeps_processes_from_working_is_told_once(make: Any, kind: type[ApexError], said: str, crews: list[Crew]) -> None:
    ready = Ready()
    crew = Crew(settings(PATTERN, PATTERN), Collected(), make=make)
    crews.append(crew)
    crew.start(ready)
    error = ready.error()
    assert type(error) is kind
    with pytest.raises(kind, match=said):
        raise error
    crew.stop(PATIENCE_S)
    assert len(ready.heard) == 1


@pytest.mark.parametrize("source", [{"url": "pigeon://carrier"}, {"url": "rtsp://a/b", "password_env": "NOT_THERE"}])
def test_what_is_no_source_is_told_at_once(source: dict[str, str]) -> None:
    crew = Crew(LiveSettings(sources=(SourceSettings(**source),), processes=2), Collected())
    with pytest.raises((SourceError, ConfigError)):
        crew.start()
    assert crew.pids == [] and crew.stop()


def test_one_that_hangs_is_killed_in_time(crews: list[Crew]) -> None:
    crew, sink = two_at_work(crews, Blinking)
    stuck = crew.pids[0]
    os.kill(stuck, signal.SIGSTOP)
    began = time.monotonic()
    assert not crew.stop(2.0), "it says that one did not end"
    assert time.monotonic() - began < 10, "two seconds where the machine has nothing else to do"
    assert not psutil.pid_exists(stuck) and crew.pids == []
    assert sink.states("s1")[-1] == "ended", "the other one ended in order"


def test_browsers_are_analysed_here(crews: list[Crew]) -> None:
    sink, feed = Collected(), Mailbox[Arrival](100, newest=False)
    crew = Crew(settings(PATTERN, PATTERN), sink, make=Blinking)
    crews.append(crew)
    crew.start()
    with pytest.raises(InputError, match="'s0' already"):
        crew.add_browser("s0", feed)
    crew.add_browser("desk", feed)
    assert crew.running == 3
    crew.tell(SourceStatus("desk", "browser", "live"))
    for arrival in arrivals([Frame(k, k / 30, grey_picture(48, 64)) for k in range(5)]):
        feed.put(arrival)
    sink.until(lambda: "desk" in {one.event.stream for one in sink.events}, "its event")
    crew.remove_browser("desk")
    assert sink.gone == ["desk"] and sink.finals("desk")[0].event.truncated and sink.states("desk") == ["live"]
    assert crew.running == 2


@pytest.mark.parametrize(
    ("sources", "cores", "asked", "expected"),
    [
        *((0, 8, "auto", 0), (1, 8, "auto", 0), (3, 8, "auto", 0), (4, 8, "auto", 2), (10, 8, "auto", 4)),
        *((10, 2, "auto", 2), (40, 8, "auto", 8), (10, 1, "auto", 1), (10, 2, 0, 0), (3, 8, 2, 2), (1, 8, 4, 1)),
    ],
)
def test_processes_are_as_many_as_sources_and_cores_ask_for(
    sources: int, cores: int, asked: Any, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "_cores", lambda: cores)
    asked_for = settings(*[PATTERN] * sources, processes=asked)
    assert how_many(asked_for) == expected
    made = at_work(asked_for, Collected(), processed=lambda stream, seconds, waiting: None)
    assert type(made) is (Crew if expected > 1 else Session)


# --- the whole service, in a process of its own -----------------------------------------------------------------------------

SCRIPT = f"""
import logging, sys
from pathlib import Path
from stream.settings import LiveSettings, ServerSettings, StoreSettings, sources_from
from stream.service import serve
from tests.blinking import Unbroken

logging.basicConfig(level="INFO")
settings = LiveSettings(
    sources=sources_from(["{PATTERN}"] * 3), processes=2,
    server=ServerSettings(port=0), store=StoreSettings(folder=Path(sys.argv[1])),
)
serve(settings, lambda service: None, make=Unbroken)
"""


def at_its_work(folder: Path, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes below a service, once each of its sources had an event stored."""

    def streams() -> bool:
        assert process.poll() is None
        with contextlib.suppress(InputError, OutputError), Reader(folder) as stored:  # there is no store yet
            return len({event["stream"] for event in stored.since(0)}) == 3
        return False

    until(streams, "events of all sources")
    below = psutil.Process(process.pid).children(recursive=True)
    assert sorted(each.cmdline()[-1] for each in below) == ["apexstream sources 1", "apexstream sources 2"]
    return below


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them is left; one that only waits for the machine's first process to take notice is gone."""
    return all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_end_of_the_service_is_the_end_of_its_processes(number: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        below = at_its_work(tmp_path, process)
        if number == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, number)  # as a terminal does, and a service manager
        _, log = process.communicate(timeout=PATIENCE_S)
        until(lambda: gone(below), "the processes to end")
        with Reader(tmp_path) as stored:
            events = stored.since(0, limit=10_000)
        assert len({event["id"] for event in events}) == len(events)
        if number != signal.SIGKILL:
            assert process.returncode == 0 and "Traceback" not in log and "not every" not in log and "ended in" in log
            last = {event["stream"]: event for event in events}
            assert len(last) == 3 and all(event["truncated"] for event in last.values()), "what was open was flushed"
    finally:
        process.kill()
        process.communicate()
