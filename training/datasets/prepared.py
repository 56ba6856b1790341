"""Prepared databases on disk: flow maps made from pictures, with the settings they were made with.

    FOLDER/<database>/prepared.json     format, settings and their fingerprint, versions of the libraries
    FOLDER/<database>/maps/<key>.npz    one clip each, written as soon as it is done
    FOLDER/<database>/clips.csv         every clip that has a map; written last, so it says that the preparation was finished
    FOLDER/<database>/skipped.csv       every expression that has none: why (class, table, pictures) and the reason

Files are replaced, never half written. A folder made with other settings or by other code is refused, for writing as for
reading. A map is kept while its row in the table, its pictures and the libraries are what they were, and otherwise made anew.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import InputError, OutputError
from engine.geometry import MAP_SIDE
from engine.text import cell_text, csv_line
from training.datasets import CLASSES, FlowMaps
from training.datasets.clips import Clip, LeftOut
from training.datasets.flow import ClipFlow, looked_at, settings, versions
from training.datasets.pictures import ClipFolder
from training.datasets.subjects import refuse_two_spellings

FORMAT = 2
HEAD, MAPS, CLIPS, SKIPPED = "prepared.json", "maps", "clips.csv", "skipped.csv"
COLUMNS = (
    *("key", "database", "subject", "name", "label", "class", "emotion", "units", "fps", "onset", "apex", "offset"),
    *("px", "alike", "one_reference"),
)
SHAPES: dict[str, tuple[int, ...]] = {"whole": (3, MAP_SIDE, MAP_SIDE), "keypoints": (5, 2), "facts": (6,)}


def fingerprint() -> str:
    """A digest of the format and of all settings that decide what the maps are."""
    content = json.dumps({"format": FORMAT, **settings()}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class Store:
    """One database's folder, open for writing; what an earlier run left there is gone on with.

    Raises InputError where that run had other settings, OutputError where the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            (folder / MAPS).mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise OutputError(f"the folder {folder} cannot be made: {cause.strerror}") from cause
        if (folder / HEAD).exists() and _head(folder).get("versions") == versions():
            return
        self.begin()
        head = {"format": FORMAT, "fingerprint": fingerprint(), "settings": settings(), "versions": versions()}
        _replace(folder / HEAD, (json.dumps(head, indent=2) + "\n").encode())

    def get(self, clip: Clip, source: ClipFolder) -> ClipFlow | None:
        """The map of a clip where an earlier run made it from the same row and pictures with the same libraries."""
        path = _part(self.folder, clip.key)
        if not path.exists():
            return None
        try:
            flow, digest = _read(path)
            stamp = looked_at(clip, source).stamp()
        except InputError:  # a damaged map is made anew; what is wrong with pictures is told where they are read
            return None
        return flow if (digest, flow.stamp) == (_digest(clip, source), stamp) else None

    def put(self, clip: Clip, source: ClipFolder, flow: ClipFlow) -> None:
        """Keep a clip's map. Raises OutputError."""
        facts = [flow.alike, flow.one_reference, flow.px, flow.onset, flow.apex, flow.offset]
        content = io.BytesIO()
        digest, numbers = np.array(_digest(clip, source)), np.array(facts, np.float64)
        np.savez(content, whole=flow.whole, keypoints=flow.keypoints, facts=numbers, clip=digest, stamp=np.array(flow.stamp))
        _replace(_part(self.folder, clip.key), content.getvalue())

    def begin(self) -> None:
        """From now on the folder counts as unfinished, until `finish`."""
        try:
            (self.folder / CLIPS).unlink(missing_ok=True)
        except OSError as cause:
            raise OutputError(f"{self.folder / CLIPS} cannot be replaced: {cause.strerror}") from cause

    def finish(self, made: Sequence[tuple[Clip, ClipFlow]], left_out: Iterable[LeftOut]) -> None:
        """Write both tables. Raises OutputError."""
        skipped = [(each.name, each.why, each.reason) for each in left_out]
        _replace(self.folder / SKIPPED, _table([("name", "why", "reason"), *skipped]))
        _replace(self.folder / CLIPS, _table([COLUMNS, *(_row(clip, flow) for clip, flow in made)]))


def is_prepared(folder: Path) -> bool:
    """Whether the folder is a prepared database or holds some."""
    return bool(_databases(folder))


def load(folder: Path) -> FlowMaps:
    """All maps of a prepared database, or of all in the folder. Raises InputError that says what to do."""
    sets = [_load_one(each) for each in _databases(folder)]
    if not sets:
        raise InputError(f"{folder} holds no prepared database; `apexstream prepare` makes one")
    names = [name for each in sets for name in each.names]
    if not names:
        raise InputError(f"the databases in {folder} hold no map; their {SKIPPED} says why")
    if len(set(names)) != len(names):
        raise InputError(f"two databases in {folder} have a map called {next(n for n in names if names.count(n) > 1)}")
    refuse_two_spellings((name for each in sets for name in each.subjects), folder)
    return FlowMaps(
        maps=np.concatenate([each.maps for each in sets]),
        keypoints=np.concatenate([each.keypoints for each in sets]),
        labels=np.concatenate([each.labels for each in sets]),
        names=tuple(names),
        databases=tuple(name for each in sets for name in each.databases),
        subjects=tuple(name for each in sets for name in each.subjects),
        absent=tuple(name for each in sets for name in each.absent),
    )


