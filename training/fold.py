"""One fold of an evaluation: fit to its training maps, answer for its test maps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.models.committee import Committee
from training.datasets import FlowMaps
from training.descent import Labels
from training.fit import fit
from training.fold_record import FoldResult, Row
from training.recipe import Recipe
from training.split import Fold, check_apart


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
    check_apart([fold], data.subjects, data.databases)
    torch.set_num_threads(1)
    start, test = time.perf_counter(), FoldTest(recipe, data, seed, fold)
    watch = test.watch if select_on_test else None
    network = fit(recipe, data.take(fold.train), seed=seed, starts=starts, watch=watch)
    return test.result(network, lambda: time.perf_counter() - start)


class FoldTest:
    """A fold's test maps, and the answers to them. Where it is told those of every epoch, it chooses the best one on the test
    subject too, as much of the literature does: a leak."""

    def __init__(self, recipe: Recipe, data: FlowMaps, seed: int, fold: Fold) -> None:
        tested = data.take(fold.test)
        self._fold, self._seed, self._names = fold, seed, tested.names
        self._labels: Labels = tested.labels
        self._seen: dict[int, list[Tensor]] = {}
        self.maps = torch.from_numpy(tested.inputs(recipe.model.input))

    def watch(self, member: int, epochs: int, network: nn.Module) -> None:
        """Note a member's answers after an epoch (`training.fit.Watch`)."""
        with torch.inference_mode():
            alone, _ = Committee([network]).answers(self.maps)
            self.note(member, alone[0])

    def note(self, member: int, logits: Tensor) -> None:
        """Note a member's logits [n, K] after an epoch."""
        self._seen.setdefault(member, []).append(logits)

    def result(self, network: Committee, seconds: Callable[[], float]) -> FoldResult:
        """The committee's answers; seconds is called once it has them."""
        with torch.inference_mode():
            alone, kernel = network.answers(self.maps)
            together = network.together(alone, kernel)
            peeked = self._best(lambda members: network.together(members, kernel)) if self._seen else None
        return FoldResult(
            self._fold.name,
            self._seed,
            self._names,
            tuple(self._labels.tolist()),
            _rows(together),
            round(seconds(), 2),
            members=tuple(_rows(rows) for rows in alone.transpose(0, 1)),
            kernel=None if kernel is None else _rows(kernel),
            peeked=None if peeked is None else _rows(peeked),
        )

    def _best(self, together: Callable[[Tensor], Tensor]) -> Tensor:
        """The committee's logits [n, K] of the earliest epoch with the most right answers; a member that is fitted for fewer
        epochs than another keeps its last."""
        longest, members = max(map(len, self._seen.values())), self._seen.values()
        epochs = [together(torch.stack([rows[min(e, len(rows) - 1)] for rows in members])) for e in range(longest)]
        right = [int((logits.argmax(1).numpy() == self._labels).sum()) for logits in epochs]
        return epochs[int(np.argmax(right))]


def _rows(logits: Tensor) -> tuple[Row, ...]:
    return tuple(tuple(round(float(v), 5) for v in row) for row in logits)
