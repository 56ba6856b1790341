"""Flow-map folders for tests, in the layout of the composite database, rendered with patterns that tell the classes apart."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.geometry import CANONICAL_KEYPOINTS
from engine.types import F32, U8
from training.datasets.htnet_3db import KEYPOINTS, MAPS, TABLE
from training.datasets.keypoints import COLUMNS

SUBJECTS = (("casme2", "sub01"), ("casme2", "sub02"), ("samm", "006"), ("smic", "s03"))


def rendered(label: int, draw: np.random.Generator) -> U8:
    """[28, 28, 3] uint8 RGB: brows down (0), lip corners up and out (1) or brows up (2), with a little noise."""
    y, x = np.mgrid[:28, :28].astype(np.float32)
    u, v = draw.normal(0, 0.05, (2, 28, 28)).astype(np.float32)

    def bump(cx: float, cy: float) -> F32:
        return np.asarray(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 12))

    left, right = (3, 4) if label == 1 else (0, 1)
    lift = 0 if label == 1 else 4
    for keypoint, side in ((left, -1), (right, 1)):
        cx, cy = CANONICAL_KEYPOINTS[keypoint]
        place = bump(cx, cy - lift)
        u += side * place * (1.0 if label == 1 else 0.2)
        v += place * (1.0 if label == 0 else -1.0)
    strain = np.hypot(*np.gradient(u)) + np.hypot(*np.gradient(v))
    channels = [(c - c.min()) / np.ptp(c) * 255 for c in (u, v, strain)]
    return np.asarray(np.stack(channels, -1).round(), np.uint8)


def write_dataset(folder: Path, per_class: int = 2, subjects: tuple[tuple[str, str], ...] = SUBJECTS) -> Path:
    """A folder with per_class maps of each class and subject; returns it."""
    draw = np.random.default_rng(5)
    (folder / MAPS).mkdir(parents=True)
    table, points = [], []
    for database, subject in subjects:
        for label in (0, 1, 2):
            for number in range(per_class):
                name = f"c{label}_{number}"
                picture = rendered(label, draw)
                cv2.imwrite(str(folder / MAPS / f"{subject}_{name} .png"), picture[..., ::-1])
                table.append([database, subject, name, label, "", "", ""])
                places = CANONICAL_KEYPOINTS + 0.5 + draw.normal(0, 0.2, (5, 2))
                points.append([f"{subject}_{name}", database, subject, label, *places.ravel().round(3)])
    head = ["dataset", "sub", "filename_o", "label", "apex", "imagename", "sub_filename"]
    _write(folder / TABLE, [head, *table])
    _write(folder / KEYPOINTS, [["name", "database", "subject", "label", *COLUMNS], *points])
    return folder


def _write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
