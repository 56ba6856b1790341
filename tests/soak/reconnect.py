"""Breaks a live source again and again, and reports what that leaves behind.

A real RTSP server is killed and started again, frozen, and its connections reset, stalled and silently dropped on their way, in
turns. After each return the time to the next frame is measured; before and after, this process's threads, handles and memory.

Killed, frozen and stalled sources return once their loss has been noticed, and must show pictures within 5 s. After a silent
drop the source is back at once, yet its old connection is dead without a word: that is noticed only after the source's stall_s,
so pictures must come within stall_s and 5 s. It is counted apart.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from stream.messages import Arrival, SourceStatus
from stream.queues import BoundedQueue
from stream.sources.capture import Capture
from stream.sources.settings import SourceSettings
from tests.soak.command import Record, command_line, finish, spread, unmet
from tests.soak.rtsp import RtspServer, TcpProxy

LIMIT_S = 5.0
"""Frames must come again within this after the source's return, or after stall_s where the loss had to be noticed first."""

MAX_GROWTH = 0.05
"""Of memory, from warmed up to the end."""

GIVE_UP_S = 60.0
SETTLE_S = 30.0
STEADY_FRAMES = 10
SILENT_DROP = "silent-drop"
FAULTS = ("kill", "reset", "freeze", "stall", SILENT_DROP)
"""In the order in which they take turns."""


@dataclass(frozen=True)
class Holdings:
    """What this process holds: threads by Python's count and by the system's, open handles, resident memory in MiB."""

    threads: int
    system_threads: int
    handles: int
    memory_mib: float


@dataclass(frozen=True)
class Return:
    """One loss and return: how the source was broken, and seconds from its return to the first frame after it."""

    fault: str
    seconds: float


class BreakableSource:
    """A capture of a server behind a proxy, which `break_and_mend` breaks and mends."""

    def __init__(self, server: RtspServer, proxy: TcpProxy, stall_s: float) -> None:
        self._server, self._proxy = server, proxy
        self._box: BoundedQueue[Arrival] = BoundedQueue(4, drop_oldest=True)
        url = server.url.replace(f":{server.port}", f":{proxy.port}")
        self.capture = Capture(SourceSettings(url=url, stall_s=stall_s), self._box, self._hear)
        self._lost: BoundedQueue[SourceStatus] = BoundedQueue(1, drop_oldest=True)

    def _hear(self, status: SourceStatus) -> None:
        if status.state in ("stalled", "reconnecting"):
            self._lost.put(status)

    def frame(self) -> Arrival:
        """The next frame. Raises TimeoutError."""
        arrival = self._box.get(GIVE_UP_S)
        if arrival is None:
            raise TimeoutError(self.capture.status.detail)
        return arrival

    def break_and_mend(self, how: str) -> Return:
        """Break the source, wait until that is noticed, mend it, and wait for its frames; a silent drop needs no mending."""
        ways: dict[str, tuple[Callable[[], None], Callable[[], None] | None]] = {
            "kill": (self._server.kill, self._server.start),
            "reset": (self._proxy.reset, None),
            "freeze": (self._server.freeze, self._server.thaw),
            "stall": (self._proxy.stall, self._proxy.flow),
            SILENT_DROP: (self._proxy.drop_silently, None),
        }
        start_fault, end_fault = ways[how]
        self._lost, known = BoundedQueue(1, drop_oldest=True), self.capture.status.reconnects
        start_fault()
        broken = time.monotonic()
        self._lost.get(GIVE_UP_S)
        noticed = time.monotonic()
        if end_fault is not None:
            end_fault()
        returned = broken if how == SILENT_DROP else time.monotonic()
        arrival = self.frame()
        while self.capture.status.reconnects == known or arrival.arrived < max(noticed, returned):
            if time.monotonic() - returned > GIVE_UP_S:
                raise TimeoutError(f"no frame came again after the {how}")
            arrival = self.frame()
        return Return(how, round(arrival.arrived - returned, 3))


def holdings(threads: int | None = None) -> Holdings:
    """What is held now; given a number of threads, connections left behind are waited for until no more are there."""
    process = psutil.Process()
    until = time.monotonic() + SETTLE_S
    while threads is not None and threading.active_count() > threads and time.monotonic() < until:
        for thread in threading.enumerate():
            if thread.name.startswith("read "):
                thread.join(0.1)
    gc.collect()
    return Holdings(
        threading.active_count(), process.num_threads(), process.num_fds(), round(process.memory_info().rss / 2**20, 2)
    )


