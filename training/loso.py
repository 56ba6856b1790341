"""Leave one subject out: every subject is judged once by a committee that never saw that face.

Each finished fold is appended to a record (JSON lines) at once, so a run that was stopped goes on where it was. The record's
first line says recipe and data; another recipe or other data are refused rather than mixed in. A fold's committee is the one
of the last epoch: nothing of the judged subject decides anything.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ConfigError, OutputError
from training.datasets import FlowMaps
from training.recipe import Recipe
from training.split import Fold, leave_one_subject_out


@dataclass(frozen=True)
class FoldResult:
    """One judged subject: names, true labels [n] and logits [n][K] (before the temperature) of the subject's maps."""

    subject: str
    seed: int
    names: tuple[str, ...]
    truth: tuple[int, ...]
    logits: tuple[tuple[float, ...], ...]
    seconds: float


Progress = Callable[[int, int, FoldResult | None], None]
"""Told at the start and after each fold: folds done, folds in all, the newest result."""


def evaluate(
    recipe: Recipe,
    data: FlowMaps,
    record: Path,
    *,
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[FoldResult]:
    """Judge the recipe on all subjects of data, once a seed; results in order of seed, then of the subjects' appearance.

    Folds that the record holds already are not run again. jobs folds run at once, each in a process with one thread.
    Raises ConfigError where the record belongs to another recipe or data, OutputError where it cannot be written.
    """
    done = {(r.seed, r.subject): r for r in _opened(record, _header(recipe, data))}
    tasks = [(seed, fold) for seed in seeds for fold in leave_one_subject_out(data.subjects)]
    wanted = [task for task in tasks if (task[0], task[1].name) not in done]
    if progress:
        progress(len(tasks) - len(wanted), len(tasks), None)
    for count, result in enumerate(_results(recipe, data, wanted, jobs), start=len(tasks) - len(wanted) + 1):
        _append(record, {"fold": asdict(result)})
        done[result.seed, result.subject] = result
        if progress:
            progress(count, len(tasks), result)
    return [done[seed, fold.name] for seed, fold in tasks]


def judge_fold(recipe: Recipe, data: FlowMaps, seed: int, fold: Fold) -> FoldResult:
    """Fit on the fold's one side and answer for the other, on one thread."""
    import time

    import torch

    from training.fit import fit

    torch.set_num_threads(1)
    start = time.perf_counter()
    network = fit(recipe, data.take(fold.fit), seed=seed)
    judged = data.take(fold.judge)
    with torch.inference_mode():
        logits = network.logits(torch.from_numpy(judged.regions())).numpy()
    return FoldResult(
        subject=fold.name,
        seed=seed,
        names=judged.names,
        truth=tuple(judged.labels.tolist()),
        logits=tuple(tuple(round(float(v), 5) for v in row) for row in logits),
        seconds=round(time.perf_counter() - start, 2),
    )


def read_record(record: Path) -> tuple[dict[str, Any], list[FoldResult]]:
    """The header and the finished folds of a record; a last line cut off in the writing is left out."""
    try:
        lines = record.read_bytes().split(b"\n")
        header, *folds = [json.loads(line) for line in lines[:-1]]
        results = [FoldResult(**_tuples(fold["fold"])) for fold in folds]
        return dict(header["evaluation"]), results
    except OSError as cause:
        raise ConfigError(f"the record {record} cannot be read: {cause.strerror}") from cause
    except (ValueError, KeyError, TypeError) as cause:
        raise ConfigError(f"{record} is not a record of an evaluation; name another file") from cause


def _tuples(fold: dict[str, Any]) -> dict[str, Any]:
    rows = tuple(tuple(row) for row in fold["logits"])
    return {**fold, "names": tuple(fold["names"]), "truth": tuple(fold["truth"]), "logits": rows}


def _header(recipe: Recipe, data: FlowMaps) -> dict[str, Any]:
    digest = hashlib.sha256()
    for array in (data.maps, data.keypoints, data.labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\n".join((*data.names, *data.subjects)).encode())
    return {"recipe": recipe.model_dump(mode="json"), "maps": len(data), "data": digest.hexdigest()[:16]}


def _opened(record: Path, header: dict[str, Any]) -> list[FoldResult]:
    if not record.exists():
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise OutputError(f"the folder {record.parent} cannot be made: {cause.strerror}") from cause
        _append(record, {"evaluation": header})
        return []
    found, results = read_record(record)
    differing = [name for name in header if found.get(name) != header[name]]
    if differing:
        raise ConfigError(f"the record {record} is of another {' and '.join(differing)}; name another file or delete it")
    whole = record.read_bytes()
    if not whole.endswith(b"\n"):
        record.write_bytes(whole[: whole.rindex(b"\n") + 1])
    return results


def _append(record: Path, value: dict[str, Any]) -> None:
    try:
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
    except OSError as cause:
        raise OutputError(f"the record {record} cannot be written: {cause.strerror}") from cause


def _results(recipe: Recipe, data: FlowMaps, tasks: Sequence[tuple[int, Fold]], jobs: int) -> Iterator[FoldResult]:
    if jobs == 1 or len(tasks) < 2:
        for seed, fold in tasks:
            yield judge_fold(recipe, data, seed, fold)
        return
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(judge_fold, recipe, data, seed, fold) for seed, fold in tasks]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
