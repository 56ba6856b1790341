"""What `apexstream analyze` does with videos and folders, and what it prints meanwhile."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from apexstream.commands import say, say_error
from apexstream.commands.fetch import have_face_model
from apexstream.display import SHOWN_EVENTS, TaskBars, duration, event_table, progress_bar, table_console
from apexstream.video_analysis import AnalysisOptions, analyze_video
from engine.errors import ApexError, InputError, OutputError
from engine.text import plain
from stream.files import folder_lock, remove_leftovers, write_errors
from stream.process import core_count
from stream.recorded.analyze import Report
from stream.recorded.folders.finding import Found, find_videos, skipped
from stream.recorded.folders.index import write_index
from stream.recorded.folders.outcome import Outcome
from stream.recorded.folders.runs import Finished, Plan, Watcher, make_plan, run_here
from stream.recorded.folders.store import Store
from stream.recorded.folders.table import Table
from stream.recorded.folders.tasks import INDEX, TABLE, Task, make_tasks
from stream.recorded.folders.workers import Setup, StopRequest, default_jobs, run_in_processes

TABLE_S = 10.0
"""How often the table over all videos is written while a run goes on, seconds."""


class AnalysisRun:
    """One call of the command: results go to out, or to the store of which out is a mirror. Setting stop ends it in order."""

    def __init__(
        self, options: AnalysisOptions, out: Path, stop: StopRequest, *, debug: bool = False, store: Store | None = None
    ) -> None:
        self._options, self._out, self._stop, self._debug, self._store = options, out, stop, debug, store
        self._setup = Setup(partial(analyze_video, options=options), options.wanted(), out, store)

    def analyze(
        self, videos: Sequence[Path], *, recursive: bool, again: bool, jobs: int | None, cluster: str | None = None
    ) -> bool:
        """Analyse videos and those in folders, so many at once; True where all of each was analysed, now or before.

        cluster is the address of a Ray cluster that does it, or auto. Raises InputError where there is no video, OutputError
        where another run uses the output folder, and what `apexstream.cluster.connection.connected` does.
        """
        found = find_videos(videos, recursive=recursive, out=self._out)
        many = cluster is not None or self._store is not None or (jobs or 1) > 1 or any(video.is_dir() for video in videos)
        if not found.videos:
            raise InputError(_nothing_found(videos, found))
        with self._locked(many):
            tasks = make_tasks(found.videos, self._out)
            plan = make_plan(tasks, self._setup.wanted, again=again)
            if many:
                return self._analyze_many(found, plan, jobs, cluster, again=again)
            for task in plan.todo:
                if task.name != task.video.stem:
                    _say_line(f"{task.video}: the name {task.video.stem} is taken; its results go to {task.folder}")
            return self._analyze_here(plan)

    def _analyze_here(self, plan: Plan) -> bool:
        watcher = _VideoWatcher(self._options, self._debug)
        for finished in plan.finished:
            watcher.finished_before(finished)
        run_here(plan.todo, self._setup.analyse, self._setup.wanted, out=self._out, watcher=watcher, stop=self._stop)
        for task in plan.todo:
            if task not in watcher.done:
                watcher.problem(task, "not analysed, stopped by the user")
        return watcher.complete

    def _analyze_many(self, found: Found, plan: Plan, jobs: int | None, cluster: str | None, *, again: bool) -> bool:
        remove_leftovers(self._out)
        others = ", ".join(skipped(found))
        say(f"{_videos(len(found.videos))} found" + (f"; besides {others}" if others else ""))
        for sentence in found.unreadable:
            say_error(sentence)
        table = _Tables(self._out, [*plan.todo, *(one.task for one in plan.finished)], self._store)
        with TaskBars(sum(task.size for task in plan.todo)) as bars:
            watcher = _FolderWatcher(plan, bars, table, self._debug)
            for finished in plan.finished:
                watcher.finished_before(finished)
            lost = None
            try:
                self._do(plan.todo, watcher, jobs, cluster)
            except ApexError as error:  # a cluster that was lost: what has come of the videos is shown all the same
                lost = error
        watcher.close()
        if lost is not None:
            with suppress(OutputError):
                table.write()
            raise lost
        left = len(plan.todo) - len(watcher.done)
        if left:
            why = "by the user" if self._stop.is_set() else "as the disk is full"
            goes_on = "--again analyses all of them again" if again else "the same command goes on from there"
            say_error(f"stopped {why} before {_videos(left)} could be analysed; {goes_on}")
        table.write()
        out = self._out if self._store is None else self._store.url.rstrip("/")
        say(f"all videos: {out}/{INDEX} and {out}/{TABLE}")
        return watcher.complete and not left and not found.unreadable

    def _do(self, tasks: Sequence[Task], watcher: Watcher, jobs: int | None, cluster: str | None) -> None:
        if cluster is None:
            run_in_processes(tasks, self._setup, jobs=jobs or default_jobs(core_count()), watcher=watcher, stop=self._stop)
        elif tasks:
            from apexstream.cluster.archive import run_on_cluster
            from apexstream.cluster.connection import connected

            with connected(cluster) as nodes:
                run_on_cluster(
                    tasks,
                    self._options,
                    partial(have_face_model, self._options.settings.pipeline.landmarks.model),
                    out=self._out,
                    store=self._store,
                    cluster=nodes,
                    jobs=jobs,
                    watcher=watcher,
                    stop=self._stop,
                    say=_say_line,
                )

    @contextmanager
    def _locked(self, alone: bool) -> Iterator[None]:
        """The output folder is this run's alone, or shared with other runs over single videos."""
        with ExitStack() as opened:
            if alone:
                with write_errors(self._out):
                    self._out.mkdir(parents=True, exist_ok=True)
            if self._out.is_dir():
                try:
                    opened.enter_context(folder_lock(self._out, shared=not alone))
                except BlockingIOError:
                    raise OutputError(
                        f"{self._out} is in use by another apexstream analyze; wait for its end, or choose another folder"
                    ) from None
            yield


