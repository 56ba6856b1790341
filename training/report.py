"""What an evaluation says: scores from the pooled answers of all folds, overall and per database, and how sure they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError, InputError, OutputError
from training.datasets import CLASSES
from training.loso import FoldResult
from training.metrics import Scores, judged

UNCERTAIN_BELOW = 0.5
"""An answer no more probable than all others together is called uncertain."""

F64 = npt.NDArray[np.float64]


def pooled(results: Sequence[FoldResult], keep: Callable[[str], bool] = lambda _: True) -> Scores:
    """Scores over all folds whose subject is kept, from one confusion matrix."""
    chosen = [r for r in results if keep(r.subject)]
    truth = [label for r in chosen for label in r.truth]
    answers = [int(np.argmax(row)) for r in chosen for row in r.logits]
    return judged(truth, answers, len(CLASSES))


def per_database(results: Sequence[FoldResult]) -> dict[str, Scores]:
    """`pooled` for "all" and for each database, in the order of appearance."""
    names = dict.fromkeys(r.subject.split("/")[0] for r in results)
    out = {"all": pooled(results)}
    for name in names:
        out[name] = pooled(results, lambda subject, name=name: subject.startswith(f"{name}/"))  # type: ignore[misc]
    return out


def probabilities(logits: F64, temperature: float) -> F64:
    """Softmax of logits [N, K] / temperature."""
    scaled = logits / temperature
    grown = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(grown / grown.sum(1, keepdims=True), np.float64)


def fit_temperature(logits: F64, truth: npt.NDArray[np.int64]) -> float:
    """The temperature in 0.1..10 under which the true classes of held-out maps are likeliest (Guo et al., ICML 2017)."""
    if not len(truth) or logits.shape[0] != len(truth):
        raise InputError(f"a temperature needs one label a row, not {len(truth)} for {len(logits)}")
    grid = np.geomspace(0.1, 10, 461)
    rows = np.arange(len(truth))
    losses = [-np.log(np.maximum(probabilities(logits, t)[rows, truth], 1e-12)).mean() for t in grid]
    return round(float(grid[int(np.argmin(losses))]), 4)


def reliability(chances: F64, truth: npt.NDArray[np.int64], edges: Sequence[float]) -> list[dict[str, float]]:
    """For each range of confidence: how many answers, their mean confidence, and the share that is right."""
    confidence, right = chances.max(1), chances.argmax(1) == truth
    rows = []
    for low, high in pairwise(edges):
        inside = (confidence >= low) & (confidence < high)
        count = int(inside.sum())
        mean, share = (float(confidence[inside].mean()), float(right[inside].mean())) if count else (0.0, 0.0)
        rows.append({"from": low, "to": high, "count": count, "confidence": round(mean, 4), "right": round(share, 4)})
    return rows


def summarize(header: dict[str, Any], results: Sequence[FoldResult]) -> dict[str, Any]:
    """Everything worth keeping of an evaluation as one JSON value: scores per seed, their mean and spread, calibration."""
    seeds = list(dict.fromkeys(r.seed for r in results))
    runs: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        parts = per_database([r for r in results if r.seed == seed])
        runs[str(seed)] = {name: _plain(part) for name, part in parts.items()}
    uf1, uar = ([runs[str(seed)]["all"][name] for seed in seeds] for name in ("uf1", "uar"))
    return {
        "protocol": "leave one subject out, last epoch, one pooled confusion matrix (rows: truth) over the declared classes",
        "classes": list(CLASSES),
        **header,
        "folds": len(results),
        "seconds": round(sum(r.seconds for r in results)),
        "uf1": {"mean": round(float(np.mean(uf1)), 4), "spread": round(float(np.std(uf1)), 4)},
        "uar": {"mean": round(float(np.mean(uar)), 4), "spread": round(float(np.std(uar)), 4)},
        "seeds": runs,
        "confidence": calibration(results),
    }


def calibration(results: Sequence[FoldResult]) -> dict[str, Any]:
    """Temperature from the held-out answers, what confidence then means, and what the threshold of uncertainty leaves."""
    logits = np.array([row for r in results for row in r.logits], np.float64)
    truth = np.array([label for r in results for label in r.truth], np.int64)
    temperature = fit_temperature(logits, truth)
    chances = probabilities(logits, temperature)
    said = chances.max(1) >= UNCERTAIN_BELOW
    right = chances.argmax(1) == truth
    return {
        "temperature": temperature,
        "uncertain_below": UNCERTAIN_BELOW,
        "said": round(float(said.mean()), 4),
        "right_when_said": round(float(right[said].mean()), 4) if said.any() else 0.0,
        "reliability": reliability(chances, truth, (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0001)),
    }


def _plain(scores: Scores) -> dict[str, Any]:
    return {
        "uf1": round(scores.uf1, 4),
        "uar": round(scores.uar, 4),
        "accuracy": round(scores.accuracy, 4),
        "recall": {name: round(value, 4) for name, value in zip(CLASSES, scores.recall, strict=True)},
        "confusion": scores.confusion.tolist(),
        "missing": [CLASSES[i] for i in scores.missing],
    }


def write_summary(summary: dict[str, Any], path: Path) -> None:
    """Write the summary as JSON."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    except OSError as cause:
        raise OutputError(f"{path} cannot be written: {cause.strerror}") from cause


def read_summary(path: Path) -> dict[str, Any]:
    """Read what `write_summary` wrote. ConfigError if it is no summary."""
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not {"recipe", "uf1", "uar", "seeds", "confidence"} <= summary.keys():
            raise ValueError("not a summary")
    except OSError as cause:
        raise ConfigError(f"the summary {path} cannot be read: {cause.strerror}") from cause
    except (ValueError, AttributeError) as cause:
        raise ConfigError(f"{path} is not the summary of an evaluation") from cause
    return summary
