"""A run on the terminal: progress, a line for each clip, what failed, and the record of the figures."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.errors import ApexError, OutputError
from lab.clip_bench.jobs import AnyJob, recorded, run_jobs


@dataclass(frozen=True)
class Results:
    """What came of a run: the records of the clips that could be done, the errors of the others, the digest of the code."""

    records: list[Any]
    failures: list[str]
    version: str


def run_all(
    jobs: Sequence[AnyJob],
    work: Callable[[AnyJob], Any],
    line: Callable[[Any], str],
    *,
    workers: int,
    out: Path | None,
    version: str,
) -> Results:
    """Does all jobs (workers 0: one a core) and reports progress on stderr; line puts a record in words.

    Raises ApexError where not one could be done.
    """
    workers = workers or os.cpu_count() or 1
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    failures: list[str] = []
    known, others = recorded(out, version)
    open_jobs = sum(job.key not in known for job in jobs)
    _say_start(console, out, jobs=len(jobs), open_jobs=open_jobs, others=others, version=version)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("clips", total=open_jobs)

        def done(_: AnyJob, result: Any) -> None:
            bar.advance(task)
            console.print(f"[{_count(bar, task, open_jobs)}] {line(result)}", markup=False, soft_wrap=True)

        def failed(job: AnyJob, error: ApexError) -> None:
            bar.advance(task)
            failures.append(f"{job.name}: {error}")
            console.print(f"error: {failures[-1]}", markup=False, soft_wrap=True)

        records = run_jobs(jobs, work, version=version, out=out, workers=min(workers, open_jobs or 1), done=done, failed=failed)
    if not records:
        raise ApexError("not one clip could be measured; the errors above say why")
    return Results(records, failures, version)


def write_figures(path: Path | None, results: Results, figures: dict[str, Any]) -> None:
    """Writes the figures with what made them as JSON; raises OutputError where they cannot be written."""
    if path is None:
        return
    command = "python -m lab.clip_bench " + shlex.join(sys.argv[1:])
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    record = {"command": command, "code": results.version, "machine": machine, "failures": results.failures, **figures}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the summary cannot be written to {path}: {error.strerror or error}; choose another place"
        ) from error
    Console(stderr=True).print(f"figures: {path}", highlight=False, markup=False)


def end(results: Results) -> None:
    """Exit code 1 where a clip failed."""
    if results.failures:
        raise typer.Exit(1)


def _count(bar: Progress, task: Any, total: int) -> str:
    return f"{int(bar.tasks[bar.task_ids.index(task)].completed)}/{total}"


def _say_start(console: Console, out: Path | None, *, jobs: int, open_jobs: int, others: int, version: str) -> None:
    there = f"{jobs - open_jobs} are in {out} already (same clip, same code), " if open_jobs < jobs else ""
    console.print(f"clips: {jobs}, code {version}: {there}{open_jobs} to do", markup=False)
    if others:
        console.print(f"{others} lines of {out} are of other code and left alone", markup=False)
    if out is None:
        console.print("nothing is recorded; with --out FILE.jsonl a run that is stopped can go on later", markup=False)
