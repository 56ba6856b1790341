"""Leave one subject out: every subject is tested once, by a committee that never saw that face.

Each finished fold is added to a record (`training.fold_record`) at once, so a stopped run continues where it was. A fold's
committee is the one of the last epoch: nothing of the test subject decides anything. Pre-trained starts contain no recorded
face; they are made once per seed and kept in the record's folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from training.datasets import FlowMaps
from training.device import CPU, device_name
from training.fold import evaluate_fold
from training.fold_record import FoldResult, append_fold, open_record
from training.pool import GivenPool, OpenPool, each, nothing, processes
from training.pretrain import saved_start
from training.provenance import made_here
from training.recipe import Recipe, pretrained_members
from training.split import (
    DEVELOPMENT_SEED,
    DEVELOPMENT_SHARE,
    Fold,
    check_apart,
    development_split,
    group_folds,
    leave_one_subject_out,
)
from training.stacked.folds import OutOfTimeError, Task, evaluate_stacked, in_stacks

GROUPS_SEED = 0
"""Draws the groups of subjects where groups are left out."""

Progress = Callable[[str, int, int], None]
"""Called with what was done last, the steps done and all steps: of the pre-trained starts, then of the folds."""


def evaluate(
    recipe: Recipe,
    data: FlowMaps,
    record: Path,
    *,
    seeds: Sequence[int] = (0,),
    groups: int | None = None,
    development: bool = False,
    select_on_test: bool = False,
    jobs: int = 1,
    stacked_on: torch.device | None = None,
    open_pool: OpenPool = processes,
    seconds: float = float("inf"),
    progress: Progress = lambda what, done, total: None,
) -> list[FoldResult]:
    """Test the recipe on all subjects of data, once per seed; results in order of seed, then of the subjects' appearance.

    groups leaves out so many groups of subjects rather than each subject alone. With development only the subjects of
    `training.split.development_split` are tested, and all others always fitted to: that is how recipes are compared. Folds in
    the record are not run again. jobs folds run at once on the CPU, each in a process with one thread, which open_pool starts;
    with stacked_on, in this process and on that device, as many as fit into its memory; on a pool whose workers have GPUs, as
    stacks on these. After seconds no fold is begun on the CPU, and none on a device that would not be finished by then: the
    results are those of the finished folds, and the same call continues. Raises ConfigError where the record belongs to another
    recipe, division or data, OutputError where it cannot be written, InputError where a subject would be tested twice or by
    what saw it, BackendError where the device has too little memory for one fold, ApexError where a process dies.
    """
    deadline = time.monotonic() + seconds
    folds = _divided(data, groups, development)
    header = {"recipe": recipe.model_dump(mode="json"), "maps": len(data), "data": data.digest()}
    header |= ({} if groups is None else {"groups": groups}) | ({"development": True} if development else {})
    kept = {(r.seed, r.subject): r for r in open_record(record, header) if not select_on_test or r.peeked is not None}
    tasks = {(seed, fold.name): (seed, fold) for seed in seeds for fold in folds}
    done = {key: kept[key] for key in tasks if key in kept}
    wanted = [task for key, task in tasks.items() if key not in done]
    before, maker = len(done), made_here("cpu")
    opened = open_pool(jobs, len(wanted), nothing) if stacked_on is None else processes(1, len(wanted))
    with suppress(OutOfTimeError), opened as pool:
        device = torch.device(pool.device) if isinstance(pool, GivenPool) else stacked_on or CPU
        starts = _starts(recipe, record.parent, wanted, pool, device, progress=progress)
        progress("subjects", before, len(tasks))
        options: Any = {"starts": starts, "select_on_test": select_on_test, "deadline": deadline}
        if isinstance(pool, GivenPool) and pool.gpus:
            results = _stack_by_stack(recipe, data, wanted, pool, **options)
        else:
            if stacked_on is None:
                found = _one_by_one(recipe, data, wanted, pool, **options)
            else:
                options["progress"] = lambda what: progress(what, len(done), len(tasks))
                found = evaluate_stacked(recipe, data, wanted, stacked_on, **options)
            name = device_name(device)
            results = ((result, name) for result in found)
        for count, (result, fitted_on) in enumerate(results, start=before + 1):
            append_fold(record, result, maker | {"device": fitted_on})
            done[result.seed, result.subject] = result
            progress(result.subject, count, len(tasks))
    return [done[key] for key in tasks if key in done]


def _one_by_one(
    recipe: Recipe,
    data: FlowMaps,
    tasks: Sequence[Task],
    pool: Executor | None,
    *,
    starts: Mapping[int, Sequence[Path]],
    select_on_test: bool,
    deadline: float,
) -> Iterator[FoldResult]:
    """`training.fold.evaluate_fold` of every task, as they are done. Raises OutOfTimeError at the deadline."""
    run = partial(evaluate_fold, recipe, data, select_on_test=select_on_test)
    for result in each(pool, [partial(run, seed, fold, starts=starts[seed]) for seed, fold in tasks]):
        yield result
        if time.monotonic() > deadline:
            raise OutOfTimeError


def _stack_by_stack(
    recipe: Recipe,
    data: FlowMaps,
    tasks: Sequence[Task],
    pool: GivenPool,
    *,
    starts: Mapping[int, Sequence[Path]],
    select_on_test: bool,
    deadline: float,
) -> Iterator[tuple[FoldResult, str]]:
    """The results of all tasks, each with the name of the GPU that it was fitted on, those of a stack as soon as it is done.
    Raises OutOfTimeError at the deadline."""
    run = partial(_stack, recipe, data, torch.device(pool.device), starts=starts, select_on_test=select_on_test)
    for name, results in pool.each([partial(run, tasks=stack) for stack in in_stacks(recipe, tasks, pool.gpus)]):
        yield from ((result, name) for result in results)
        if time.monotonic() > deadline:
            raise OutOfTimeError


def _stack(
    recipe: Recipe,
    data: FlowMaps,
    device: torch.device,
    *,
    tasks: Sequence[Task],
    starts: Mapping[int, Sequence[Path]],
    select_on_test: bool,
) -> tuple[str, list[FoldResult]]:
    """In a worker: the name of its device, and the results of a stack."""
    found = evaluate_stacked(recipe, data, tasks, device, starts=starts, select_on_test=select_on_test)
    return device_name(device), list(found)


def _divided(data: FlowMaps, groups: int | None, development: bool) -> list[Fold]:
    tested: Sequence[int] = range(len(data))
    if development:
        tested = development_split(data.subjects, data.databases, DEVELOPMENT_SHARE, DEVELOPMENT_SEED)
    subjects = [data.subjects[i] for i in tested]
    folds = leave_one_subject_out(subjects) if groups is None else group_folds(subjects, groups, GROUPS_SEED)
    folds = [_among_all(fold, tested, len(data)) for fold in folds]
    check_apart(folds, data.subjects, data.databases)
    return folds


def _among_all(fold: Fold, tested: Sequence[int], maps: int) -> Fold:
    """A fold of some of the maps as one of all: all that it does not test is fitted to."""
    held_out = {tested[i] for i in fold.test}
    return Fold(fold.name, tuple(i for i in range(maps) if i not in held_out), tuple(sorted(held_out)))


def _starts(
    recipe: Recipe, folder: Path, wanted: Sequence[Task], pool: Executor | None, device: torch.device, *, progress: Progress
) -> dict[int, list[Path]]:
    """The pre-trained starts of each seed's members, made on the device where they do not exist yet."""
    seeds = list(dict.fromkeys(seed for seed, _ in wanted))
    if recipe.pretrain is None:
        return {seed: [] for seed in seeds}
    members = range(pretrained_members(recipe))
    work = [partial(_start, folder, recipe, seed, member, device) for seed in seeds for member in members]
    progress("pre-training", 0, len(work))
    for count, path in enumerate(each(pool, work), start=1):
        progress(path.stem, count, len(work))
    return {seed: [_start(folder, recipe, seed, member, device) for member in members] for seed in seeds}


def _start(folder: Path, recipe: Recipe, seed: int, member: int, device: torch.device) -> Path:
    """A member's pre-trained start, made on the device (of a CPU on one thread) if it does not exist."""
    torch.set_num_threads(1)
    return saved_start(folder, recipe, seed, member, device=device)
