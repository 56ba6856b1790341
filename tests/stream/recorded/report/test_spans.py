from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stream.recorded.report.spans import Span, Spans, seconds, union, within, without

spans = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 6)).map(lambda span: (float(span[0]), float(sum(span)))), max_size=8
)


def cells(of: list[Span]) -> set[int]:
    """The whole seconds in spans."""
    return {second for start, end in of for second in range(round(start), round(end))}


def in_order(of: list[Span]) -> bool:
    return all(start < end for start, end in of) and all(a[1] <= b[0] for a, b in pairwise(of))


@given(spans, spans)
def test_the_time_in_spans_is_that_of_their_seconds(one: list[Span], other: list[Span]) -> None:
    first, second = union(one), union(other)
    assert in_order(first) and cells(first) == cells(one)
    for found, expected in (
        (without(first, second), cells(one) - cells(other)),
        (within(first, second), cells(one) & cells(other)),
    ):
        assert in_order(found) and cells(found) == expected
        assert seconds(found) == len(expected)


def test_short_breaks_do_not_end_a_span() -> None:
    growing = Spans()
    for start, end in ((0.0, 0.1), (0.1, 0.2), (0.6, 0.7), (1.3, 1.4)):
        growing.add(start, end)
    assert list(growing) == [(0.0, 0.7), (1.3, 1.4)]
