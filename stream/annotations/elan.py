"""ELAN's annotation files (.eaf) as truth."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from engine.errors import InputError
from engine.text import plain
from stream.annotations.timed_label import TimedLabel, Wanted, apex_tiers, apex_within, chosen_tiers, face_of

if TYPE_CHECKING:
    from pympi import Eaf


def read_elan(path: Path, wanted: Wanted) -> list[TimedLabel]:
    """The annotations of the tiers with labels, which are those that are wanted, or that an export made, or the only one.

    Times are the media's: the offset that ELAN keeps for media that were shifted is added. Raises InputError.
    """
    eaf = _parsed(path)
    shift = _shift(eaf, wanted)
    names = list(eaf.get_tier_names())
    used = [name for name in names if eaf.tiers[name][0] or eaf.tiers[name][1]]
    found = []
    for name in chosen_tiers(names, used, wanted, "tier"):
        apexes = sorted(start for tier in apex_tiers(name, used) for start, _, _ in _spans(eaf, tier, shift))
        for start, end, text in _spans(eaf, name, shift):
            found.append(TimedLabel(start, end, text.strip(), apex_within(start, end, apexes), face_of(name)))
    return found


def _parsed(path: Path) -> Eaf:
    from pympi import Eaf

    try:
        with warnings.catch_warnings(action="ignore"):
            return Eaf(str(path), suppress_version_warning=True)
    except Exception as error:
        raise InputError("it is damaged or no ELAN file; open it in ELAN and save it again") from error


def _shift(eaf: Eaf, wanted: Wanted) -> float:
    """Seconds from ELAN's time to that of the medium: of the video's, else of the first."""
    media: list[dict[str, Any]] = eaf.media_descriptors
    named = [one for one in media if wanted.video and unquote(str(one.get("MEDIA_URL", ""))).endswith(f"/{wanted.video}")]
    try:
        return float((named or media or [{}])[0].get("TIME_ORIGIN") or 0) / 1000
    except ValueError as error:
        raise InputError("it is damaged: the time origin of its medium is no number") from error


def _spans(eaf: Eaf, tier: str, shift: float) -> list[tuple[float, float, str]]:
    try:
        spans = [data[:3] for data in eaf.get_annotation_data_for_tier(tier)]
        return [(start / 1000 + shift, end / 1000 + shift, str(text)) for start, end, text in spans]
    except (KeyError, TypeError) as error:
        raise InputError(f"annotations of the tier {plain(tier)!r} have no times") from error
