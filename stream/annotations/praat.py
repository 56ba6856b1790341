"""Praat's TextGrids as truth."""

from __future__ import annotations

from pathlib import Path

from engine.errors import InputError
from stream.annotations.timed_label import TimedLabel, Wanted, apex_tiers, apex_within, chosen_tiers, face_of


def read_praat(path: Path, wanted: Wanted) -> list[TimedLabel]:
    """The intervals with a text of the tiers with labels, which are those that are wanted, or that an export made, or the only
    interval tier. Raises InputError."""
    from praatio.textgrid import IntervalTier, openTextgrid

    try:
        tiers = openTextgrid(str(path), False, reportingMode="silence", duplicateNamesMode="rename").tiers
    except Exception as error:
        raise InputError("it is damaged or no TextGrid; open it in Praat and save it again as a text file") from error
    intervals = {tier.name: tier.entries for tier in tiers if isinstance(tier, IntervalTier)}
    starts = {tier.name: [entry[0] for entry in tier.entries] for tier in tiers}
    found = []
    for name in chosen_tiers(
        list(intervals), [name for name, entries in intervals.items() if entries], wanted, "interval tier"
    ):
        apexes = sorted(t for tier in apex_tiers(name, starts) for t in starts[tier])
        for start, end, text in intervals[name]:
            found.append(TimedLabel(start, end, text.strip(), apex_within(start, end, apexes), face_of(name)))
    return found