class _Watcher:
    """What all runs print: problems."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug
        self.complete = True
        self.done: set[Task] = set()

    def finished_before(self, finished: Finished) -> None:
        """Results of an earlier run stay."""
        if finished.problem is not None:
            self.problem(finished.task, f"{finished.problem} (found before; --again tries again)")

    def ended(self, outcome: Outcome) -> None:
        """The video is done, or has failed."""
        self.done.add(outcome.task)
        if outcome.problem is not None:
            hint = "; run again with --debug to see where" if outcome.defect else ""
            self.problem(outcome.task, outcome.problem + hint)
        if self._debug and outcome.trace:
            print(outcome.trace, file=sys.stderr, end="")

    def problem(self, task: Task, sentence: str) -> None:
        """Something is missing in the results."""
        self.complete = False
        video = str(task.video)
        say_error(sentence if video in sentence else f"{video}: {sentence}")


class _VideoWatcher(_Watcher):
    """Prints a bar and the events for each of some videos."""

    def __init__(self, options: AnalysisOptions, debug: bool) -> None:
        super().__init__(debug)
        self._options = options
        self._bar = ExitStack()
        self._show: Callable[[int, int | None, int], None] = lambda done, expected, events: None

    def finished_before(self, finished: Finished) -> None:
        """Results of an earlier run stay."""
        hint = "" if finished.kept else " (--again analyses it again)"
        _say_line(f"{finished.task.video}: {_why_kept(finished)}; results in {finished.task.folder}{hint}")
        super().finished_before(finished)

    def started(self, task: Task) -> None:
        """Show the bar."""
        self._show = self._bar.enter_context(progress_bar(plain(task.video.name)))

    def progressed(self, task: Task, done: int, expected: int | None, events: int) -> None:
        """Move the bar."""
        self._show(done, expected, events)

    def ended(self, outcome: Outcome) -> None:
        """Replace the bar by what was found."""
        self._bar.close()
        if outcome.report is not None:
            show(outcome.report)
            if self._options.report:
                say(f"  report: {outcome.task.folder / 'report.html'}")
            if self._options.pictures:
                count = len(outcome.report.events)
                say(f"  pictures: {outcome.task.folder / 'overview.png'} and {count} of events beside it")
            if self._options.annotate and outcome.report.problem is None:
                say(f"  annotated video: {outcome.task.folder / 'annotated.mp4'}")
        super().ended(outcome)


class _Tables:
    """The table over all videos and its page, written now and then."""

    def __init__(self, out: Path, tasks: Sequence[Task], store: Store | None) -> None:
        self._out, self._table, self._store = out, Table(out, tasks), store
        self._noted: deque[Outcome] = deque()  # not in the table yet
        self.write()

    def note(self, outcome: Outcome) -> None:
        """Take what came of a task; a table that cannot be written now, or a store that cannot be read, may be later."""
        self._noted.append(outcome)
        if time.monotonic() - self._written_at >= TABLE_S:
            with suppress(OutputError):
                self.write()

    def write(self) -> None:
        """Write both. Raises OutputError."""
        while self._noted:
            if self._store is not None:
                self._store.refresh(self._noted[0].task.name, self._noted[0].task.folder)
            self._table.note(self._noted.popleft())
        self._table.write()
        write_index(self._out, self._table.rows)
        if self._store is not None:
            for name in (TABLE, INDEX):
                self._store.put(self._out / name, name)
        self._written_at = time.monotonic()


class _FolderWatcher(_Watcher):
    """Prints a line for each of many videos, bars below the lines on a terminal, and all problems at the end."""

    def __init__(self, plan: Plan, bars: TaskBars, tables: _Tables, debug: bool) -> None:
        super().__init__(debug)
        self._bars, self._tables, self._count = bars, tables, len(plan.todo)
        self._problems: list[tuple[Task, str]] = []
        unchanged = sum(not finished.kept for finished in plan.finished)
        if unchanged:
            say(f"finished before and unchanged: {_videos(unchanged)} (--again analyses them again)")

    def finished_before(self, finished: Finished) -> None:
        """Results of an earlier run stay."""
        if finished.kept:
            _say_line(f"{finished.task.video}: {_why_kept(finished)}")
        super().finished_before(finished)

    def started(self, task: Task) -> None:
        """Show its bar."""
        self._bars.start(task.name, plain(task.video.name), task.size)

    def progressed(self, task: Task, done: int, expected: int | None, events: int) -> None:
        """Move its bar."""
        self._bars.update(task.name, done, expected)

    def ended(self, outcome: Outcome) -> None:
        """A line instead of its bar."""
        self._bars.end(outcome.task.name)
        self._tables.note(outcome)
        if outcome.stopped:  # said with those that were not started
            self.complete = False
            return
        super().ended(outcome)
        left = "" if len(self.done) == self._count else f"; {duration(self._bars.left_s())} left"
        what = f"failed: {outcome.problem}" if outcome.report is None else _result(outcome.report)
        again = f" ({outcome.task.reason})" if outcome.task.reason else ""
        _say_line(f"[{len(self.done)}/{self._count}] {outcome.task.video}{again}: {what}{left}")

    def problem(self, task: Task, sentence: str) -> None:
        """Kept for the end."""
        self.complete = False
        self._problems.append((task, sentence))

    def close(self) -> None:
        """Print all problems."""
        for task, sentence in self._problems:
            super().problem(task, sentence)


def _say_line(text: str) -> None:
    """Print one line, whatever the names of files hold."""
    say(plain(text))


def _nothing_found(videos: Sequence[Path], found: Found) -> str:
    others = ", ".join(skipped(found))
    deeper = "; --recursive searches the folders in it" if found.folders else ""
    return f"there is no video in {', '.join(map(str, videos))}" + (f", only {others}" if others else "") + deeper


def _why_kept(finished: Finished) -> str:
    if finished.kept:
        stay = "its reviews stay, but open only where the same events are found again"
        return f"kept as it was reviewed ({finished.kept}); --again analyses it again: {stay}"
    return "finished before and unchanged"


def _videos(number: int) -> str:
    return f"{number} video{'s' * (number != 1)}"


def _result(report: Report) -> str:
    video, count = report.summary["video"], len(report.events)
    length, speed = video["duration"] or 0.0, report.timing["frames_per_s"] or 0.0
    return f"{count} event{'s' * (count != 1)} in {video['frames']} frames ({length:.1f} s), {speed:.0f} frames/s"


def show(report: Report) -> None:
    """One line and a table for an analysed video, on stdout."""
    console, count = table_console(), len(report.events)
    console.print(
        f"{plain(report.path)}: {_result(report)}; results in {plain(report.folder)}",
        markup=False,
        soft_wrap=True,
    )
    for warning in [*report.summary["video"]["warnings"], *report.summary["notes"]]:
        console.print(f"  note: {plain(warning)}", markup=False, soft_wrap=True)
    if count:
        console.print(event_table(report.events[:SHOWN_EVENTS]))
    if count > SHOWN_EVENTS:
        console.print(
            f"  ... and {count - SHOWN_EVENTS} more in {plain(report.folder / 'events.csv')}", markup=False, soft_wrap=True
        )
