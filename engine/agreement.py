"""How far two sets of labels agree beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


def cohen_kappa(table: Mapping[tuple[str, str], float]) -> float | None:
    """Cohen's kappa (1960) of how often each pair of labels (one coder's, the other's) was given to the same things.

    None where it is not defined: nothing was labelled, or both only ever gave one and the same label.
    """
    total = sum(table.values())
    first, second = Counter[str](), Counter[str]()
    for (one, other), count in table.items():
        first[one] += count  # type: ignore[assignment]
        second[other] += count  # type: ignore[assignment]
    expected = sum(first[label] * second[label] for label in first)
    if total <= 0 or expected >= total * total:
        return None
    agreed = sum(count for (one, other), count in table.items() if one == other)
    return (agreed * total - expected) / (total * total - expected)


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Krippendorff's alpha (2004) for classes without an order: units holds, for each thing that was judged, the label of every
    coder who judged it, in any order; things that fewer than two judged say nothing.

    None where it is not defined: no thing was judged twice, or one and the same label was given to all.
    """
    pairs, totals, count = 0.0, Counter[str](), 0
    for labels in units:
        if len(labels) < 2:
            continue
        given = Counter(labels)
        totals.update(given)
        count += len(labels)
        differing = len(labels) ** 2 - sum(number * number for number in given.values())
        pairs += differing / (len(labels) - 1)
    expected = count * count - sum(number * number for number in totals.values())
    if not expected:
        return None
    return 1 - (count - 1) * pairs / expected
