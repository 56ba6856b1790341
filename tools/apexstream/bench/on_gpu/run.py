"""One check after the other, in order of worth, while there is time; each result is on disk before the next begins."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from apexstream.bench.on_gpu.check import Check, Entry, Job, NoGpuError, SkippedError, say
from apexstream.bench.on_gpu.record import Record, made_here
from engine.errors import ApexError
from engine.ops import device

MODULES = {"correctness": "correctness", "timing": "speed", "candidates": "answers", "chain": "answers", "training": "fitting"}
"""Where the checks of a part are."""


def measure(parts: Sequence[str], out: Path, *, seconds: float, data: Path | None = None, again: bool = False) -> bool:
    """Do the checks of parts that the record at out does not hold, or all of them `again`; whether none failed.

    seconds is the time in which to begin checks that end in it; data a folder of flow maps for those that fit networks. Raises
    NoGpuError, InputError for a file that is no record, OutputError where the record cannot be written.
    """
    if (reason := device.refusal()) is not None:
        raise NoGpuError(f"there is nothing to measure: {reason}")
    deadline = time.monotonic() + seconds
    job, record = Job(data, out, lambda: deadline - time.monotonic()), Record.open(out, made_here())
    say(f"{record.run['made_by']['device']['name']}, {seconds:.0f} s; results go to {out}")
    wrong, late = [], []
    for part, check in _checks(parts):
        name = f"{part}: {check.name}"
        if record.finished(name) and not again:
            say(f"{name}: in the record already")
        elif job.left() < check.least:
            late.append(name)
        else:
            entry = _done(check, job)
            record.add(name, entry)
            say(f"{name}: {_words(entry)}")
            wrong += [name] if "failed" in entry else []
    if late:
        say(f"out of time before {len(late)} checks ({late[0]} ...); the same command goes on")
    say(f"{len(wrong)} failed: {'; '.join(wrong)}" if wrong else "nothing failed")
    return not wrong


def _checks(parts: Sequence[str]) -> Iterator[tuple[str, Check]]:
    for part in parts:
        module = import_module(f"apexstream.bench.on_gpu.{MODULES[part]}")
        yield from ((part, check) for check in module.CHECKS[part])


def _done(check: Check, job: Job) -> Entry:
    """The entry of a check; a check that fails does not cost the others their turn."""
    began = time.perf_counter()
    try:
        entry = {"finished": True, **check.run(job)}
        if not entry.pop("right", True):
            entry = {"failed": "the figures are wrong", **entry, "finished": False}
    except SkippedError as reason:
        entry = {"skipped": str(reason), "finished": False}
    except ModuleNotFoundError as missing:
        entry = {"skipped": f"{missing.name} is not installed", "finished": False}
    except ApexError as reason:
        entry = {"failed": str(reason), "finished": False}
    except Exception as error:  # noqa: BLE001 - whatever it is, the rest of the borrowed time shall be of use
        traceback.print_exc()
        entry = {"failed": f"{type(error).__name__}: {error}", "finished": False}
    return {**entry, "seconds": round(time.perf_counter() - began, 2)}


def _words(entry: Entry) -> str:
    for kind in ("failed", "skipped"):
        if kind in entry:
            rest = {key: value for key, value in entry.items() if key not in {kind, "finished", "seconds"}}
            return f"{kind} ({entry[kind]})" + (f" {rest}" if rest else "")
    return ", ".join(f"{key} {value}" for key, value in entry.items() if key != "finished")
