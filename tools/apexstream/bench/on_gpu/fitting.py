"""Leave-one-subject-out evaluations of the published recipes, as many folds as there is time for; a later call goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from apexstream.bench.on_gpu.check import Check, Entry, Job, SkippedError, say
from apexstream.bench.on_gpu.speed import needs_gpu
from engine.ops import device
from training.provenance import ROOT

if TYPE_CHECKING:
    from training.fold_record import FoldResult

RECIPES: tuple[tuple[str, int | None], ...] = (("ahmsa-paper", None), ("htnet", None), ("hfa", 5))
"""A recipe in configs/train and into how many groups subjects are divided, None for each subject alone."""
SAY_EVERY = 10.0
"""Seconds between two lines of progress."""


def evaluation(job: Job, recipe: str, groups: int | None) -> Entry:
    """Scores of the recipe at the last epoch, and at the epoch that was best on the test subject, which is a leak.

    Folds go to RECORD without its ending/RECIPE/folds.jsonl, from which `apexstream evaluate --out` makes the report.
    """
    needs_gpu()
    if job.data is None:
        raise SkippedError("no flow maps were named; --data FOLDER takes the folder that apexstream evaluate --data takes")
    from training import datasets, loso
    from training.recipe import read_recipe

    maps, chosen = datasets.load(job.data), read_recipe(ROOT / "configs" / "train" / f"{recipe}.toml")
    results = loso.evaluate(
        chosen,
        maps,
        job.out.with_suffix("") / recipe / "folds.jsonl",
        seeds=[chosen.seed],
        groups=groups,
        select_on_test=True,
        stacked_on=device.current_device(),
        seconds=job.left(),
        progress=_progress(recipe),
    )
    folds = groups or len(set(maps.subjects))
    return {"folds": len(results), "of": folds, "finished": len(results) == folds, **_scores(results)}


def _scores(results: Sequence[FoldResult]) -> dict[str, Any]:
    import numpy as np

    from training.datasets import CLASSES
    from training.metrics import score

    truth = [label for result in results for label in result.truth]
    found: dict[str, Any] = {"maps": len(truth)}
    for name, part in (("last_epoch", "logits"), ("best_epoch_on_test", "peeked")):
        answers = [int(np.argmax(row)) for result in results for row in getattr(result, part) or ()]
        if truth and len(answers) == len(truth):
            scores = score(truth, answers, len(CLASSES))
            found[name] = {"uf1": round(scores.uf1, 4), "uar": round(scores.uar, 4)}
    return found


def _progress(recipe: str) -> Callable[[str, int, int], None]:
    """Says from time to time how far an evaluation is."""
    last = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SAY_EVERY:
            last = time.monotonic()
            say(f"  {recipe}: {done} of {total}, {what}")

    return tell


CHECKS = {
    "training": tuple(
        Check(f"evaluation of {recipe}", partial(evaluation, recipe=recipe, groups=groups), 60) for recipe, groups in RECIPES
    )
}
