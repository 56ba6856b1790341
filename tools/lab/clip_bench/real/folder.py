"""A folder of real clips: its videos, their rows of manifest.csv, and the expressions that are known to be in them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from apexstream.clips.spec import read_truth, truth_path
from engine.errors import InputError

KINDS = ("speech", "quiet", "posing", "blinks", "gestures", "crowd", "other")
CLASSES = ("negative", "positive", "surprise")
NEUTRAL = "neutral"
SPLITS = ("tune", "test")
SUFFIXES = frozenset({".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"})
MANIFEST, TIMES = "manifest.csv", "labels.csv"


@dataclass(frozen=True)
class TrueEvent:
    """An expression known to be in a clip, in seconds of the source; injected by the renderer or timed by hand. label is empty
    where its class is not known."""

    onset: float
    apex: float
    offset: float
    label: str
    source: Literal["injected", "timed"]


@dataclass(frozen=True)
class RealClip:
    """A video and what is known of it. name is its path within the folder; label the class that all of the clip shows, or
    empty; person and split are empty where the manifest does not say."""

    name: str
    path: Path
    person: str = ""
    kind: str = "other"
    note: str = ""
    label: str = ""
    split: str = ""
    truths: tuple[TrueEvent, ...] = ()


def read_clips(folder: Path, *, only: str | None = None, split: str | None = None) -> list[RealClip]:
    """The clips of a folder and its subfolders, by name; only holds patterns of names (fnmatch) with commas between, split is
    one of SPLITS.

    A video that manifest.csv does not list is of kind "other". Raises InputError where there is no video, where a table
    names a file that is not there, or where a row cannot be used.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; a folder of videos is expected")
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    listed, timed = _manifest(folder, names), _times(folder, names)
    clips = []
    for name in names:
        clip = listed.get(name) or RealClip(name, folder / name)
        if (only is None or any(fnmatch(name, pattern.strip()) for pattern in only.split(","))) and (
            split is None or clip.split == split
        ):
            truths = sorted([*_injected(truth_path(clip.path)), *timed.get(name, [])], key=lambda e: e.onset)
            clips.append(replace(clip, truths=tuple(truths)))
    if not clips:
        chosen = "".join([f" that matches {only!r}" if only else "", f" of the split {split!r}" if split else ""])
        raise InputError(f"there is no video{chosen} in {folder}; known are {', '.join(sorted(SUFFIXES))}")
    return clips


def _manifest(folder: Path, names: list[str]) -> dict[str, RealClip]:
    path = folder / MANIFEST
    clips = {}
    for where, row in _rows(path, {"file"}, names):
        kind, label, split = row.get("kind") or "other", row.get("label", ""), row.get("split", "")
        _one_of(kind, KINDS, f"{where}: the kind")
        _one_of(label, ("", *CLASSES, NEUTRAL), f"{where}: the label")
        _one_of(split, ("", *SPLITS), f"{where}: the split")
        name = row["file"]
        clips[name] = RealClip(name, folder / name, row.get("person", ""), kind, row.get("note", ""), label, split)
    return clips


def _times(folder: Path, names: list[str]) -> dict[str, list[TrueEvent]]:
    events: dict[str, list[TrueEvent]] = {}
    for where, row in _rows(folder / TIMES, {"file", "onset", "apex", "offset"}, names):
        try:
            onset, apex, offset = (float(row[mark]) for mark in ("onset", "apex", "offset"))
        except ValueError as error:
            raise InputError(f"{where}: onset, apex and offset are seconds ({error})") from error
        event = TrueEvent(onset, apex, offset, row.get("label", ""), "timed")
        events.setdefault(row["file"], []).append(_in_order(event, where))
    return events


def _injected(path: Path) -> list[TrueEvent]:
    """The events of a renderer's truth file; none where there is no such file."""
    if not path.is_file():
        return []
    events = [TrueEvent(e.onset_t, e.apex_t, e.offset_t, e.label, "injected") for e in read_truth(path).events]
    return [_in_order(event, str(path)) for event in events]


def _in_order(event: TrueEvent, where: str) -> TrueEvent:
    if not event.onset <= event.apex <= event.offset or not event.onset < event.offset:
        times = f"{event.onset:g}, {event.apex:g}, {event.offset:g}"
        raise InputError(f"{where}: onset, apex and offset follow each other, not {times}")
    return event


def _rows(path: Path, needed: set[str], names: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, row) of a CSV table, spaces stripped; nothing where there is no such file."""
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            missing = needed - set(table.fieldnames or ())
            if missing:
                raise InputError(f"{path} has no column {', '.join(sorted(missing))}")
            known = set(names)
            for raw in table:
                row = {key: (value or "").strip() for key, value in raw.items() if isinstance(key, str)}
                where = f"{path}, line {table.line_num}"
                if row["file"] not in known:
                    raise InputError(f"{where}: there is no video {row['file']!r} in {path.parent}")
                yield where, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}); UTF-8 with commas is expected") from error


def _one_of(value: str, allowed: tuple[str, ...], what: str) -> None:
    if value not in allowed:
        raise InputError(f"{what} is one of {', '.join(word or 'nothing' for word in allowed)}, not {value!r}")
