"""TV-L1 flow measured against OpenCV's default solver over `cases`: time and endpoint error."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from apexstream.bench.baseline import default_flow
from apexstream.bench.timing import Clock, timed
from engine.types import F32, U8
from lab.flow_bench.cases import Case, Errors, endpoint_errors


@dataclass(frozen=True)
class Row:
    """One line of the report: both solvers over a group of cases, errors as means over the cases, times as medians."""

    group: str
    cases: int
    default_ms: float
    ours_ms: float
    ratio: float
    default: Errors
    ours: Errors


@dataclass(frozen=True)
class Sample:
    """What one case gave: seconds and errors of both solvers."""

    case: Case
    seconds: tuple[float, float]
    errors: tuple[Errors, Errors]


def measure(case: Case, ours: Callable[[U8, U8], F32], clock: Clock = time.perf_counter) -> Sample:
    """Both solvers on one case, one right after the other."""
    runs = [timed(partial(solver, case.fixed, case.moving), clock) for solver in (default_flow, ours)]
    (default_s, their_flow), (ours_s, our_flow) = runs
    return Sample(case, (default_s, ours_s), (endpoint_errors(their_flow, case.truth), endpoint_errors(our_flow, case.truth)))


def summarize(group: str, samples: list[Sample]) -> Row:
    """The line of a group of samples."""

    def mean(which: int) -> Errors:
        values = np.mean([[e.mean, e.moving, e.p95] for e in (s.errors[which] for s in samples)], axis=0)
        return Errors(*(round(float(v), 4) for v in values))

    default_ms, ours_ms = (float(np.median([s.seconds[which] for s in samples])) * 1e3 for which in (0, 1))
    ratio = round(default_ms / ours_ms, 1)
    return Row(group, len(samples), round(default_ms, 2), round(ours_ms, 2), ratio, mean(0), mean(1))


def report(samples: list[Sample]) -> list[Row]:
    """All cases, then by photograph, amplitude, noise and field."""
    rows = [summarize("all", samples)]
    for key, unit in (("face", ""), ("amplitude", " px"), ("noise", " grey levels"), ("field", "")):
        values = dict.fromkeys(getattr(s.case, key) for s in samples)
        rows += [summarize(f"{key} {value}{unit}", [s for s in samples if getattr(s.case, key) == value]) for value in values]
    return rows


def table(rows: list[Row]) -> str:
    """The report as a markdown table; each pair is OpenCV's default, then ours."""
    lines = [
        "| cases | n | ms | ratio | mean error, px | on moving pixels | 95th percentile |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        pairs = [(r.default.mean, r.ours.mean), (r.default.moving, r.ours.moving), (r.default.p95, r.ours.p95)]
        cells = " | ".join(f"{default:.3f} → {ours:.3f}" for default, ours in pairs)
        lines.append(f"| {r.group} | {r.cases} | {r.default_ms:.1f} → {r.ours_ms:.1f} | {r.ratio:.1f} | {cells} |")
    return "\n".join(lines)
