"""Praat's TextGrids: interval tiers of each face, and a point tier of apexes; times are the player's."""

from __future__ import annotations

from typing import Any

from stream.events.formats.format import DocumentFormat
from stream.events.formats.tiers import Tier, tiers
from stream.events.formats.timeline import Timeline


def _document(timeline: Timeline) -> bytes:
    from praatio.utilities.textgrid_io import getTextgridAsStr

    length = timeline.length_s
    grid = {"xmin": 0.0, "xmax": length, "tiers": [_tier(tier, length) for tier in tiers(timeline)]}
    text = getTextgridAsStr(grid, "long_textgrid", includeBlankSpaces=True, minimumIntervalLength=None)
    return str(text).encode()


def _tier(tier: Tier, length: float) -> dict[str, Any]:
    shared = {"name": tier.name, "xmin": 0.0, "xmax": length}
    if tier.kind == "apex":
        return {"class": "TextTier", **shared, "entries": [(one.start, one.text) for one in tier.annotations]}
    entries = [(one.start, one.end, one.text) for one in tier.annotations if one.text]
    return {"class": "IntervalTier", **shared, "entries": entries}


TEXTGRID = DocumentFormat("text/plain; charset=utf-8", _document, ending="TextGrid")
