"""What the dashboard costs the browser: seconds of processor time of a real Chromium's renderer, for events and motion traces.

A service without sources serves the page. The motion traces of several sources are posted to it, ten a second each, as an
analysis makes them. Then events are posted in bursts, each when the page shows the last event of the one before: what an event
takes then limits how many a second a page can show.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import typer
from playwright.sync_api import Page, sync_playwright

from stream.messages import Decided, FaceTrace, Signal, SourceStatus
from tests.browser import RunningService, chromium, visited
from tests.events import an_event
from tests.soak.command import Record, command_line, finish, unmet

SIGNALS_A_SECOND = 10
MAX_EVENT_MS = 50.0
"""An event that takes the page longer can be seen as a stutter."""

MAX_SHARE = 0.8
"""Of a core; beyond it the page falls behind now and then."""


def measure(bursts: int, burst: int, sources: int, seconds: float) -> dict[str, Any]:
    """One page in one Chromium: milliseconds of its renderer an event, by the processor and by the clock, and the share of a
    core that it takes without and with motion traces."""
    with tempfile.TemporaryDirectory(prefix="apexstream-soak-") as folder, _page(Path(folder)) as (service, page):
        names = [f"camera-{number}" for number in range(sources)]
        service.tell(*(SourceStatus(name, "network", "live") for name in names))
        _post_signals(service, names, seconds / 5)  # the page is laid out
        idle = _cpu_s(lambda: time.sleep(seconds)) / seconds
        traced = _cpu_s(lambda: _post_signals(service, names, seconds)) / seconds
        _burst_s(service, page, names, 0, burst)
        clock: list[float] = []
        cpu = _cpu_s(lambda: clock.extend(_burst_s(service, page, names, k * burst, burst) for k in range(1, bursts + 1)))
    return {
        "bursts": bursts,
        "events_a_burst": burst,
        "sources": sources,
        "ms_per_event": round(1000 * cpu / bursts / burst, 3),
        "clock_ms_per_event": round(1000 * median(clock) / burst, 3),
        "cores_idle": round(idle, 3),
        "cores_with_traces": round(traced, 3),
    }


@contextmanager
def _page(folder: Path) -> Iterator[tuple[RunningService, Page]]:
    with (
        RunningService(folder) as service,
        sync_playwright() as driver,
        chromium(driver) as browser,
        visited(browser, service.url) as page,
    ):
        yield service, page


def _cpu_s(work: Callable[[], object]) -> float:
    """Seconds of processor time of Chromium's renderers during some work here; one of them runs the page, the others rest."""
    children = psutil.Process().children(recursive=True)
    renderers = [child for child in children if "--type=renderer" in child.cmdline()]

    def used() -> float:
        return float(sum(sum(renderer.cpu_times()[:2]) for renderer in renderers))

    before = used()
    work()
    return used() - before


def _burst_s(service: RunningService, page: Page, names: list[str], first: int, count: int) -> float:
    """Seconds until the page shows the last of some events that are posted at once; the store has none but these."""
    events = [an_event(number, stream=names[number % len(names)]) for number in range(first, first + count)]
    started = time.monotonic()
    service.tell(*(Decided(event, started) for event in events))
    page.wait_for_selector(f"#rows tr[data-seq='{first + count}']")
    return time.monotonic() - started


def _post_signals(service: RunningService, names: list[str], seconds: float) -> None:
    started = time.monotonic()
    for number in range(round(seconds * SIGNALS_A_SECOND)):
        t = tuple(number / SIGNALS_A_SECOND + step / 30 for step in range(3))
        trace = FaceTrace(0, t, (0.31, 0.35, 0.4), (0.12, 0.13, 0.16))
        service.tell(*(Signal(name, t[-1], time.monotonic(), (trace,)) for name in names))
        time.sleep(max(0.0, started + (number + 1) / SIGNALS_A_SECOND - time.monotonic()))


def violations(found: dict[str, Any]) -> list[str]:
    """What is not within the limits, in sentences."""
    event, traced = found["ms_per_event"], found["cores_with_traces"]
    return unmet(
        {
            f"an event takes the page {event} ms, more than {MAX_EVENT_MS:g}": event <= MAX_EVENT_MS,
            f"with motion traces the page takes {traced} cores": traced <= MAX_SHARE,
        }
    )


def main(
    *,
    bursts: Annotated[int, typer.Option(min=1, help="Bursts of events.")] = 9,
    burst: Annotated[int, typer.Option(min=1, help="Events a burst.")] = 60,
    sources: Annotated[int, typer.Option(min=1, help="Sources that they are from.")] = 12,
    seconds: Annotated[float, typer.Option(min=0.2, help="How long motion traces are posted.")] = 10.0,
    json: Record = None,
) -> None:
    """Measure, and compare with the limits."""
    load = os.getloadavg()[0]
    found = measure(bursts, burst, sources, seconds)
    typer.echo(
        f"an event takes the page {found['ms_per_event']} ms of a core; the page takes {found['cores_idle']} cores, with the "
        f"motion traces of {sources} sources {found['cores_with_traces']}"
    )
    command = f"python -m tests.soak.page --bursts {bursts} --burst {burst} --sources {sources} --seconds {seconds:g}"
    machine = {"cores": os.cpu_count(), "load": [round(load, 1), round(os.getloadavg()[0], 1)]}
    finish({"command": command, "machine": machine, **found}, violations(found), json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
