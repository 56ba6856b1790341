"""Databases for tests: rendered expressions in the folders of the real releases, tables in their form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openpyxl

from apexstream.clips import preset
from apexstream.clips.render import Scene
from apexstream.clips.spec import Action
from engine.faces.boxes import face_box
from engine.faces.landmarks import FaceLocator
from engine.pipeline import APEX_REACH_S, ONSET_REACH_S
from engine.types import F32, U8, Frame

FIRST = 1
"""Number of a scene's first picture, as in most releases."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One rendered expression: the numbers of onset, apex and offset, and the scene that the pictures come from."""

    onset: int
    apex: int
    offset: int
    fps: float
    scene: Scene

    def picture(self, number: int) -> U8:
        """[H, W, 3] RGB of one number."""
        return self.scene.frame(number - FIRST)

    def needed(self) -> range:
        """The numbers that are looked at: shortly before the onset to shortly after the apex."""
        return range(self.onset - round(ONSET_REACH_S * self.fps), self.apex + round(APEX_REACH_S * self.fps) + 1)


@lru_cache(maxsize=16)
def shot(action: Action, fps: float = 30.0, name: str = "hopper") -> Shot:
    """A micro-expression of two pixels of the crop, in a picture of 360 x 300."""
    event = {"n_events": 1, "macro_fraction": 0.0, "micro_px": (2.0, 2.0), "actions": (action,), "blinks_per_minute": 0.0}
    scene = Scene(preset("clean", name, fps, seed=1, duration_s=4, size=(360, 300), eye_px=80.0, noise_sigma=2.0, **event))
    (truth,) = scene.truth.events
    onset, apex, offset = (FIRST + k for k in (truth.onset_frame, truth.apex_frame, truth.offset_frame))
    return Shot(onset, apex, offset, fps, scene)


def write_shot(folder: Path, taken: Shot, pattern: str = "{}.jpg", numbers: Iterable[int] | None = None) -> Path:
    """Pictures of a shot, called by the pattern with their number; those that are looked at, where numbers is None."""
    folder.mkdir(parents=True)
    for number in taken.needed() if numbers is None else numbers:
        write_picture(folder / pattern.format(number), taken.picture(number))
    return folder


