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
from lab.clip_bench.jobs import Todo, recorded, run_jobs


@dataclass(frozen=True)
class Results:
    """What came of a run: the records of the clips that could be done, the errors of the others, the digest of the code."""

    records: list[Any]
    failures: list[str]
    version: str


def run_all(
    jobs: Sequence[Todo],
    work: Callable[[Any], Any],
    line: Callable[[Any], str],
    *,
    workers: int,
    out: Path | None,
    version: str,
) -> Results:
    """Does all jobs (workers 0: one a core) and reports progress on stderr; line puts a record in words.

    Raises ApexError where not one could be done.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    failures: list[str] = []
    known, others = recorded(out, version)
    todo = sum(job.key not in known for job in jobs)
    there = f"{len(jobs) - todo} are in {out} already (same clip, same code), " if todo < len(jobs) else ""
    console.print(f"clips: {len(jobs)}, code {version}: {there}{todo} to do")
    if others:
        console.print(f"{others} lines of {out} are of other code and left alone")
    if out is None:
        console.print("nothing is recorded; with --out FILE.jsonl a run that is stopped can go on later")
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("clips", total=todo)

        def done(_: Todo, result: Any) -> None:
            bar.advance(task)
            console.print(f"[{int(bar.tasks[0].completed)}/{todo}] {line(result)}")

        def failed(job: Todo, error: ApexError) -> None:
            bar.advance(task)
            failures.append(f"{job.name}: {error}")
            console.print(f"error: {failures[-1]}")

        most = min(workers or os.cpu_count() or 1, todo or 1)
        records = run_jobs(jobs, work, version=version, out=out, workers=most, done=done, failed=failed)
    if not records:
        raise ApexError("not one clip could be measured; the errors above say why")
    return Results(records, failures, version)


def make_folder(folder: Path, option: str) -> Path:
    """Make a folder that an option names. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror or error}; choose another {option}") from error
    return folder


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
