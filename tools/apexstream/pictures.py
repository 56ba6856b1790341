"""Pictures of events: a face at onset, apex and offset, cut out of the video and written as one JPEG an event.

An analysis keeps no frames. It is followed by a `FaceTrail`, which notes where each face was; afterwards the video is read
once more and the frames that are wanted are cut around the face, so that no more than these ever lie in memory.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from engine.errors import InputError, OutputError, SourceError
from engine.faces.boxes import Box, face_box
from engine.mesh.view import cut_window
from engine.types import U8, Event, Face, Frame, Mark, Observation
from stream.recorded.colours import colour_of
from stream.recorded.output import Output

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

CHANGE_GAIN = 4.0
"""How much the change from onset to apex is enlarged: it is too small to be seen as it is."""

PANEL_PX = 240
_MARGIN = 1.45  # side of a picture in widths of the face
_STILL = 0.15  # a head that moves less than this share of its width is shown from one place
_BREAK_S = 0.5
_GAP_PX, _HEAD_PX, _FOOT_PX = 4, 34, 26
_INK, _PAPER = (34, 34, 34), (255, 255, 255)


def check_drawing(video: Path | None = None) -> None:
    """Raises where pictures cannot be made: OutputError without matplotlib, InputError for a video that is no plain file."""
    try:
        for name in ("matplotlib", "PIL"):
            import_module(name)
    except ImportError as error:
        raise OutputError(f"pictures need matplotlib ({error}): install apexstream again") from error
    if video is not None and video.exists() and not video.is_file():
        raise InputError(f"{video} can be read only once, so no pictures can be cut from it; leave out --pictures")


class FaceTrail(Output):
    """Where each face was in each frame. `note` takes frames in order, with the faces found in them."""

    def __init__(self) -> None:
        self._frames: dict[int, array[int]] = defaultdict(lambda: array("q"))
        self._places: dict[int, array[float]] = defaultdict(lambda: array("d"))  # t, x, y, width of each frame

    def note(self, frame: Frame, faces: Sequence[Face]) -> None:
        """Keep where the faces are in this frame."""
        for face in faces:
            self._frames[face.id].append(frame.index)
            self._places[face.id].extend((frame.t, *face_box(face.points)))

    def frame(self, frame: Frame, faces: Sequence[Face], observations: Sequence[Observation], origin: float) -> None:
        """The same, as an output of `stream.recorded.analyze`."""
        self.note(frame, faces)

    @property
    def faces(self) -> list[int]:
        """Ids of all faces seen."""
        return sorted(self._frames)

    def box(self, face: int | None, index: int) -> Box | None:
        """The face's box in frame pixels at this frame, or at the nearest one where it was seen; None for a face never seen."""
        frames = self._frames.get(-1 if face is None else face)
        if not frames or face is None:
            return None
        after = bisect_left(frames, index)
        nearest = min((k for k in (after - 1, after) if 0 <= k < len(frames)), key=lambda k: abs(frames[k] - index))
        _, x, y, width = self._places[face][4 * nearest : 4 * nearest + 4]
        return x, y, width

    def spells(self, face: int) -> list[tuple[float, float]]:
        """From when to when (seconds) the face was seen; breaks of up to half a second do not count."""
        spells: list[tuple[float, float]] = []
        for t in self._places[face][::4]:
            if spells and t - spells[-1][1] <= _BREAK_S:
                spells[-1] = (spells[-1][0], t)
            else:
                spells.append((t, t))
        return spells


@dataclass(frozen=True)
class Strip:
    """What one event's picture shows: its moments side by side under a title; with change, also what changes to the apex.

    face None stands for no known face: the middle of the frame is shown.
    """

    title: str
    label: str
    face: int | None
    onset: Mark
    apex: Mark
    offset: Mark | None = None
    change: bool = False

    @property
    def moments(self) -> list[tuple[str, Mark]]:
        """Names and marks of the panels, left to right."""
        named = [("onset", self.onset), ("apex", self.apex), ("offset", self.offset)]
        return [(name, mark) for name, mark in named if mark is not None]

    @classmethod
    def of(cls, event: Event, number: int) -> Strip:
        """The picture of a recognized event."""
        named = f"{event.label} ({event.why})" if event.why else f"{event.label} {event.confidence:.2f}"
        parts = [f"{number}", named, event.kind or "open", f"face {event.face}"]
        if event.offset is not None:
            parts.append(f"{event.offset.t - event.onset.t:.2f} s long")
        title = " · ".join([*parts, "cut short"] if event.truncated else parts)
        return cls(title, event.label, event.face, event.onset, event.apex, event.offset)


@dataclass
class _Open:
    """A strip whose frames are still being gathered; panels [PANEL_PX, PANEL_PX, 3] RGB by frame index."""

    number: int
    strip: Strip
    panels: dict[int, U8] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return all(mark.frame in self.panels for _, mark in self.strip.moments)


