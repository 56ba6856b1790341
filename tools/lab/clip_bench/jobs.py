"""Many clips in worker processes, one JSON line a clip, so that a run that was stopped goes on where it was.

A line holds the key of the clip (its spec and the settings of the pipeline), the version of the code that judged it, and the
result. A line is used again only when both are equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from apexstream.clips import ClipSpec
from engine.config import PipelineSettings
from engine.errors import ApexError, OutputError

ROOT = Path(__file__).resolve().parents[3]
RENDERER = ("tools/apexstream/clips",)
PIPELINE = ("engine", "stream/sources")
JUDGED = (*PIPELINE, "tools/lab/clip_bench/watch.py", "tools/lab/clip_bench/registration.py", *RENDERER)
"""What a result depends on."""


class Todo(Protocol):
    """What a worker process is given."""

    @property
    def name(self) -> str:
        """The clip in words."""

    @property
    def key(self) -> str:
        """Equal for equal clips judged with equal settings."""


@dataclass(frozen=True)
class Job:
    """One clip to do: its spec, the pipeline's settings, and the folder in which it is rendered (kept there if keep)."""

    spec: ClipSpec
    settings: PipelineSettings
    folder: Path
    keep: bool = False
    renderer: str = ""

    @property
    def name(self) -> str:
        """The clip in words."""
        return f"{self.spec.photo} {self.spec.fps:g} fps seed {self.spec.seed}"

    @property
    def key(self) -> str:
        """Equal for equal clips judged with equal settings."""
        return _digest(json.dumps([asdict(self.spec), self.settings.model_dump(mode="json")], sort_keys=True).encode())

    @property
    def path(self) -> Path:
        """Where the clip lies; another spec or another renderer has another name."""
        content = _digest(json.dumps([asdict(self.spec), self.renderer], sort_keys=True).encode())
        return self.folder / f"{self.name.replace(' ', '-')}-{content[:8]}.mp4"


def code_version(parts: Sequence[str] = JUDGED) -> str:
    """A digest of the sources and weights under parts (files or folders of the project)."""
    total = hashlib.sha256()
    for part in parts:
        place = ROOT / part
        files = sorted(f for f in place.rglob("*") if f.suffix in (".py", ".onnx", ".json")) if place.is_dir() else [place]
        for file in files:
            total.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()[:12]


def recorded(out: Path | None, version: str) -> tuple[dict[str, Any], int]:
    """Results by key that `version` of the code wrote to out, and how many lines are of other versions or broken."""
    known, lines = {}, [] if out is None or not out.exists() else out.read_text(encoding="utf-8").splitlines()
    used = 0
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            if record["version"] == version:
                known[record["key"]] = record["result"]
                used += 1
    return known, len(lines) - used


def run_jobs(
    jobs: Sequence[Todo],
    work: Callable[[Any], Any],
    *,
    version: str,
    out: Path | None,
    workers: int,
    done: Callable[[Todo, Any], None],
    failed: Callable[[Todo, ApexError], None],
) -> list[Any]:
    """The result of each job that could be done, in the order of jobs; those recorded in out are taken from there.

    work must be a function a new process can import. done and failed are called as jobs end. A keyboard interrupt ends the
    workers at once; what was finished is in out.
    """
    known, _ = recorded(out, version)
    open_jobs = [job for job in jobs if job.key not in known]
    if open_jobs:
        _append(out, b"")
        with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
            futures = {pool.submit(work, job): job for job in open_jobs}
            try:
                for future in as_completed(futures):
                    job = futures[future]
                    try:
                        result = future.result()
                    except ApexError as error:
                        failed(job, error)
                        continue
                    known[job.key] = result
                    line = {"key": job.key, "version": version, "name": job.name, "result": result}
                    _append(out, json.dumps(line).encode() + b"\n")
                    done(job, result)
            except BrokenProcessPool as error:
                raise ApexError("a worker process was killed (short of memory?); with fewer --workers, run again") from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [known[job.key] for job in jobs if job.key in known]


def _start_worker() -> None:
    """One thread of OpenCV a worker; an interrupt ends the process without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ["OMP_NUM_THREADS"] = "1"
    import cv2

    cv2.setNumThreads(1)


def _append(path: Path | None, line: bytes) -> None:
    """Add a line to a file, made with its folder where it is missing; a last line that a killed run left broken is closed."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read(1) == b"\n" else b"\n")
            file.write(line)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; choose another --out") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