def write_picture(path: Path, rgb: U8) -> None:
    """A picture, as good as its format allows."""
    assert cv2.imwrite(str(path), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def face_part(taken: Shot, number: int) -> U8:
    """One picture of a shot cut to the face, as tightly as cropped releases are; the same part for all numbers."""
    left, top, right, bottom = _face(taken)
    return np.ascontiguousarray(taken.picture(number)[top:bottom, left:right])


@lru_cache(maxsize=4)
def _face(taken: Shot) -> tuple[int, int, int, int]:
    locator = FaceLocator()
    (face,) = locator.locate(Frame(0, 0.0, taken.picture(taken.onset)))
    locator.close()
    x, y, width = face_box(face.points)
    half = width / 2
    return round(x - half), round(y - half), round(x + half), round(y + half)


def write_sheet(path: Path, sheet: str, rows: Iterable[Sequence[object]]) -> Path:
    """An .xlsx file with one sheet."""
    book = openpyxl.Workbook()
    page = book.active
    page.title = sheet
    for row in rows:
        page.append(list(row))
    book.save(path)
    return path


CASME2_HEAD = ("Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None, "Action Units", "Estimated Emotion")
SAMM_HEAD = (
    *("Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration", "Micro"),
    *("Action Units", "Estimated Emotion", "Objective Classes", "Notes"),
)
SMIC_HEAD = (
    *("Subject", "Filename", None, "OnsetF", "OffsetF", "Onset2F", "Offset2F", "Onset3F", "Offset3F", None),
    *("FirstF", "LastF", "TotalMF1", "TotalMF2", "TotalMF3", "TotalVL", "Emotion"),
)
CASME3_HEAD = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")


def casme2_table(path: Path, *rows: tuple[str, str, object, object, object, str]) -> Path:
    """Rows of (subject, name, onset, apex, offset, emotion)."""
    full = [(s, n, None, on, apex, off, None, "12", emotion) for s, n, on, apex, off, emotion in rows]
    return write_sheet(path, "Sheet1", [CASME2_HEAD, *full])


def samm_table(path: Path, *rows: tuple[str, str, object, object, object, str]) -> Path:
    """Rows of (subject, name, onset, apex, offset, emotion), under the release's thirteen lines of explanation."""
    above = [("SAMM Dataset - Master FACS Codes",), *[("Symbol Key:",)] * 12]
    full = [(s, n, 1, on, apex, off, 71, "Micro - 1/2", "4+7", emotion, 3, None) for s, n, on, apex, off, emotion in rows]
    return write_sheet(path, "MICRO_ONLY", [*above, SAMM_HEAD, *full])


def smic_table(path: Path, *rows: tuple[int, str, tuple[int, ...], tuple[int, int], str]) -> Path:
    """Rows of (subject, name, frames: onset and offset of one to three expressions, first and last frame, emotion)."""
    full = []
    for subject, name, frames, (first, last), emotion in rows:
        filled = [*frames, *[None] * (6 - len(frames))]
        full.append((subject, name, None, *filled, None, first, last, None, None, None, None, emotion))
    return write_sheet(path, "HS", [SMIC_HEAD, *full])


def casme3_table(path: Path, *rows: tuple[str, str, object, object, object, str]) -> Path:
    """Rows of (subject, film, onset, apex, offset, emotion); the release writes its numbers as text."""
    full = [(s, film, str(on), str(apex), str(off), "4", "III", emotion) for s, film, on, apex, off, emotion in rows]
    return write_sheet(path, "label", [CASME3_HEAD, *full])


FILMS: tuple[tuple[str, str, Action, str], ...] = (
    ("spNO.1", "a", "smile", "happy"),
    ("spNO.1", "b", "brow_lower", "anger"),
    ("spNO.2", "a", "brow_raise", "surprise"),
)
"""Subject, film, action and emotion of `write_casme3`."""


def write_casme3(root: Path, films: Sequence[tuple[str, str, Action, str]] = FILMS) -> Path:
    """A small CAS(ME)^3: pictures of each film below root/part_A, the table in root; returns root."""
    rows = []
    for subject, film, action, emotion in films:
        taken = shot(action)
        write_shot(root / "part_A" / subject / film / "color", taken)
        rows.append((subject, film, taken.onset, taken.apex, taken.offset, emotion))
    casme3_table(root / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", *rows)
    return root


LONG: tuple[tuple[Action, str], ...] = (("smile", "positive"), ("brow_lower", "negative"))
"""Action and emotion of the only expression of each of two subjects' long videos."""

SAMM_LV_HEAD = (
    "Subject",
    "Filename",
    "Inducement Code",
    "Onset",
    "Apex",
    "Offset",
    "Duration",
    "Type",
    "Action Units",
    "Notes",
)
CASME3_LONG_HEAD = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Expression type", "Objective class")


def casme2_squared_table(path: Path, *rows: tuple[int, str, object, object, object, str, str]) -> Path:
    """Rows of (participant, clip, onset, apex, offset, emotion, type) without a header, and the release's sheets of names, for
    two participants and four films."""
    book = openpyxl.Workbook()
    page = book.active
    page.title = "CASFEcode_final"
    for participant, clip, onset, apex, offset, emotion, kind in rows:
        page.append([participant, clip, onset, apex, offset, "4+7", emotion, kind, "anger"])
    for title, names in (
        ("naming rule1", [(15, "s15", 1), (16, "s16", 2), (16, "s16", 2)]),
        ("naming rule2", [("0101", "disgust1"), ("0102", "disgust2"), ("0401", "anger1"), ("0502", "happy1")]),
    ):
        sheet = book.create_sheet(title)
        for name in names:
            sheet.append(list(name))
    book.save(path)
    return path


def samm_lv_table(path: Path, *rows: tuple[str, str, object, object, object, str]) -> Path:
    """Rows of (subject, name, onset, apex, offset, type), under the release's nine lines of explanation."""
    above = [("SAMM Long Videos Dataset - FACS Codes",), *[("Symbol Key:",)] * 8]
    full = [(s, n, 1, on, apex, off, 71, kind, "4+7", None) for s, n, on, apex, off, kind in rows]
    return write_sheet(path, "FACS_Movement_Only", [*above, SAMM_LV_HEAD, *full])


def casme3_long_table(path: Path, *rows: tuple[str, str, object, object, object, str]) -> Path:
    """Rows of (subject, film, onset, apex, offset, type); the release writes its numbers as text."""
    full = [(s, film, str(on), str(apex), str(off), "4", kind, "III") for s, film, on, apex, off, kind in rows]
    return write_sheet(path, "AU+Emotion", [CASME3_LONG_HEAD, *full])


def write_casme2_squared(root: Path) -> Path:
    """A small CAS(ME)^2: a whole video of each subject below root/rawpic, the table in root; returns root."""
    rows: list[tuple[int, str, object, object, object, str, str]] = []
    for participant, (action, emotion) in enumerate(LONG, start=1):
        taken = shot(action)
        folder = root / "rawpic" / f"s{14 + participant}" / f"{14 + participant}_0101disgustingteeth"
        write_shot(folder, taken, "img{}.jpg", range(FIRST, FIRST + taken.scene.truth.frames))
        rows.append((participant, "disgust1_1", taken.onset, taken.apex, taken.offset, emotion, "micro-expression"))
    casme2_squared_table(root / "CAS(ME)^2code_final.xlsx", *rows)
    return root


def write_region_flow(root: Path, name: str, videos: dict[str, F32], rows: Iterable[Sequence[object]]) -> Path:
    """Published region flow: motion [frames, 12, 2] by the videos' written names, padded as there, and rows of (video, type,
    onset, apex, offset); returns root."""
    padded = {key: np.pad(motion, ((0, -len(motion) % 256), (0, 0), (0, 0))) for key, motion in videos.items()}
    stored: dict[str, Any] = {key: motion.astype(np.float16) for key, motion in padded.items()}
    np.savez_compressed(root / f"{name}.npz", **stored)
    lines = [("video", "type", "onset", "apex", "offset"), *rows]
    (root / f"{name}.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return root
