"""The summary of an evaluation: scores from the pooled answers of all folds, overall and per database, and their calibration.

It is one JSON value, `summary.json`, which `apexstream export` reads and from which the page is made:

    protocol, classes, recipe, maps, data, folds, seconds
    uf1, uar        the committee's, mean and spread (sample standard deviation) over the seeds; spread null for one seed
    databases       the same for each database, with its maps and subjects
    single          each network of each seed's committee alone (null where the record has no single answers)
    kernel          the committee's kernel machine alone (null where it has none)
    peeked          the committee of the epoch that was best on the test subject: a leak, never a score (null if not requested)
    development     the committee on the subjects that recipes were compared on, with maps, subjects and databases (null where
                    the data are not the composite of 442 maps)
    untouched       the same on all others
    seeds           the committee's scores of each seed: all and each database
    confidence      see `training.calibration`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ConfigError, OutputError
from engine.text import csv_line
from training.answers import F64, Answers, gather
from training.calibration import DRAWS, LEAST_THRESHOLD, PRECISION, Calibration, calibrate
from training.datasets import CLASSES, FlowMaps
from training.fold_record import FoldResult
from training.metrics import Scores
from training.published import COMPOSITE, MAPS
from training.split import DEVELOPMENT_SEED, DEVELOPMENT_SHARE, development_split

LEAK = "epoch chosen on the test subject: not a valid score"
"""Label of every figure of `peeked`."""

FIXED = "last epoch, fixed beforehand"

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Assessment:
    """Answers a seed, their calibration, and the summary of both."""

    seeds: list[Answers]
    calibration: Calibration
    summary: Json


def assess(
    header: Json,
    results: Sequence[FoldResult],
    data: FlowMaps | None = None,
    *,
    precision: float = PRECISION,
    groups: int | None = None,
) -> Assessment:
    """Summarize finished folds; header is the record's. groups is the number of groups of subjects if these were left out
    rather than each subject; data are needed then. Raises what `gather` and `calibrate` raise."""
    seeds = gather(results, data)
    calibration = calibrate(seeds, precision)
    summary = {
        "protocol": protocol(groups),
        "classes": list(CLASSES),
        **header,
        "groups": groups,
        "folds": len(results),
        "seconds": round(sum(r.seconds for r in results)),
        **_figures([a.scores() for a in seeds]),
        "databases": _databases(seeds),
        "single": _single(seeds),
        "kernel": _beside(seeds, [a.kernel for a in seeds]),
        "peeked": {"label": LEAK, **peeked} if (peeked := _beside(seeds, [a.peeked for a in seeds])) else None,
        **_halves(seeds),
        "seeds": {str(a.seed): {part: _as_json(s) for part, s in _parts(a).items()} for a in seeds},
        "confidence": _confidence(calibration),
    }
    return Assessment(seeds, calibration, summary)


def protocol(groups: int | None) -> str:
    """The protocol of the evaluation, in one line."""
    left_out = "leave one subject out" if groups is None else f"{groups} subject-disjoint groups, NOT leave one subject out"
    return f"{left_out}, last epoch, one pooled confusion matrix (rows: truth) over the declared classes"


def verdict(confidence: Json) -> str:
    """What the calibration error of a summary's `confidence` means."""
    if confidence["within"]:
        return "within chance"
    if confidence["error"]["mean"] > confidence["perfect"]["p95"]:
        return "beyond chance"
    return f"within chance on the mean, but only {confidence['seeds_within']} of {len(confidence['seeds'])} seeds are"


def without_maps(summary: Json) -> list[str]:
    """A sentence for the whole and each database without a map of some class, which lowers its figures."""
    parts = next(iter(summary["seeds"].values()))
    sparse = {"the data": parts["all"]["missing"], **{name: parts[name]["missing"] for name in summary["databases"]}}
    return [
        f"No map of {name} is {' or '.join(missing)}, which counts with 0 in its UF1 and UAR."
        for name, missing in sparse.items()
        if missing
    ]


def result_rows(summary: Json) -> list[tuple[str, str, Json]]:
    """What was evaluated, how its epoch was chosen, and its figures: honest ones first, the leak last."""
    members, kernel, single = summary["recipe"]["model"]["members"], summary["kernel"], summary["single"]
    networks = f"committee of {members}" if members > 1 else "one network"
    rows = [(f"{networks} and a kernel machine" if kernel else networks, FIXED, summary)]
    if summary["untouched"]:
        rows.append((f"its {summary['untouched']['subjects']} other subjects", FIXED, summary["untouched"]))
        rows.append((f"its {summary['development']['subjects']} development subjects", FIXED, summary["development"]))
    if single and (members > 1 or kernel):
        rows.append((f"one network alone ({single['runs']} runs)", FIXED, single))
    if kernel:
        rows.append(("the kernel machine alone", "has no epochs", kernel))
    if summary["peeked"]:
        rows.append(("peeking", LEAK, summary["peeked"]))
    return rows


def _parts(answers: Answers) -> dict[str, Scores]:
    return {"all": answers.scores(), **{name: answers.scores(database=name) for name in dict.fromkeys(answers.databases)}}


def _figures(runs: Sequence[Scores]) -> Json:
    return {name: _mean([getattr(run, name) for run in runs]) for name in ("uf1", "uar")}


def _mean(values: Sequence[float]) -> Json:
    spread = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
    return {"mean": round(float(np.mean(values)), 4), "spread": spread}


def _databases(seeds: Sequence[Answers]) -> Json:
    first = seeds[0]
    out = {}
    for name in dict.fromkeys(first.databases):
        people = {s for s, d in zip(first.subjects, first.databases, strict=True) if d == name}
        size = {"maps": first.databases.count(name), "subjects": len(people)}
        out[name] = {**size, **_figures([a.scores(database=name) for a in seeds])}
    return out


