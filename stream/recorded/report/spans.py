"""Times in which something holds: lists of spans (start, end) in seconds, in order and without overlaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

BREAK_S = 0.5
"""Breaks up to this long do not end a span."""

Span = tuple[float, float]


class Spans:
    """Grows from moments that come in order."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def add(self, start: float, end: float) -> None:
        """It holds from start to end."""
        if self._spans and start - self._spans[-1][1] <= BREAK_S:
            start = self._spans.pop()[0]
        self._spans.append((start, end))

    def __iter__(self) -> Iterator[Span]:
        """The spans, in order."""
        return iter(self._spans)


def union(spans: Iterable[Span]) -> list[Span]:
    """The time in any of the spans, which may overlap and come in any order."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def without(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The time in spans that is not in others; both in order and without overlaps."""
    left: list[Span] = []
    first = 0
    for start, end in spans:
        while first < len(others) and others[first][1] <= start:
            first += 1
        now, k = start, first
        while k < len(others) and others[k][0] < end:
            if others[k][0] > now:
                left.append((now, others[k][0]))
            now, k = max(now, others[k][1]), k + 1
        if now < end:
            left.append((now, end))
    return left


def within(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The time in both; both in order and without overlaps."""
    return without(spans, without(spans, others))


def seconds(spans: Iterable[Span]) -> float:
    """How long the spans last together."""
    return sum(end - start for start, end in spans)
