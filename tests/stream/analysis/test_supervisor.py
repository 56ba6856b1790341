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
from stream.analysis import supervisor as supervisor_module
from stream.analysis import worker_process
from stream.analysis.session import Session
from stream.analysis.supervisor import Supervisor, create_session, process_count
from stream.analysis.worker_process import WorkerProcess
from stream.events.query import Reader
from stream.messages import Arrival, SourceStatus, WantedPreview
from stream.queues import BoundedQueue
from stream.settings import LiveSettings
from stream.sources.settings import SourceSettings
from tests.blinking import PATTERN, Blinking, dying, no_network, not_at_second, unforeseen
from tests.faces import grey_picture
from tests.live import PATIENCE_S, Collected, Ready, arrivals

ROOT = Path(__file__).resolve().parents[3]


def settings(*urls: str, processes: Any = 2) -> LiveSettings:
    sources = tuple(SourceSettings(url=url, name=f"s{number}") for number, url in enumerate(urls))
    return LiveSettings(sources=sources, processes=processes)


@pytest.fixture
def supervisors() -> Iterator[list[Supervisor]]:
    """Supervisors that are stopped after the test, with nothing left behind."""
    started: list[Supervisor] = []
    yield started
    for supervisor in started:
        supervisor.stop(PATIENCE_S)
        assert pids(supervisor) == []
    assert not [t.name for t in threading.enumerate() if t.name.startswith("process ")]


def pids(supervisor: Supervisor) -> list[int]:
    """The worker processes that are alive."""
    return [process.pid for worker in supervisor._processes if (process := worker._process) is not None]


def two_processes(supervisors: list[Supervisor], make: Any) -> tuple[Supervisor, Collected]:
    """Two sources in two processes, after an event of each."""
    sink = Collected()
    supervisor = Supervisor(settings(PATTERN, PATTERN), sink, make=make)
    supervisors.append(supervisor)
    supervisor.start()
    sink.until(lambda: sink.finals("s0") and sink.finals("s1"), "events of both")
    return supervisor, sink


def until(true: Callable[[], Any], what: str) -> Any:
    """What `true` returns once it is true, polled."""
    end = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.02)
    return found


