"""The folds of an evaluation, as many at once as fit into the device's memory and the time that is left."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import BackendError
from engine.models.committee import Committee
from training.datasets import FlowMaps
from training.device import CPU, short_of_memory
from training.fit import Progress, fit
from training.fold import FoldTest
from training.fold_record import FoldResult
from training.recipe import Recipe, fit_of
from training.split import Fold, check_apart
from training.stacked.fit import bytes_each, fit_stacked, stackable, steps

MOST_BYTES = 40 * 2**30
"""Of the parameters of folds that are fitted together: a stop loses no more than the work of these."""

_SETTLED = 3
"""Epochs after which the time of the others is estimated."""

Task = tuple[int, Fold]
"""A seed and a fold."""


class OutOfTimeError(Exception):
    """The work does not end in time; share is the part of it that would."""

    def __init__(self, share: float = 0.0) -> None:
        super().__init__(f"{share:.0%} of the work can be done in the time that is left")
        self.share = share


def evaluate_stacked(
    recipe: Recipe,
    data: FlowMaps,
    tasks: Sequence[Task],
    device: torch.device,
    *,
    starts: Mapping[int, Sequence[Path]],
    select_on_test: bool = False,
    deadline: float = float("inf"),
    progress: Callable[[str], None] = lambda what: None,
) -> Iterator[FoldResult]:
    """The results of all tasks, those of a stack as soon as it is done; `training.fold.evaluate_fold` on a device.

    starts are each seed's. deadline is a time of `time.monotonic`. Raises BackendError where the memory is too small for one
    fold, OutOfTimeError where one fold takes longer than there is time.
    """
    waiting, most = list(tasks), folds_at_once(recipe, device)
    while waiting:
        if time.monotonic() > deadline:
            raise OutOfTimeError
        chosen = _alike(recipe, waiting)[:most]
        seed, folds = chosen[0][0], [fold for _, fold in chosen]
        clock = _Clock(recipe, len(folds), deadline, progress)
        share = None
        try:
            found = _evaluate(recipe, data, seed, folds, device, starts=starts[seed], watching=select_on_test, clock=clock)
        except RuntimeError as cause:
            if not short_of_memory(cause):
                raise
            if len(folds) == 1:
                raise too_large(recipe) from cause
            share = 0.5
        except OutOfTimeError as late:
            if len(folds) == 1:
                raise
            share = min(0.5, late.share)
        if share is not None:  # outside of the handler, whose traceback holds all tensors
            most = max(1, int(len(folds) * share))
            _release(device)
            continue
        yield from found
        waiting = [task for task in waiting if task not in chosen]


def fit_on(
    device: torch.device, recipe: Recipe, data: FlowMaps, *, starts: Sequence[Path] = (), progress: Progress
) -> Committee:
    """`training.fit.fit` on a device. Raises BackendError where its memory is too small."""
    if device.type == "cpu":
        return fit(recipe, data, starts=starts, progress=progress)
    try:
        return fit_stacked(recipe, data, [range(len(data))], device, starts=starts, progress=progress)[0]
    except RuntimeError as cause:
        if not short_of_memory(cause):
            raise
        raise too_large(recipe) from cause


def too_large(recipe: Recipe) -> BackendError:
    """The error where a device's memory does not do for one fold."""
    return BackendError(f"{recipe.name} does not fit into the GPU's memory; lower batch under [fit], or use --device cpu")


def folds_at_once(recipe: Recipe, device: torch.device) -> int:
    """How many folds' parameters fit into the free memory at most, so that the maps may still not fit; 1 where the recipe's
    networks cannot be stacked."""
    if not stackable(recipe):
        return 1
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else MOST_BYTES
    return max(1, min(free, MOST_BYTES) // bytes_each(recipe))


def in_stacks(recipe: Recipe, tasks: Sequence[Task], gpus: int) -> list[list[Task]]:
    """The tasks divided into stacks of folds that can be fitted together, about equally large, for so many GPUs at once."""
    most, stacks = min(folds_at_once(recipe, CPU), math.ceil(len(tasks) / gpus)), []
    waiting = list(tasks)
    while waiting:
        chosen = _alike(recipe, waiting)
        count = math.ceil(len(chosen) / most)
        stacks += [chosen[number::count] for number in range(count)]
        waiting = [task for task in waiting if task not in chosen]
    return stacks


def _alike(recipe: Recipe, tasks: Sequence[Task]) -> list[Task]:
    """Those of the tasks that can be fitted together with the first one."""
    seed, first = tasks[0]
    wanted = steps(recipe, len(first.train))
    return [task for task in tasks if task[0] == seed and steps(recipe, len(task[1].train)) == wanted]


def _evaluate(
    recipe: Recipe,
    data: FlowMaps,
    seed: int,
    folds: Sequence[Fold],
    device: torch.device,
    *,
    starts: Sequence[Path],
    watching: bool,
    clock: _Clock,
) -> list[FoldResult]:
    check_apart(folds, data.subjects, data.databases)
    tests = [FoldTest(recipe, data, seed, fold) for fold in folds]

    def watch(member: int, logits: Sequence[Tensor]) -> None:
        for test, own in zip(tests, logits, strict=True):
            test.note(member, own)

    networks = fit_stacked(
        recipe,
        data,
        [fold.train for fold in folds],
        device,
        seed=seed,
        starts=starts,
        progress=clock.progress,
        watched=[test.maps for test in tests] if watching else (),
        watch=watch,
    )
    return [test.result(network, lambda: clock.seconds() / len(folds)) for test, network in zip(tests, networks, strict=True)]


class _Clock:
    """Tells how far the fitting is, and raises OutOfTimeError once it is clear that it will not end in time."""

    def __init__(self, recipe: Recipe, folds: int, deadline: float, tell: Callable[[str], None]) -> None:
        self._epochs = sum(fit_of(recipe, member).epochs for member in range(recipe.model.members))
        self._folds, self._deadline, self._tell = folds, deadline, tell
        self._begun = time.monotonic()
        self._done, self._first = 0, 0.0

    def progress(self, stage: str, member: int, epoch: int, loss: float) -> None:
        """As `training.fit.Progress`."""
        if stage != "fitting":
            return
        now = time.monotonic()
        self._done += 1
        if self._done == 1:
            self._first = now
        elif self._done > _SETTLED or self._done == self._epochs:
            needed = (now - self._first) / (self._done - 1) * (self._epochs - self._done)
            if now + needed > self._deadline:
                raise OutOfTimeError(max(0.0, self._deadline - now) / max(needed, 1e-9))
        self._tell(f"{self._folds} folds, epoch {self._done} of {self._epochs}, loss {loss:.3f}")

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._begun


def _release(device: torch.device) -> None:
    """Give memory that nothing holds back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
