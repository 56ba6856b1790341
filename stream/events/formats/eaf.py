"""ELAN's annotation files (.eaf): tiers of each face, with the video linked; times are the player's.

ELAN counts whole milliseconds. They are rounded up, so that the player at the start of an annotation shows the frame of its
onset, not the one before.
"""

from __future__ import annotations

import mimetypes
import os
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from engine.text import xml_text
from stream.events.formats.format import DocumentFormat
from stream.events.formats.tiers import Tier, tiers
from stream.events.formats.timeline import Timeline, milliseconds

if TYPE_CHECKING:
    from pympi import Eaf

TYPES = {"label": None, "attribute": "Symbolic_Association", "apex": "Included_In", "activity": None}
"""ELAN's types of our tiers, with the constraint that ties each to its parent."""


def _document(timeline: Timeline) -> bytes:
    from pympi.Elan import Eaf, to_string

    eaf = Eaf(author="apexstream")
    eaf.adocument["DATE"] = f"{timeline.date}+00:00"
    eaf.remove_tier("default")
    eaf.remove_linguistic_type("default-lt")
    eaf.properties.clear()
    for name, constraint in TYPES.items():
        eaf.add_linguistic_type(name, constraint, timealignable=constraint != "Symbolic_Association")
    recording = timeline.recording
    if recording is not None and recording.path is not None:
        _link(eaf, recording.path.absolute(), recording.folder)
    if timeline.began is not None:
        eaf.add_property("began", timeline.began.isoformat(timespec="milliseconds"))
    annotator = None if recording is None or recording.coder is None else xml_text(recording.coder)
    ids: dict[str, list[str]] = {}
    for tier in tiers(timeline):
        ids[tier.name] = _add(eaf, tier, annotator, ids)
    _order_times(eaf)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{to_string(eaf)}\n'.encode()


def _link(eaf: Eaf, video: Path, folder: Path | None) -> None:
    """Link the video by its path and by the way to it from the folder of the export, as ELAN writes and reads them: URLs
    without escapes, in which a space is a space."""
    media_type = mimetypes.guess_type(video.name)[0] or "unknown"
    way = PurePath(video.name)
    with suppress(ValueError):  # another drive
        way = way if folder is None else PurePath(os.path.relpath(video, folder.absolute()))
    relative = way.as_posix() if way.parts[0] == ".." else f"./{way.as_posix()}"
    eaf.add_linked_file(xml_text(f"file:///{video.as_posix().lstrip('/')}"), xml_text(relative), media_type)


def _add(eaf: Eaf, tier: Tier, annotator: str | None, ids: dict[str, list[str]]) -> list[str]:
    """Add a tier; returns the ids of its annotations. ids are those of the tiers before it."""
    name, parent = xml_text(tier.name), None if tier.parent is None else xml_text(tier.parent)
    eaf.add_tier(name, tier.kind, parent, part=xml_text(tier.subject), ann=annotator)
    aligned, references = eaf.tiers[name][:2]
    if tier.kind == "attribute":
        assert tier.parent is not None
        for owner, one in zip(ids[tier.parent], tier.annotations, strict=True):
            if one.text:  # by its number: the library would search the parent's by time, each from the first on
                references[eaf.generate_annotation_id()] = (owner, xml_text(one.text), None, None)
        return []
    for one in tier.annotations:
        eaf.add_annotation(name, milliseconds(one.start), milliseconds(one.end), xml_text(one.text))
    return list(aligned)


def _order_times(eaf: Eaf) -> None:
    """Number the time slots in ascending order of time, as the format wants them."""
    order = sorted(eaf.timeslots.items(), key=lambda slot: slot[1])
    numbers = {old: f"ts{number}" for number, (old, _) in enumerate(order, 1)}
    eaf.timeslots = {numbers[old]: time for old, time in order}
    for aligned, *_ in eaf.tiers.values():
        for key, (start, end, *rest) in aligned.items():
            aligned[key] = (numbers[start], numbers[end], *rest)


EAF = DocumentFormat("application/xml", _document)
