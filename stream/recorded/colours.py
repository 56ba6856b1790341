"""Colours of the classes of expressions, the same in pictures and in videos."""

from __future__ import annotations

COLOURS = {"negative": "#D55E00", "positive": "#009E73", "surprise": "#0072B2", "uncertain": "#999999"}
"""Colour of each class, for the colour-blind too (Okabe and Ito, 2008)."""

_OTHER_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def colour_of(label: str) -> str:
    """The colour of a class as #RRGGBB; the same name always has the same colour."""
    return COLOURS.get(label) or _OTHER_COLOURS[sum(label.encode()) % len(_OTHER_COLOURS)]