def _databases(folder: Path) -> list[Path]:
    if (folder / HEAD).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{HEAD}"))


def _load_one(folder: Path) -> FlowMaps:
    _head(folder)
    if not (folder / CLIPS).exists():
        raise InputError(f"the preparation of {folder} was not finished; the same `apexstream prepare` goes on with it")
    rows = _rows(folder / CLIPS, COLUMNS)
    flows = [_read(_part(folder, row["key"]))[0] for row in rows]
    skipped = _rows(folder / SKIPPED, ("name", "why", "reason"))
    labels = [CLASSES.index(row["class"]) for row in rows]
    return FlowMaps(
        maps=np.array([flow.whole for flow in flows], np.float32).reshape(-1, 3, MAP_SIDE, MAP_SIDE),
        keypoints=np.array([flow.keypoints for flow in flows], np.float32).reshape(-1, 5, 2),
        labels=np.array(labels, np.int64),
        names=tuple(row["key"] for row in rows),
        databases=tuple(row["database"] for row in rows),
        subjects=tuple(row["subject"] for row in rows),
        absent=tuple(row["name"] for row in skipped if row["why"] == "pictures"),
    )


def _head(folder: Path) -> dict[str, object]:
    """What is written above a database. Raises InputError where it is damaged or tells of other settings."""
    try:
        head = dict(json.loads((folder / HEAD).read_bytes()))
        theirs = head["fingerprint"], head["format"]
    except OSError as cause:
        raise InputError(f"{folder / HEAD} cannot be read: {cause.strerror}") from cause
    except (ValueError, KeyError, TypeError) as cause:
        raise InputError(f"{folder / HEAD} is damaged; delete {folder} and prepare the database again") from cause
    if theirs != (fingerprint(), FORMAT):
        says = f"format {theirs[1]}, settings {theirs[0]}; this one makes format {FORMAT}, settings {fingerprint()}"
        raise InputError(
            f"{folder} was prepared by another version of apexstream ({says}): prepare it into another folder or delete it"
        )
    return head


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            held, rows = tuple(reader.fieldnames or ()), [_texts(row) for row in reader]
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"{path} cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause
    if held != tuple(columns) or any(None in row.values() for row in rows):
        raise InputError(f"{path} is damaged; the same `apexstream prepare` writes it again")
    if "class" in columns and any(row["class"] not in CLASSES for row in rows):
        raise InputError(f"{path} names a class that is none of {', '.join(CLASSES)}; the same `apexstream prepare` mends it")
    return rows


def _texts(row: dict[str, str]) -> dict[str, str]:
    return {column: cell_text(cell) if isinstance(cell, str) else cell for column, cell in row.items()}


def _row(clip: Clip, flow: ClipFlow) -> tuple[object, ...]:
    named = (clip.key, clip.database, clip.subject, clip.name, clip.label, CLASSES[clip.label], clip.emotion, clip.units)
    measured = (round(flow.px, 3), round(flow.alike, 3), int(flow.one_reference))
    return (*named, clip.fps, flow.onset, flow.apex, flow.offset, *measured)


def _part(folder: Path, key: str) -> Path:
    return folder / MAPS / f"{key}.npz"


def _read(path: Path) -> tuple[ClipFlow, str]:
    """A clip's map, and the digest of what it was made from. Raises InputError where it is missing or damaged."""
    try:
        content = path.read_bytes()
        _check_sums(content)
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            whole, keypoints, facts = (_finite(held[name], shape) for name, shape in SHAPES.items())
            digest, stamp = str(held["clip"]), str(held["stamp"])
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as cause:
        raise InputError(f"the map {path} is missing or damaged; the same `apexstream prepare` makes it again") from cause
    alike, one_reference, px, onset, apex, offset = (float(value) for value in facts)
    return ClipFlow(whole, keypoints, alike, bool(one_reference), px, int(onset), int(apex), int(offset), stamp), digest


def _check_sums(content: bytes) -> None:
    """Before NumPy looks at the arrays: it parses their headers ere it knows whether they are damaged."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"{damaged} is damaged")


def _finite(array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if array.dtype.kind != "f" or array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"finite numbers {shape} are expected")
    return array


def _digest(clip: Clip, source: ClipFolder) -> str:
    """Of the row, the kind of pictures and the libraries."""
    content = json.dumps([*astuple(clip), source.cropped, source.just_expression, versions()])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _table(rows: Iterable[Sequence[object]]) -> bytes:
    return "".join(map(csv_line, rows)).encode()


def _replace(path: Path, content: bytes) -> None:
    """Write the file whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as cause:
        beside.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {cause.strerror}") from cause
