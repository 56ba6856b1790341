"""What the commands show on the terminal: a progress bar on stderr, tables on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from engine.text import plain
from engine.types import Event, Mark

PIPED_WIDTH = 120
NARROW = 80
"""A terminal of so many columns shows whole numbers in every table."""
SHOWN_EVENTS = 200
REFRESH_S = 0.1


class _Speed(ProgressColumn):
    """Frames per second since the start."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} frames/s" if task.speed else "starting", style="progress.data.speed")


def table_console() -> Console:
    """Where tables go: stdout, wide enough for them where there is no terminal to fit."""
    return Console(width=table_width(PIPED_WIDTH), highlight=False, markup=False, soft_wrap=False)


def table_width(piped: int) -> int:
    """Columns for a table: those of the terminal, but as many as its numbers need; where there is no terminal, as given."""
    return max(Console().width, NARROW) if sys.stdout.isatty() else piped


def shaped_table() -> Table:
    """An empty table with lines below its heading alone, whose columns take no more room than they need."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def stages_bar(console: Console) -> Callable[[str, int, int], None]:
    """A bar for each stage, one after the other; a stage ends when all of it is done.

    Call what it gives with what was done last, and how many steps of how many are done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console)

    def update(what: str, done: int, total: int) -> None:
        if not bar.live.is_started:
            for ended in bar.task_ids:
                bar.remove_task(ended)
            bar.add_task(what, total=total)
            bar.start()
        bar.update(bar.task_ids[0], completed=done, description=what)
        if done == total:
            bar.stop()

    return update


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int | None, int], None]]:
    """A bar with speed and time left; call what it yields with frames done, frames expected (or None) and events so far.

    Shown on a terminal only.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        _Speed(),
        TextColumn("{task.fields[events]} events"),
        TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None, events=0)
        shown_at = 0.0

        def show(done: int, expected: int | None, events: int) -> None:
            nonlocal shown_at
            now = time.monotonic()
            if console.is_terminal and now - shown_at >= REFRESH_S:
                shown_at = now
                bar.update(task, completed=done, total=expected, events=events)

        yield show


@contextmanager
def share_bar(label: str) -> Iterator[Callable[[float], None]]:
    """A bar for some work; call what it yields with the share that is done, 0 to 1. Shown on a terminal only."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=1.0)
        yield lambda share: bar.update(task, completed=share)


class TaskBars:
    """A context with a bar for all of some work, and one for each part of it that is under way; shown on a terminal only.

    size_total and the sizes of parts are in a unit that grows with the time the work takes, such as bytes.
    """

    def __init__(self, size_total: int) -> None:
        self._total, self._done, self._started = size_total, 0, time.monotonic()
        self._console = Console(file=sys.stderr)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        self._bars = Progress(
            *columns,
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),
            speed_estimate_period=600,
        )
        self._all = self._bars.add_task("all videos", total=size_total or None)
        self._parts: dict[str, tuple[TaskID, int, int]] = {}  # the bar, size, and what of the size is done
        self._shown_at = 0.0

    def __enter__(self) -> TaskBars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, name: str, label: str, size: int) -> None:
        """A part is under way."""
        self._parts[name] = self._bars.add_task(label, total=None), size, 0

    def update(self, name: str, done: int, expected: int | None) -> None:
        """So many steps of the part are done, of so many expected, if that is known."""
        bar, size, _ = self._parts[name]
        self._parts[name] = bar, size, round(size * min(1.0, done / expected)) if expected else 0
        now = time.monotonic()
        if self._console.is_terminal and now - self._shown_at >= REFRESH_S:
            self._shown_at = now
            self._bars.update(bar, completed=done, total=expected)
            self._bars.update(self._all, completed=self._so_far())

    def end(self, name: str) -> None:
        """A part is done."""
        bar, size, _ = self._parts.pop(name)
        self._done += size
        self._bars.remove_task(bar)
        self._bars.update(self._all, completed=self._so_far())

    def left_s(self) -> float | None:
        """Seconds until all is done, if it goes on like this; None before anything is."""
        done = self._so_far()
        return (time.monotonic() - self._started) * (self._total - done) / done if done else None

    def _so_far(self) -> int:
        return self._done + sum(done for _, _, done in self._parts.values())


def duration(seconds: float | None) -> str:
    """A time in words that fit its length: 40 s, 12 min, 3 h 20 min."""
    if seconds is None:
        return "unknown time"
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def bytes_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for a download; call what it yields with the bytes that are here and how many there will be.

    On a terminal a bar, elsewhere a line at the start; nothing where nothing comes.
    """
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        def show(done: int, expected: int) -> None:
            if not bar.task_ids:
                bar.add_task(label)
                if not console.is_terminal:
                    console.print(f"{label} ({expected / 1e6:.1f} MB)", markup=False, highlight=False)
            bar.update(bar.task_ids[0], completed=done, total=expected)

        yield show


def event_table(events: Iterable[Event]) -> Table:
    """Events, one a row, times in seconds."""
    table = shaped_table()
    for name in ("face", "onset s", "apex s", "offset s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("label", overflow="fold")
    for name in ("confidence", "intensity\npx"):
        table.add_column(name, justify="right", no_wrap=True)
    for event in events:
        notes = (event.why, "cut short" if event.truncated else None)
        label = plain(event.label + "".join(f" ({note})" for note in notes if note))
        times = [_seconds(mark) for mark in (event.onset, event.apex, event.offset)]
        table.add_row(str(event.face), *times, event.kind or "", label, f"{event.confidence:.2f}", f"{event.intensity:.2f}")
    return table


def _seconds(mark: Mark | None) -> str:
    return "" if mark is None else f"{mark.t:.3f}"