def _halves(seeds: Sequence[Answers]) -> Json:
    """The committee on the subjects that recipes were compared on and on all others, from the same folds."""
    first = seeds[0]
    if len(first.names) != MAPS or set(first.databases) != COMPOSITE:
        return {"development": None, "untouched": None}
    inside = development_split(first.subjects, first.databases, share=DEVELOPMENT_SHARE, seed=DEVELOPMENT_SEED)
    outside = sorted(set(range(MAPS)) - set(inside))
    return {name: _half([a.take(rows) for a in seeds]) for name, rows in (("development", inside), ("untouched", outside))}


def _half(seeds: Sequence[Answers]) -> Json:
    size = {"maps": len(seeds[0].names), "subjects": len(set(seeds[0].subjects))}
    return {**size, **_figures([a.scores() for a in seeds]), "databases": _databases(seeds)}


def _single(seeds: Sequence[Answers]) -> Json | None:
    """Every network of every seed on its own: the spread is over all of these runs."""
    alone = [(a, a.members[:, m]) for a in seeds if a.members is not None for m in range(a.members.shape[1])]
    found = _beside([a for a, _ in alone], [rows for _, rows in alone]) if alone else None
    return {"runs": len(alone), **found} if found else None


def _beside(seeds: Sequence[Answers], others: Sequence[F64 | None]) -> Json | None:
    """The figures of other logits than the committee's, one array a seed; None where a seed has none."""
    given = [logits for logits in others if logits is not None]
    if len(given) < len(seeds):
        return None
    pairs = list(zip(seeds, given, strict=True))
    databases = {name: _figures([a.scores(rows, name) for a, rows in pairs]) for name in dict.fromkeys(seeds[0].databases)}
    return {**_figures([a.scores(rows) for a, rows in pairs]), "databases": databases}


def _as_json(scores: Scores) -> Json:
    return {
        "uf1": round(scores.uf1, 4),
        "uar": round(scores.uar, 4),
        "accuracy": round(scores.accuracy, 4),
        "recall": {name: round(value, 4) for name, value in zip(CLASSES, scores.recall, strict=True)},
        "confusion": scores.confusion.tolist(),
        "missing": [CLASSES[i] for i in scores.missing],
    }


def _confidence(found: Calibration) -> Json:
    right = [seed.precision for seed in found.seeds if seed.precision is not None]
    threshold = found.threshold
    return {
        "how": "temperature and threshold of each group of subjects from the others' out-of-fold answers (whose networks were "
        "fitted to that group too); mean over the seeds",
        "temperature": round(found.temperature, 4),
        "precision_asked": found.asked,
        "precision_reached": threshold is not None,
        "uncertain_below": 1.0 if threshold is None else round(max(threshold, LEAST_THRESHOLD), 4),
        "said": round(float(np.mean([seed.coverage for seed in found.seeds])), 4),
        "right_when_said": round(float(np.mean(right)), 4) if right else 0.0,
        "error": _mean(found.errors),
        "error_before": _mean(found.raw_errors),
        "perfect": {"mean": round(found.perfect_mean, 4), "p95": round(found.perfect_p95, 4), "draws": DRAWS},
        "within": found.within,
        "seeds_within": found.seeds_within,
        "seeds": [
            {"temperature": round(seed.temperature, 4), "error": round(error, 4), "perfect_p95": round(p95, 4)}
            for seed, error, p95 in zip(found.seeds, found.errors, found.seed_p95, strict=True)
        ],
        "reliability": [
            {
                **{"from": round(b.low, 4), "to": round(b.high, 4), "count": b.count},
                **{"confidence": round(b.confidence, 4), "right": round(b.right, 4)},
                "perfect": [round(end, 4) for end in b.band],
            }
            for b in found.bins
        ],
    }


def write_summary(summary: Json, path: Path) -> None:
    """Write the summary as JSON. Raises OutputError."""
    _write(path, json.dumps(summary, indent=1) + "\n")


def write_recipe(summary: Json, path: Path) -> None:
    """Write the evaluated recipe as JSON, with all defaults. Raises OutputError."""
    _write(path, json.dumps(summary["recipe"], indent=2) + "\n")


def write_predictions(found: Assessment, path: Path) -> None:
    """Write one CSV row per map: what it is, and for each seed the committee's answer and its cross-fitted probabilities."""
    head = ["name", "database", "subject", "truth"]
    for answers in found.seeds:
        head += [f"seed{answers.seed}_{column}" for column in ("answer", *CLASSES)]
    first = found.seeds[0]
    rows = []
    for i, (name, database, subject) in enumerate(zip(first.names, first.databases, first.subjects, strict=True)):
        row = [name, database, subject, CLASSES[first.truth[i]]]
        for seed in found.calibration.seeds:
            chances = seed.probabilities[i]
            row += [CLASSES[int(chances.argmax())], *(f"{p:.4f}" for p in chances)]
        rows.append(row)
    _write(path, "".join(map(csv_line, [head, *rows])))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as cause:
        raise OutputError(f"{path} cannot be written: {cause.strerror}") from cause


def read_summary(path: Path) -> Json:
    """Read what `write_summary` wrote. ConfigError if it is no summary."""
    try:
        summary: Json = json.loads(path.read_text(encoding="utf-8"))
        if not {"recipe", "uf1", "uar", "seeds", "confidence"} <= summary.keys():
            raise ValueError("not a summary")
    except OSError as cause:
        raise ConfigError(f"the summary {path} cannot be read: {cause.strerror}") from cause
    except (ValueError, AttributeError) as cause:
        raise ConfigError(f"{path} is not the summary of an evaluation") from cause
    return summary
