"""The composite database's 442 published flow maps (SMIC, SAMM, CASME II), in the layout of HTNet's repository.

    combined_3_class2_for_optical_flow.csv    dataset, sub, filename_o, label
    keypoints.csv                             name, ..., five points (x, y) a map
    datasets/STSNet_whole_norm_u_v_os/        '<name> .png' (with the space), 28 x 28, RGB = (u, v, strain) scaled to 0..255
    datasets/combined_datasets_whole/         apex faces, named in the table's column imagename; used where keypoints.csv is not

A map's name is '<sub>_<filename_o>'. Points in keypoints.csv count from the map's top left corner (28 is its far edge):
read so, the middle of the faces is the flow maps' own axis of symmetry. In memory the centre of the first cell is (0, 0),
half a cell less.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from engine.errors import InputError
from engine.geometry import MAP_SIDE
from engine.types import F32
from training.datasets import CLASSES, FlowMaps, keypoints
from training.datasets.keypoints import COLUMNS
from training.datasets.pictures import decoded
from training.datasets.subjects import refuse_two_spellings

TABLE = "combined_3_class2_for_optical_flow.csv"
KEYPOINTS = "keypoints.csv"
MAPS = Path("datasets") / "STSNet_whole_norm_u_v_os"
FACES = Path("datasets") / "combined_datasets_whole"


def load(folder: str | Path) -> FlowMaps:
    """Read the folder. Maps named in the table but absent are listed in the result; anything else missing is an InputError."""
    root = Path(folder)
    rows = _rows(root / TABLE, ("dataset", "sub", "filename_o", "label"))
    points = _keypoints(root / KEYPOINTS) if (root / KEYPOINTS).exists() else _found(root, rows)
    if not (root / MAPS).is_dir():
        raise InputError(f"there is no folder {root / MAPS}; the flow maps are expected there as '<name> .png'")
    maps, places, labels, names, databases, subjects, absent = [], [], [], [], [], [], []
    for number, row in enumerate(rows, start=2):
        name = _name(row)
        label = _label(row["label"], f"{root / TABLE}, line {number}")
        path = _file(root / MAPS, name)
        if path is None:
            absent.append(name)
            continue
        if name not in points:
            raise InputError(f"{root / KEYPOINTS} has no row for the map {name}")
        maps.append(_map(path))
        places.append(points[name])
        labels.append(label)
        names.append(name)
        databases.append(row["dataset"])
        subjects.append(f"{row['dataset']}/{row['sub']}")
    if not names:
        raise InputError(f"none of the {len(rows)} maps that {root / TABLE} names is in {root / MAPS}")
    if len(set(names)) != len(names):
        raise InputError(f"{root / TABLE} names a map twice: {sorted({n for n in names if names.count(n) > 1})[0]}")
    refuse_two_spellings(subjects, root / TABLE)
    if (root / KEYPOINTS).exists():
        _agreed(root / TABLE, rows, root / KEYPOINTS)
    arrays = (np.stack(maps), np.stack(places), np.array(labels, np.int64))
    return FlowMaps(*arrays, tuple(names), tuple(databases), tuple(subjects), tuple(absent))


def _rows(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"the table {path} cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause
    lacking = [name for name in needed if name not in columns]
    if lacking:
        raise InputError(f"the table {path} lacks the column {', '.join(lacking)}")
    for number, row in enumerate(rows, start=2):
        if any(not row[name] for name in needed):
            raise InputError(f"{path}, line {number}: every row needs {', '.join(needed)}")
    return rows


def _agreed(table: Path, rows: list[dict[str, str]], points: Path) -> None:
    """Raise InputError where the two tables do not agree on whose a map is, or on its class: a person filed under two databases
    would be fitted to and judged in one fold."""
    told = {row["name"]: row for row in _rows(points, ("name",))}
    for number, row in enumerate(rows, start=2):
        other = told.get(_name(row), {})
        for ours, theirs in (("dataset", "database"), ("sub", "subject"), ("label", "label")):
            if other.get(theirs) and other[theirs] != row[ours]:
                of = f"{points.name} has {theirs} {other[theirs]!r}"
                raise InputError(f"{table}, line {number}: {ours} is {row[ours]!r}, and of this map {of}")


def _label(text: str, where: str) -> int:
    if text not in {str(i) for i in range(len(CLASSES))}:
        known = ", ".join(f"{i} {name}" for i, name in enumerate(CLASSES))
        raise InputError(f"{where}: the label is {text!r}; {known} are known")
    return int(text)


def _keypoints(path: Path) -> dict[str, F32]:
    out: dict[str, F32] = {}
    for number, row in enumerate(_rows(path, ("name", *COLUMNS)), start=2):
        try:
            values = np.array([float(row[c]) for c in COLUMNS], np.float32)
        except ValueError as cause:
            raise InputError(f"{path}, line {number}: {cause}") from cause
        if not (np.isfinite(values).all() and (np.abs(values - MAP_SIDE / 2) <= MAP_SIDE).all()):
            raise InputError(f"{path}, line {number}: a point is nowhere near the map, whose cells are 0 to {MAP_SIDE}")
        out[row["name"]] = values.reshape(len(keypoints.POINTS), 2) - 0.5
    return out


def _found(root: Path, rows: list[dict[str, str]]) -> dict[str, F32]:
    """The points of all maps present, found on the apex faces."""
    if not (root / FACES).is_dir():
        raise InputError(f"{root} holds neither {KEYPOINTS} nor the apex faces in {FACES} to find the points on")
    present = {_name(row): root / FACES / row.get("imagename", "") for row in rows if _file(root / MAPS, _name(row))}
    return keypoints.find(present)


def _name(row: dict[str, str]) -> str:
    return f"{row['sub']}_{row['filename_o']}"


def _file(folder: Path, name: str) -> Path | None:
    candidates = (folder / f"{name} .png", folder / f"{name}.png")
    return next((path for path in candidates if path.is_file()), None)


def _map(path: Path) -> F32:
    try:
        picture = decoded(path.read_bytes())
    except OSError as cause:
        raise InputError(f"the map {path} cannot be read: {cause.strerror}") from cause
    if picture is None or picture.shape != (MAP_SIDE, MAP_SIDE, 3):
        size = "no picture" if picture is None else f"{picture.shape[1]} x {picture.shape[0]}"
        raise InputError(f"{path} is {size}; a colour picture of {MAP_SIDE} x {MAP_SIDE} is expected")
    return np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / np.float32(255)