def write_strips(video: Path, folder: Path, strips: Sequence[Strip], trail: FaceTrail) -> list[U8]:
    """Write event-01.jpg, event-02.jpg ... into folder, in place of any that lie there; the video is read once.

    Returns the faces at the apex, [PANEL_PX, PANEL_PX, 3] RGB each. Raises SourceError when a frame cannot be read again,
    OutputError when a picture cannot be written.
    """
    _clear(folder)
    opened = [_Open(number, strip) for number, strip in enumerate(strips, start=1)]
    wanted: dict[int, list[_Open]] = defaultdict(list)
    for one in opened:
        for index in {mark.frame for _, mark in one.strip.moments}:
            wanted[index].append(one)
    apexes: dict[int, U8] = {}
    for frame in _frames(video, set(wanted)):
        for one in wanted[frame.index]:
            one.panels[frame.index] = _panel(frame, one.strip, trail)
            if one.whole:
                _save(draw_strip(one.strip, [one.panels[m.frame] for _, m in one.strip.moments]), folder, one.number)
                apexes[one.number] = one.panels[one.strip.apex.frame]
                one.panels = {}
    if len(apexes) < len(opened):
        raise SourceError(f"{video}: {len(opened) - len(apexes)} pictures are missing, their frames could not be read again")
    return [apexes[one.number] for one in opened]


def draw_strip(strip: Strip, panels: Sequence[U8]) -> Image.Image:
    """The picture of one event from its panels [PANEL_PX, PANEL_PX, 3] RGB, one a moment."""
    from PIL import Image, ImageDraw

    captions = [f"{name}  {mark.t:.2f} s" for name, mark in strip.moments]
    shown = list(panels)
    if strip.change:
        captions.append(f"change to apex × {CHANGE_GAIN:.0f}")
        shown.append(change_between(shown[0], shown[1]))
    step = PANEL_PX + _GAP_PX
    picture = Image.new("RGB", (step * len(shown) - _GAP_PX, _HEAD_PX + PANEL_PX + _FOOT_PX), _PAPER)
    pen, bold, plain = ImageDraw.Draw(picture), _font(15, bold=True), _font(13)
    pen.rectangle((0, 0, 9, _HEAD_PX - 5), fill=colour_of(strip.label))
    pen.text((18, _HEAD_PX // 2 - 2), _fitted(strip.title, bold, picture.width - 22, pen), _INK, bold, anchor="lm")
    for number, (panel, caption) in enumerate(zip(shown, captions, strict=True)):
        picture.paste(Image.fromarray(panel), (number * step, _HEAD_PX))
        middle = number * step + PANEL_PX // 2, _HEAD_PX + PANEL_PX + _FOOT_PX // 2
        pen.text(middle, caption, _INK, plain, anchor="mm")
    return picture


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: int, pen: ImageDraw.ImageDraw) -> str:
    while pen.textlength(text, font) > width:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that matplotlib carries."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _clear(folder: Path) -> None:
    for old in folder.glob("event-[0-9]*.jpg"):
        try:
            old.unlink()
        except OSError as error:
            raise OutputError(
                f"{old}, of an earlier run, cannot be removed: {error.strerror}; choose another folder"
            ) from error


def _frames(video: Path, indices: set[int]) -> Iterator[Frame]:
    """The frames with these indices; nothing is read after the last of them."""
    from stream.sources.file import open_video

    last = max(indices, default=-1)
    if last < 0:
        return
    with open_video(video) as source:
        for frame in source:
            if frame.index in indices:
                yield frame
            if frame.index >= last:
                return


def _panel(frame: Frame, strip: Strip, trail: FaceTrail) -> U8:
    """[PANEL_PX, PANEL_PX, 3] RGB around the face, as large as it is at the apex, as far as the frame reaches."""
    side = min(frame.height, frame.width)
    x, y = frame.width / 2, frame.height / 2
    apex, here = trail.box(strip.face, strip.apex.frame), trail.box(strip.face, frame.index)
    if apex is not None and here is not None:
        side = min(side, max(8, round(_MARGIN * apex[2])))
        moved = float(np.hypot(here[0] - apex[0], here[1] - apex[1]))
        x, y = apex[:2] if moved < _STILL * apex[2] else here[:2]
    left = min(max(round(x - side / 2), 0), frame.width - side)
    top = min(max(round(y - side / 2), 0), frame.height - side)
    how = cv2.INTER_AREA if side > PANEL_PX else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut_window(frame.rgb, left, top, side), (PANEL_PX, PANEL_PX), interpolation=how), np.uint8)


def change_between(onset: U8, apex: U8) -> U8:
    """[H, W, 3] grey where nothing changes, brighter or darker by CHANGE_GAIN times the change; the head's motion taken out.

    The motion is the rigid one that makes the two most alike (enhanced correlation coefficient, Evangelidis and Psarakis
    2008); where there is none to be found, the pictures are compared as they are.
    """
    high, wide = apex.shape[:2]
    head = np.zeros((high, wide), np.uint8)
    cv2.ellipse(head, (wide // 2, high // 2), (wide // 3, round(0.42 * high)), 0, 0, 360, (255,), -1)
    move = np.eye(2, 3, dtype=np.float32)
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (apex, onset)]
    ends = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    try:
        _, found = cv2.findTransformECC(greys[0], greys[1], move, cv2.MOTION_EUCLIDEAN, ends, head, 5)
    except cv2.error:
        found = move
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    still = cv2.warpAffine(onset, found, (wide, high), flags=how, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(128 + CHANGE_GAIN * (apex.astype(np.float32) - still), 0, 255), np.uint8)


def _save(picture: Image.Image, folder: Path, number: int) -> None:
    path = folder / f"event-{number:02d}.jpg"
    try:
        picture.save(path, quality=90)
    except OSError as error:
        raise OutputError(f"the picture {path} cannot be written: {error.strerror or error}; choose another folder") from error
