"""How far two sets of labels agree beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


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