def soak(
    times: int, warm_up: int, stall_s: float, progress: Callable[[int, Return, Holdings], None]
) -> tuple[list[Return], list[Holdings]]:
    """Break a source so many times; the returns, and what was held after warming up, every tenth time and at the end."""
    with RtspServer(size=(640, 480)) as server, TcpProxy(server.port) as proxy:
        source = BreakableSource(server, proxy, stall_s)
        source.capture.start()
        try:
            source.frame()
            for number in range(warm_up):
                source.break_and_mend(FAULTS[number % len(FAULTS)])
            held = [holdings()]
            returns = []
            for number in range(1, times + 1):
                returns.append(source.break_and_mend(FAULTS[number % len(FAULTS)]))
                for _ in range(STEADY_FRAMES):
                    source.frame()
                if number % 10 == 0 or number == times:
                    held.append(holdings(held[0].threads))
                progress(number, returns[-1], held[-1])
        finally:
            source.capture.stop()
    return returns, held


def violations(returns: Sequence[Return], held: Sequence[Holdings], *, stall_s: float) -> list[str]:
    """What is not within the limits, in sentences; stall_s is the source's."""
    before, after = held[0], held[-1]
    growth = after.memory_mib / before.memory_mib - 1
    seen = max((each.seconds for each in returns if each.fault != SILENT_DROP), default=0.0)
    unseen = max((each.seconds for each in returns if each.fault == SILENT_DROP), default=0.0)
    allowed = f"stall_s and {LIMIT_S:g} s are allowed"
    checks = {
        f"frames came {seen:.1f} s after a return": seen < LIMIT_S,
        f"frames came {unseen:.1f} s after a connection died unnoticed ({allowed})": unseen < stall_s + LIMIT_S,
        f"threads grew from {before.threads} to {after.threads}": after.threads <= before.threads,
        f"handles grew from {before.handles} to {after.handles}": after.handles <= before.handles,
        f"memory grew by {growth:.1%}": growth < MAX_GROWTH,
    }
    return unmet(checks)


def figures(returns: Sequence[Return]) -> dict[str, dict[str, float]]:
    """How long it took, by fault, and for all whose loss was noticed before the source's return."""
    noticed = [each.seconds for each in returns if each.fault != SILENT_DROP]
    by_fault = {fault: spread([each.seconds for each in returns if each.fault == fault], 3) for fault in FAULTS}
    return {**by_fault, "all noticed": spread(noticed, 3)}


def _table(found: dict[str, dict[str, float]]) -> Table:
    table = Table("fault", "times", "median s", "p95 s", "worst s", title="From the source's return to its next frame")
    for fault, row in found.items():
        table.add_row(fault, *(f"{value:g}" for value in row.values()))
    return table


def main(
    *,
    times: Annotated[int, typer.Option(min=1, help="How often the source is broken.")] = 200,
    warm_up: Annotated[int, typer.Option(min=0, help="Losses before the first count.")] = 8,
    stall: Annotated[float, typer.Option(help="The source's stall_s, seconds.")] = 1.0,
    json: Record = None,
) -> None:
    """Break the source, and compare its returns and what is left behind with the limits."""
    console = Console(stderr=True)

    def progress(number: int, last: Return, held: Holdings) -> None:
        if number % 10 == 0 or number == times:
            console.print(f"{number}: {last.fault} {last.seconds:.2f} s, {held.handles} handles, {held.memory_mib} MiB")

    started = time.monotonic()
    returns, held = soak(times, warm_up, stall, progress)
    found = figures(returns)
    console.print(_table(found))
    console.print(f"before: {held[0]}\nafter:  {held[-1]}")
    record = {
        "command": f"python -m tests.soak.reconnect --times {times} --stall {stall:g}",
        "minutes": round((time.monotonic() - started) / 60, 1),
        "stall_s": stall,
        "returns": found,
        "before": asdict(held[0]),
        "after": asdict(held[-1]),
        "memory_mib": [each.memory_mib for each in held],
    }
    finish(record, violations(returns, held, stall_s=stall), json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
