"""Leave one subject out: every subject is tested once, by a committee that never saw that face.

Each finished fold is added to a record (`training.fold_record`) at once, so a stopped run continues where it was. A fold's
committee is the one of the last epoch: nothing of the test subject decides anything. Pre-trained starts contain no recorded
face; they are made once per seed and kept in the record's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets import FlowMaps
from training.fold_record import FoldResult, Row, append_fold, open_record
from training.pool import each, processes
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

if TYPE_CHECKING:
    from torch import Tensor, nn

    from engine.models.committee import Committee

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
    progress: Progress = lambda what, done, total: None,
) -> list[FoldResult]:
    """Test the recipe on all subjects of data, once per seed; results in order of seed, then of the subjects' appearance.

    groups leaves out so many groups of subjects rather than each subject alone. With development only the subjects of
    `training.split.development_split` are tested, and all others always fitted to: that is how recipes are compared. Folds in
    the record are not run again. jobs folds run at once, each in a process with one thread. Raises ConfigError
    where the record belongs to another recipe, division or data, OutputError where it cannot be written, InputError where a
    subject would be tested twice or by what saw it, ApexError where a process dies.
    """
    folds = _divided(data, groups, development)
    header = {"recipe": recipe.model_dump(mode="json"), "maps": len(data), "data": data.digest()}
    header |= ({} if groups is None else {"groups": groups}) | ({"development": True} if development else {})
    done = {(r.seed, r.subject): r for r in open_record(record, header) if not select_on_test or r.peeked is not None}
    tasks = [(seed, fold) for seed in seeds for fold in folds]
    wanted = [task for task in tasks if (task[0], task[1].name) not in done]
    with processes(jobs, len(wanted)) as pool:
        starts = _starts(recipe, record.parent, wanted, pool, progress)
        progress("subjects", len(tasks) - len(wanted), len(tasks))
        run, maker = partial(evaluate_fold, recipe, data, select_on_test=select_on_test), made_here()
        work = [partial(run, seed, fold, starts=starts[seed]) for seed, fold in wanted]
        for count, result in enumerate(each(pool, work), start=len(tasks) - len(wanted) + 1):
            append_fold(record, result, maker)
            done[result.seed, result.subject] = result
            progress(result.subject, count, len(tasks))
    return [done[seed, fold.name] for seed, fold in tasks]


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


def evaluate_fold(
    recipe: Recipe,
    data: FlowMaps,
    seed: int,
    fold: Fold,
    *,
    starts: Sequence[Path] = (),
    select_on_test: bool = False,
) -> FoldResult:
    """Fit to the fold's training maps and answer for its test maps, on one thread. InputError where a subject is in both."""
    import time

    import torch

    from training.fit import fit

    check_apart([fold], data.subjects, data.databases)
    torch.set_num_threads(1)
    start = time.perf_counter()
    tested = data.take(fold.test)
    maps = torch.from_numpy(tested.inputs(recipe.model.input))
    best = _BestEpoch(maps, tested.labels) if select_on_test else None
    network = fit(recipe, data.take(fold.train), seed=seed, starts=starts, watch=best)
    answers = _answers(network, maps, best)
    known = {"names": tested.names, "truth": tuple(tested.labels.tolist())}
    return FoldResult(fold.name, seed, **known, **answers, seconds=round(time.perf_counter() - start, 2))


def _answers(network: Committee, maps: Tensor, best: _BestEpoch | None) -> dict[str, Any]:
    """A committee's logits for the maps, by the names of `FoldResult`."""
    import torch

    with torch.inference_mode():
        alone, kernel = network.answers(maps)
        together = network.together(alone, kernel)
        peeked = best.logits(lambda members: network.together(members, kernel)) if best else None
    return {
        "logits": _rows(together),
        "members": tuple(_rows(rows) for rows in alone.transpose(0, 1)),
        "kernel": None if kernel is None else _rows(kernel),
        "peeked": None if peeked is None else _rows(peeked),
    }


class _BestEpoch:
    """Tests after every epoch and chooses the best one on the test subject, as much of the literature does: a leak."""

    def __init__(self, maps: Tensor, labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
        self._maps, self._labels = maps, labels
        self._seen: dict[int, list[Tensor]] = {}

    def __call__(self, member: int, epochs: int, network: nn.Module) -> None:
        import torch

        from engine.models.committee import Committee

        with torch.inference_mode():
            alone, _ = Committee([network]).answers(self._maps)
            self._seen.setdefault(member, []).append(alone[0])

    def logits(self, together: Callable[[Tensor], Tensor]) -> Tensor:
        """The committee's logits [n, K] of the earliest epoch with the most right answers; a member that is fitted for fewer
        epochs than another keeps its last."""
        import torch

        longest, members = max(map(len, self._seen.values())), self._seen.values()
        epochs = [together(torch.stack([rows[min(e, len(rows) - 1)] for rows in members])) for e in range(longest)]
        right = [int((logits.argmax(1).numpy() == self._labels).sum()) for logits in epochs]
        return epochs[int(np.argmax(right))]


def _rows(logits: Tensor) -> tuple[Row, ...]:
    return tuple(tuple(round(float(v), 5) for v in row) for row in logits)


def _starts(
    recipe: Recipe, folder: Path, wanted: Sequence[tuple[int, Fold]], pool: Executor | None, progress: Progress
) -> dict[int, list[Path]]:
    """The pre-trained starts of each seed's members, made where they do not exist yet."""
    seeds = list(dict.fromkeys(seed for seed, _ in wanted))
    if recipe.pretrain is None:
        return {seed: [] for seed in seeds}
    members = range(pretrained_members(recipe))
    work = [partial(_start, folder, recipe, seed, member) for seed in seeds for member in members]
    progress("pre-training", 0, len(work))
    for count, path in enumerate(each(pool, work), start=1):
        progress(path.stem, count, len(work))
    return {seed: [_start(folder, recipe, seed, member) for member in members] for seed in seeds}


def _start(folder: Path, recipe: Recipe, seed: int, member: int) -> Path:
    """A member's pre-trained start, made on one thread if it does not exist."""
    import torch

    from training.pretrain import saved_start

    torch.set_num_threads(1)
    return saved_start(folder, recipe, seed, member)
