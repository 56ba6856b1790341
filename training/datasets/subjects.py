"""Who is who: a person spelled in two ways would count as two, and be fitted to and judged in one fold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from engine.errors import InputError


def refuse_two_spellings(subjects: Iterable[str], where: object) -> None:
    """Raise InputError where two subjects of a table differ only in case, spaces or leading zeros: sub01, Sub01 and sub1."""
    seen: dict[str, str] = {}
    for subject in subjects:
        before = seen.setdefault(_plain(subject), subject)
        if before != subject:
            raise InputError(f"{where} spells one subject in two ways, {before!r} and {subject!r}; one way is needed")


def _plain(subject: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", "".join(subject.split()).casefold())