def test_two_processes_send_what_a_session_would(supervisors: list[Supervisor], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink, ready, figures = Collected(), Ready(), []
    supervisor = Supervisor(
        settings(PATTERN, PATTERN, PATTERN), sink, make=Blinking, processed=lambda *each: figures.append(each)
    )
    supervisors.append(supervisor)
    began = time.monotonic()
    supervisor.start(ready)
    assert [status.stream for status in sink.statuses] == ["s0", "s1", "s2"], "all are known from the start"
    assert ready.error() is None
    assert len(set(pids(supervisor))) == 2 and os.getpid() not in pids(supervisor)
    for name in ("s0", "s1", "s2"):
        sink.until(lambda name=name: len(sink.finals(name)) > 1, f"events of {name}")
        events = [one for one in sink.events if one.event.stream == name]
        assert [one.event.state for one in events[:4]] == ["provisional", "final"] * 2, "in order"
        assert all(began < one.arrived < time.monotonic() for one in events)
        assert events[0].event.evidence is not None
        assert sink.states(name) == ["starting", "live"]
        sink.until(lambda name=name: any(signal_.stream == name for signal_ in sink.signals), "a signal")
        sink.until(lambda name=name: any(one.stream == name for one in sink.activities), "an activity")
        assert any(stream == name and seconds >= 0 for stream, seconds, _ in figures)
    assert not sink.previews
    sink.wanted = WantedPreview(64, 20.0)
    sink.until(lambda: {preview.stream for preview in sink.previews} == {"s0", "s1", "s2"}, "the pictures asked for")
    sink.wanted = None
    assert supervisor.stop(PATIENCE_S)
    for name in ("s0", "s1", "s2"):
        assert sink.states(name) == ["starting", "live", "ended"]
        ids = [one.event.id for one in sink.events if one.event.stream == name]
        assert len(sink.finals(name)) == len(set(ids)), "every provisional event became final"
    assert pids(supervisor) == [] and supervisor.stop()


def test_a_process_that_exits_is_restarted(supervisors: list[Supervisor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "FIRST_WAIT_S", 0.05)
    supervisor, sink = two_processes(supervisors, not_at_second)
    victim = pids(supervisor)[0]
    os.kill(victim, signal.SIGKILL)
    sink.until(lambda: "reconnecting" in sink.states("s0"), "its exit to be reported")
    exited = next(status for status in sink.statuses if status.state == "reconnecting")
    assert "SIGKILL" in exited.detail and "is restarted" in exited.detail and exited.stream == "s0"
    before = {one.event.id for one in sink.events if one.event.stream == "s0"}
    sink.until(lambda: sink.states("s0")[-1] == "live" and sink.finals("s0")[-1].event.id not in before, "a new process")
    details = [status.detail for status in sink.statuses if status.state == "reconnecting"]
    assert any("no network for s0" in detail for detail in details), "the second process could not load, which was reported"
    last = next(status for status in reversed(sink.statuses) if status.stream == "s0")
    assert last.frames > exited.frames > 0 and last.reconnects == 1 and last.drops >= exited.drops
    assert sink.states("s0") == ["starting", "live", "reconnecting", "live"]
    assert sink.states("s1") == ["starting", "live"], "the others are not affected"
    assert victim not in pids(supervisor) and not psutil.pid_exists(victim)
    ids = [one.event.id for one in sink.finals("s0")]
    assert len(ids) == len(set(ids)), "the new process reuses no event id"


def test_a_process_that_hangs_is_stalled_and_replaced_if_that_lasts(
    supervisors: list[Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, sink = two_processes(supervisors, Blinking)
    victim = pids(supervisor)[0]
    os.kill(victim, signal.SIGSTOP)
    sink.until(lambda: sink.states("s0")[-1] == "stalled", "its silence to be reported")
    os.kill(victim, signal.SIGCONT)
    sink.until(lambda: sink.states("s0")[-1] == "live", "its recovery")
    monkeypatch.setattr(worker_process, "REPLACED_S", 4.0)
    monkeypatch.setattr(worker_process, "FIRST_WAIT_S", 0.05)
    os.kill(victim, signal.SIGSTOP)
    sink.until(lambda: sink.states("s0")[-3:] == ["stalled", "reconnecting", "live"], "another process")
    assert sink.states("s1") == ["starting", "live"], "the others are not affected"
    assert victim not in pids(supervisor) and not psutil.pid_exists(victim)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (no_network, WeightsError, "no network for s"),
        (unforeseen, InputError, r"cannot begin \(ZeroDivisionError: an unexpected error\)"),
        (dying, BackendError, "SIGKILL"),
    ],
)
def test_what_prevents_the_analysis_is_reported_once(
    make: Any, kind: type[ApexError], message: str, supervisors: list[Supervisor]
) -> None:
    ready = Ready()
    supervisor = Supervisor(settings(PATTERN, PATTERN), Collected(), make=make)
    supervisors.append(supervisor)
    supervisor.start(ready)
    error = ready.error()
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error
    supervisor.stop(PATIENCE_S)
    assert len(ready.results) == 1


@pytest.mark.parametrize("source", [{"url": "pigeon://carrier"}, {"url": "rtsp://a/b", "password_env": "NOT_THERE"}])
def test_an_invalid_source_is_reported_at_once(source: dict[str, str]) -> None:
    supervisor = Supervisor(LiveSettings(sources=(SourceSettings(**source),), processes=2), Collected())
    with pytest.raises((SourceError, ConfigError)):
        supervisor.start()
    assert pids(supervisor) == [] and supervisor.stop()


def test_a_process_that_hangs_is_killed_when_the_time_is_up(supervisors: list[Supervisor]) -> None:
    supervisor, sink = two_processes(supervisors, Blinking)
    hanging = pids(supervisor)[0]
    os.kill(hanging, signal.SIGSTOP)
    began = time.monotonic()
    assert not supervisor.stop(2.0), "one did not end by itself"
    assert time.monotonic() - began < 10, "two seconds on an idle machine"
    until(lambda: not psutil.pid_exists(hanging) and pids(supervisor) == [], "the system to free what it held")
    assert sink.states("s1")[-1] == "ended", "the other one was flushed"


def test_several_threads_may_stop_it_and_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(WorkerProcess, "end", lambda process, within: ended.append(process.number))
    supervisor = Supervisor(settings(*[PATTERN] * 4), Collected())
    together = threading.Barrier(8)

    def stop() -> None:
        together.wait(PATIENCE_S)
        supervisor.stop()

    threads = [threading.Thread(target=stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(ended) == list(range(1, len(ended) + 1)) and ended


def test_browsers_are_analysed_in_this_process(supervisors: list[Supervisor]) -> None:
    sink, feed = Collected(), BoundedQueue[Arrival](100)
    supervisor = Supervisor(settings(PATTERN, PATTERN), sink, make=Blinking)
    supervisors.append(supervisor)
    supervisor.start()
    with pytest.raises(InputError, match="'s0' already"):
        supervisor.add_browser("s0", feed)
    supervisor.add_browser("desk", feed)
    assert list(supervisor._streams) == ["desk"]
    supervisor.report(SourceStatus("desk", "browser", "live"))
    for arrival in arrivals([Frame(k, k / 30, grey_picture(48, 64)) for k in range(5)]):
        feed.put(arrival)
    sink.until(lambda: "desk" in {one.event.stream for one in sink.events}, "its event")
    supervisor.remove_browser("desk")
    assert sink.gone == ["desk"] and sink.finals("desk")[0].event.truncated and sink.states("desk") == ["live"]
    assert not supervisor._streams


@pytest.mark.parametrize(
    ("sources", "cores", "asked", "expected"),
    [
        *((0, 8, "auto", 0), (1, 8, "auto", 0), (3, 8, "auto", 0), (4, 8, "auto", 2), (10, 8, "auto", 4)),
        *((10, 2, "auto", 2), (40, 8, "auto", 8), (10, 1, "auto", 1), (10, 2, 0, 0), (3, 8, 2, 2), (1, 8, 4, 1)),
    ],
)
def test_the_number_of_processes_follows_sources_and_cores(
    sources: int, cores: int, asked: Any, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "core_count", lambda: cores)
    asked_for = settings(*[PATTERN] * sources, processes=asked)
    assert process_count(asked_for) == expected
    made = create_session(asked_for, Collected(), processed=lambda stream, seconds, waiting: None)
    assert type(made) is (Supervisor if expected > 1 else Session)


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


def workers(folder: Path, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes of a service, once an event of each of its sources is stored."""

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
    """Whether none of them runs; a zombie, which init has not reaped yet, does not."""
    return all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_worker_processes_end_with_the_service(number: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        below = workers(tmp_path, process)
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
