"""Praat's TextGrids as truth."""

from __future__ import annotations

import re
from pathlib import Path

from engine.errors import InputError
from stream.annotations.timed_label import TimedLabel, Wanted, apex_tiers, apex_within, chosen_tiers, face_of

DAMAGED = "it is damaged or no TextGrid; open it in Praat and save it again as a text file"
_TIERS = re.compile(r"<exists>\s*(?:size\s*=\s*)?(\d+)")
_SIZE = re.compile(r"(?:intervals|points): size = (\d+)")
_ITEM = re.compile(r"^\s*(?:intervals|points) \[\d+\]:?", re.MULTILINE)


def read_praat(path: Path, wanted: Wanted) -> list[TimedLabel]:
    """The intervals with a text of the tiers with labels, which are those that are wanted, or that an export made, or the only
    interval tier. Raises InputError."""
    from praatio.textgrid import IntervalTier, openTextgrid

    try:
        tiers = openTextgrid(str(path), False, reportingMode="silence", duplicateNamesMode="rename").tiers
        whole = _is_whole(path.read_bytes(), len(tiers))
    except Exception as error:
        raise InputError(DAMAGED) from error
    if not whole:
        raise InputError(DAMAGED)
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


def _is_whole(content: bytes, tiers: int) -> bool:
    """Whether a TextGrid that was read has as many tiers, and in its long form intervals and points, as it says."""
    text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", errors="replace")
    said = _TIERS.search(text)
    items = sum(int(size) for size in _SIZE.findall(text))
    return (said is None or int(said[1]) == tiers) and items in (0, len(_ITEM.findall(text)))
