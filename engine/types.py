"""The values that travel along the way: frame -> face -> crop -> span -> event, and activity.

All are frozen. Times are seconds of the source's own clock, points are (x, y) in pixels with the centre of the top left pixel
at (0, 0), pictures are [H, W] (grey) or [H, W, 3] (RGB) uint8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from engine.errors import ArrayError

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

Layout = Literal["grey", "rgb", "i420"]
State = Literal["provisional", "final"]
Kind = Literal["micro", "macro"]

ActivityKind = Literal["speech", "blink", "eyes_closed", "gaze", "head_turn", "covered", "motion"]

ACTIVITY_KINDS: tuple[ActivityKind, ...] = get_args(ActivityKind)
"""What a face does besides expressions; see `engine.activity.watch`."""

MICRO_LIMIT_S = 0.5
"""The longest micro-expression, onset to offset, in seconds (the field's usual border)."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded picture with its place in the source.

    pixels is [H, W] for layout "grey", [H, W, 3] for "rgb", [H * 3 / 2, W] for "i420" (planar YUV 4:2:0, H and W even; the
    first H rows are the luma). index counts decoded frames from 0; t is the source's time in seconds. gap says that the
    source lost pictures or jumped in time just before this frame; doubtful that pictures were lost since the last key picture,
    so that errors show up to the next one: what jumps did not move. voice is the share of the moments around it in which a
    voice sounds, 0 to 1, None where nothing is known of the sound.
    """

    index: int
    t: float
    pixels: U8
    layout: Layout = "rgb"
    gap: bool = False
    voice: float | None = None
    doubtful: bool = False

    def __post_init__(self) -> None:
        shape, layout = self.pixels.shape, self.layout
        fits = {
            "grey": len(shape) == 2,
            "rgb": len(shape) == 3 and shape[-1] == 3,
            "i420": len(shape) == 2 and shape[0] % 3 == 0 and shape[1] % 2 == 0,
        }
        if layout not in fits:
            raise ArrayError(f"a frame's layout is grey, rgb or i420, not {layout!r}")
        if self.pixels.dtype != np.uint8 or not fits[layout] or not self.pixels.size:
            kind = self.pixels.dtype
            raise ArrayError(f"a {layout} frame of shape {shape} and type {kind} cannot be used; uint8 is expected")
        if not np.isfinite(self.t):
            raise ArrayError(f"frame {self.index} has no usable time (t = {self.t})")

    @property
    def height(self) -> int:
        """Rows of the picture."""
        rows = int(self.pixels.shape[0])
        return rows * 2 // 3 if self.layout == "i420" else rows

    @property
    def width(self) -> int:
        """Columns of the picture."""
        return int(self.pixels.shape[1])

    @cached_property
    def grey(self) -> U8:
        """[H, W] luma; a view where the layout carries it already."""
        if self.layout == "rgb":
            import cv2

            return np.asarray(cv2.cvtColor(self.pixels, cv2.COLOR_RGB2GRAY), np.uint8)
        return self.pixels[: self.height]

    @cached_property
    def rgb(self) -> U8:
        """[H, W, 3] red, green, blue."""
        if self.layout == "rgb":
            return self.pixels
        import cv2

        code = cv2.COLOR_YUV2RGB_I420 if self.layout == "i420" else cv2.COLOR_GRAY2RGB
        return np.asarray(cv2.cvtColor(self.pixels, code), np.uint8)


@dataclass(frozen=True, eq=False)
class Face:
    """One face in one frame: id stable through short losses, points [478, 3] float32 of MediaPipe's face mesh, (x, y) in
    frame pixels and z in the same unit (smaller is nearer), t the source time at which the mesh saw them; blendshapes, 0 to 1,
    by the names of `engine.mesh.BLENDSHAPE_NAMES`, and presence, how sure the mesh network was that this is a face (log odds;
    inf where it does not say), seen then too. repeated says that the frame shows the same picture of the face as the one
    before; apart that it shows another moment, not the next one: the picture stood still and jumped, or lost
    pictures were made up for."""

    id: int
    points: F32
    t: float
    blendshapes: Mapping[str, float] = field(default_factory=dict)
    repeated: bool = False
    apart: bool = False
    presence: float = math.inf


@dataclass(frozen=True)
class Mark:
    """A moment of the source."""

    frame: int
    t: float

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of the moment."""
        return {"frame": self.frame, "t": round(self.t, 6)}


@dataclass(frozen=True, eq=False)
class Crop:
    """One face in one frame, the head's motion taken out.

    pixels [128, 128] grey; transform [2, 3] takes frame pixels to crop pixels; landmarks [478, 3] are the mesh in crop
    pixels, z too; motion [R, 2] is how far each region of `engine.registration.regions.REGIONS` stands from where it stood on
    the reference picture, in crop pixels (u right, v down); eye_opening is height over width of the eyes; turn [4] is how the
    head is turned against the reference: yaw and pitch of `engine.registration.align.Head` in units of a twentieth, and what
    the fit leaves of the motion of the bridge of the nose, in crop pixels; residual is the median disagreement of the head's
    patches in crop pixels; anchor counts the reference pictures taken so far, over which motions and turns go on. landmarks,
    eye_opening, blendshapes (by name, 0 to 1) and presence are what the mesh saw last, mesh_age seconds before this frame.
    repeated says that the frame shows the same picture of the face as the one before, so that nothing about motion or noise
    can be learned from the two. found [R] is the share of each region's patches that were found by their texture; where it
    stays low something lies over the region (a hand, text burnt into the picture) or it looks unlike the reference, and its
    motion is the mesh's, half a pixel unsure.
    """

    face: int
    mark: Mark
    pixels: U8
    transform: F64
    landmarks: F32
    motion: F32
    eye_opening: float
    turn: F32
    residual: float
    anchor: int
    blendshapes: Mapping[str, float] = field(default_factory=dict)
    mesh_age: float = 0.0
    repeated: bool = False
    found: F32 = field(default_factory=lambda: np.ones(0, np.float32))
    presence: float = math.inf


@dataclass(frozen=True, eq=False)
class Observation:
    """What is known of one face in one frame, expression or not.

    box is the rectangle around the face's mesh: x and y of its top left corner, width, height, in frame pixels. crop is None
    where the face was found but could not be registered. loudness is how loud the face was (1 is the spotter's threshold) and
    moved_px the largest regional motion in crop pixels, both at the source time measured_t: some frames ago, as smoothing needs
    frames on both sides; None where nothing was measured since the last break. doing holds the open activities and the source
    time, seconds, at which each started.
    """

    face: int
    mark: Mark
    box: tuple[float, float, float, float]
    crop: Crop | None
    loudness: float
    moved_px: float
    doing: Mapping[ActivityKind, float]
    measured_t: float | None = None


@dataclass(frozen=True)
class Span:
    """What the spotter found on one face; ordinal counts the face's spans from 0 and ties a provisional span to its final one.

    offset and kind are None while the span is provisional. A truncated span was cut short by the end of the source, a gap or
    the loss of the face, or held longer than is followed; its offset is the last frame seen. probability is that of being an
    expression at all, where a judge was asked.
    """

    face: int
    ordinal: int
    state: State
    onset: Mark
    apex: Mark
    offset: Mark | None = None
    truncated: bool = False
    probability: float | None = None

    @property
    def kind(self) -> Kind | None:
        """micro up to half a second from onset to offset, else macro; None while open."""
        if self.offset is None:
            return None
        return "micro" if self.offset.t - self.onset.t <= MICRO_LIMIT_S + 1e-6 else "macro"


@dataclass(frozen=True)
class Activity:
    """What a face did from one moment to another. A motion is one that stood out and was judged to be no expression, with the
    probability that it is one all the same."""

    face: int
    kind: ActivityKind
    start: Mark
    end: Mark
    expression_probability: float | None = None

    def as_dict(self, stream: str) -> dict[str, Any]:
        """The activity's JSON form, version 1 (names and order are part of the format)."""
        out: dict[str, Any] = {
            "type": "activity",
            "v": 1,
            "stream": stream,
            "face": self.face,
            "kind": self.kind,
            "start": self.start.as_dict(),
            "end": self.end.as_dict(),
        }
        if self.expression_probability is not None:
            out["expression_probability"] = round(self.expression_probability, 4)
        return out


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an event was recognized from: the registered face at onset and apex, [128, 128] grey, and its own flow
    [2, 128, 128] of (u, v) from one to the other, in pixels of the crop."""

    onset: U8
    apex: U8
    flow: F32


@dataclass(frozen=True)
class Event:
    """A recognized expression, ready to be written or sent; why says in a few words why the label is "uncertain", if it is;
    speaking says that the face spoke for a third of it or more; expression_probability how likely it is one at all. evidence
    is no part of the JSON form; it takes 160 kB, so what keeps many events keeps them without."""

    id: str
    stream: str
    face: int
    state: State
    kind: Kind | None
    onset: Mark
    apex: Mark
    offset: Mark | None
    label: str
    probabilities: dict[str, float] = field(hash=False)
    confidence: float
    intensity: float
    model: str
    truncated: bool = False
    why: str | None = None
    speaking: bool = False
    expression_probability: float | None = None
    evidence: Evidence | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Event:
        """The event of a JSON form (`as_dict`); other fields are ignored."""

        def mark(m: Mapping[str, Any]) -> Mark:
            return Mark(m["frame"], m["t"])

        names = ("id", "stream", "face", "state", "kind", "label", "probabilities", "confidence", "intensity", "model")
        return cls(
            **{name: fields[name] for name in names},
            onset=mark(fields["onset"]),
            apex=mark(fields["apex"]),
            offset=None if fields["offset"] is None else mark(fields["offset"]),
            truncated=fields.get("truncated", False),
            why=fields.get("why"),
            speaking=fields.get("speaking", False),
            expression_probability=fields.get("expression_probability"),
        )

    def as_dict(self) -> dict[str, Any]:
        """The event's JSON form, version 1 (names and order are part of the format)."""
        out: dict[str, Any] = {
            "type": "expression",
            "v": 1,
            "id": self.id,
            "stream": self.stream,
            "face": self.face,
            "state": self.state,
            "kind": self.kind,
            "onset": self.onset.as_dict(),
            "apex": self.apex.as_dict(),
            "offset": self.offset and self.offset.as_dict(),
            "label": self.label,
            "probabilities": {k: round(v, 4) for k, v in self.probabilities.items()},
            "confidence": round(self.confidence, 4),
            "intensity": round(self.intensity, 3),
            "model": self.model,
            "speaking": self.speaking,
        }
        if self.expression_probability is not None:
            out["expression_probability"] = round(self.expression_probability, 4)
        if self.truncated:
            out["truncated"] = True
        if self.why is not None:
            out["why"] = self.why
        return out
