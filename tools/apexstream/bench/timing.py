"""How a call is timed: one call, two in turns, and one on the GPU by the GPU's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import cycle
from statistics import median
from typing import TypeVar

Result = TypeVar("Result")
Clock = Callable[[], float]
"""Seconds from an arbitrary start: `time.process_time` leaves out other programs, `time.perf_counter` counts everything."""

WARM_UP = 3


def timed(call: Callable[[], Result], clock: Clock = time.process_time) -> tuple[float, Result]:
    """Seconds of one call, and what it returned."""
    start = clock()
    result = call()
    return clock() - start, result


def fastest_of_each(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The least CPU seconds of each of two calls, made in turns."""
    times = [(timed(first)[0], timed(second)[0]) for _ in range(rounds)]
    one, two = (min(side) for side in zip(*times, strict=True))
    return one, two


def medians_of_each(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median CPU seconds of each of two calls, made in turns after a warm-up."""
    for _ in range(WARM_UP):
        first(), second()
    times = [(timed(first)[0], timed(second)[0]) for _ in range(rounds)]
    one, two = (median(side) for side in zip(*times, strict=True))
    return one, two


def gpu_median_ms(call: Callable[[], object], rounds: int) -> float:
    """Median milliseconds of a call between two CUDA events, after a warm-up."""
    import torch

    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(float(start.elapsed_time(end)))
    return median(times)


def in_turns(calls: Iterable[Callable[[], Result]]) -> Callable[[], Result]:
    """A call that is the next of the calls each time, so that none finds its own input in a cache."""
    following = cycle(calls)

    def call() -> Result:
        return next(following)()

    return call
