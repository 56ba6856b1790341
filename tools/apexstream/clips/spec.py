"""What to render (ClipSpec and its presets) and what is true of the result (Truth)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from engine.errors import InputError, OutputError
from engine.types import Kind

Renderer = Literal["warp-a", "warp-b"]
Label = Literal["negative", "positive", "surprise"]
Action = Literal["brow_raise", "brow_lower", "smile", "nose_wrinkle", "lip_depress"]

LABEL_OF: dict[Action, Label] = {
    "brow_raise": "surprise",
    "brow_lower": "negative",
    "smile": "positive",
    "nose_wrinkle": "negative",
    "lip_depress": "negative",
}
"""Class of each facial action: AU1+2, AU4, AU6+12, AU9+10, AU15+17."""

PHOTOS = tuple(f"{base}{suffix}" for base in ("hopper", "astronaut") for suffix in ("", "-1", "-2", "-3", "-4"))
"""Every face that can be rendered: two photographs and faces reshaped from them."""

CROP_EYE_PX = 70.5
"""Distance of the eye centres in the registered 128 px crop; amplitudes are given in pixels of that crop."""

MAX_PX = 6.0
"""The largest amplitude at which every warp of every face still is one to one (no fold)."""

MAX_INTO_PX = 12.0
"""The same for the wider windows of expressions that are put into a video."""

WITHOUT_DISTURBANCE: dict[str, Any] = dict.fromkeys(
    ("blinks_per_minute", "sway_px", "roll_deg", "zoom", "yaw_deg", "pitch_deg", "noise_sigma"), 0.0
)
"""Settings of a clip without blinks, head motion and noise."""

INTO_ACTIONS: tuple[Action, ...] = ("brow_raise", "brow_lower", "smile", "lip_depress")
"""Actions that can be put into a video."""


@dataclass(frozen=True)
class ClipSpec:
    """A clip, complete: equal specs render equal frames.

    Lengths called px are pixels of the frame except micro_px and macro_px, the ranges of an event's peak displacement in
    pixels of the 128 px crop. n_events, where given, replaces events_per_minute. crf is H.264's constant rate factor (None:
    lossless). vfr > 0 makes the frame intervals vary by that relative spread. Motion settings are peak values of smooth
    random functions of time (0.05 to 0.5 Hz); drift and flicker are relative changes of brightness, light_tilt of the light
    from edge to edge of the frame. A nod is a quick motion of the head and back.
    """

    photo: str = "hopper"
    fps: float = 30.0
    duration_s: float = 20.0
    seed: int = 0
    size: tuple[int, int] = (640, 360)
    eye_px: float = 90.0
    n_events: int | None = None
    events_per_minute: float = 20.0
    actions: tuple[Action, ...] = tuple(LABEL_OF)
    micro_px: tuple[float, float] = (1.0, 3.0)
    macro_px: tuple[float, float] = (1.5, 5.0)
    macro_fraction: float = 0.3
    blinks_per_minute: float = 15.0
    sway_px: float = 6.0
    roll_deg: float = 2.0
    zoom: float = 0.02
    yaw_deg: float = 2.5
    pitch_deg: float = 2.0
    noise_sigma: float = 2.0
    flicker: float = 0.0
    flicker_hz: float = 10.0
    drift: float = 0.0
    light_tilt: float = 0.0
    nods_per_minute: float = 0.0
    crf: int | None = 23
    vfr: float = 0.0
    renderer: Renderer = "warp-a"

    def __post_init__(self) -> None:
        if self.photo not in PHOTOS:
            raise InputError(f"there is no face called {self.photo!r}; choose one of {', '.join(PHOTOS)}")
        _check_events(self, "actions", tuple(LABEL_OF), MAX_PX)
        if self.renderer not in ("warp-a", "warp-b"):
            raise InputError(f"the renderer is warp-a or warp-b, not {self.renderer!r}")
        if not 1 <= self.fps <= 1000 or not 0 < self.duration_s <= 24 * 3600:
            raise InputError(f"a clip has 1 to 1000 frames/s and lasts up to a day, not {self.fps} and {self.duration_s} s")
        if min(self.size) < 16 or any(n % 2 for n in self.size):
            raise InputError(f"width and height must be even and at least 16 pixels, not {self.size[0]}x{self.size[1]}")
        if not 0 <= self.macro_fraction <= 1 or not 0 <= self.vfr <= 0.5:
            raise InputError(f"macro_fraction lies in 0..1 and vfr in 0..0.5, not {self.macro_fraction} and {self.vfr}")
        for name, value in vars(self).items():
            if name != "seed" and isinstance(value, int | float) and (value < 0 or (name == "eye_px" and value == 0)):
                raise InputError(f"{name} cannot be {value}; it is a size and must not be negative")


@dataclass(frozen=True)
class IntoSpec:
    """Expressions to put into a video of a person; equal specs give equal clips.

    Speech does not move the brows, so the default actions have a defined truth in a talking face too. micro_px and macro_px
    are ranges of an event's peak displacement in pixels of the 128 px crop; one is a hundredth of the distance between the
    outer eye corners. n_events, where given, replaces events_per_minute. seconds limits how much of the video is used.
    """

    video: str
    seed: int = 0
    seconds: float | None = None
    n_events: int | None = None
    events_per_minute: float = 16.0
    actions: tuple[Action, ...] = ("brow_raise", "brow_lower")
    micro_px: tuple[float, float] = (3.5, 5.5)
    macro_px: tuple[float, float] = (7.0, 10.0)
    macro_fraction: float = 0.3
    crf: int | None = 20

    def __post_init__(self) -> None:
        _check_events(self, "actions put into a video", INTO_ACTIONS, MAX_INTO_PX)
        if not 0 <= self.macro_fraction <= 1 or self.events_per_minute < 0 or (self.n_events or 0) < 0:
            raise InputError("macro_fraction lies in 0..1, and the number and rate of events must not be negative")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"seconds must be above 0, not {self.seconds}")


def _check_events(spec: ClipSpec | IntoSpec, what: str, actions: tuple[Action, ...], most_px: float) -> None:
    unknown = set(spec.actions) - set(actions)
    if unknown or not spec.actions:
        raise InputError(f"{what} must be some of {', '.join(actions)}, not {', '.join(sorted(unknown)) or 'none'}")
    for low, high in (spec.micro_px, spec.macro_px):
        if not 0 < low <= high <= most_px:
            raise InputError(f"an amplitude range goes up, from above 0 to at most {most_px:g} px, not {low} to {high}")
    if spec.crf is not None and not 0 <= spec.crf <= 51:
        raise InputError(f"crf lies in 0..51 or is left out for lossless, not {spec.crf}")


@dataclass(frozen=True)
class EventTruth:
    """One rendered expression. Times in seconds, frames counted from 0 (the frame nearest to the time).

    onset is the first instant the displacement leaves zero, apex its single maximum, offset its return to zero; amplitude
    the peak displacement in pixels of the 128 px crop.
    """

    label: Label
    action: Action
    kind: Kind
    amplitude: float
    onset_t: float
    apex_t: float
    offset_t: float
    onset_frame: int = 0
    apex_frame: int = 0
    offset_frame: int = 0


@dataclass(frozen=True)
class BlinkTruth:
    """One blink: lids begin to close, are closed furthest, are open again (seconds)."""

    start_t: float
    closed_t: float
    end_t: float


@dataclass(frozen=True)
class Truth:
    """What is true of a clip.

    into is given where the events were put into a video. Then spec holds the rate, length, size and eye distance of that
    video, and blinks is empty: the person's own are not known.
    """

    spec: ClipSpec
    frames: int
    events: tuple[EventTruth, ...]
    blinks: tuple[BlinkTruth, ...]
    into: IntoSpec | None = None

    def write(self, path: Path) -> None:
        """Write it as JSON whose keys are the field names; raises OutputError where the file cannot be written."""
        try:
            path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        except OSError as e:
            raise OutputError(f"the truth cannot be written to {path}: {e.strerror}; choose another place") from e


def read_truth(path: Path) -> Truth:
    """Read what Truth.write wrote; raises InputError for anything else."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        events = tuple(EventTruth(**e) for e in raw["events"])
        blinks = tuple(BlinkTruth(**b) for b in raw["blinks"])
        into = raw.get("into")
        put = None if into is None else IntoSpec(**_with_tuples(into))
        return Truth(ClipSpec(**_with_tuples(raw["spec"])), int(raw["frames"]), events, blinks, put)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(f"{path} is not the truth of a rendered clip ({e}); render the clip again") from e


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def truth_path(clip: Path) -> Path:
    """Where the truth of a clip lies: clip.mp4 -> clip.truth.json."""
    return clip.with_suffix(".truth.json")


PRESETS: dict[str, dict[str, Any]] = {
    "benchmark": {},
    "still_noisy": {"n_events": 0},
    "harder": {
        "nods_per_minute": 4.0,
        "yaw_deg": 4.0,
        "pitch_deg": 3.0,
        "light_tilt": 0.06,
        "noise_sigma": 4.0,
        "crf": 28,
        "vfr": 0.15,
    },
    "clean": {**WITHOUT_DISTURBANCE, "crf": None},
}
"""What distinguishes each preset from the benchmark: no expression; what a bad camera and a lively person add (nods, more
turning, wandering light, more noise, stronger compression, a varying frame rate); expressions and nothing else."""


def preset(
    name: str, photo: str = "hopper", fps: float = 30.0, seed: int = 0, duration_s: float = 30.0, **changes: Any
) -> ClipSpec:
    """The spec of a named preset with some fields changed; raises InputError for a name or field that does not exist.

    The benchmark has events of every class, blinks, head motion, noise, flicker, drift and compression. In all presets but
    clean, the seed also chooses the renderer (warp-a for even seeds, warp-b for odd ones) and the strength of what disturbs.
    """
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    known = {f.name for f in fields(ClipSpec)}
    if set(changes) - known:
        raise InputError(f"a clip has no setting {', '.join(sorted(set(changes) - known))}")
    by_seed: dict[str, Any] = {
        "renderer": "warp-b" if seed % 2 else "warp-a",
        "sway_px": (5.0, 8.0, 11.0)[seed % 3],
        "noise_sigma": (2.0, 3.0, 1.5)[seed % 3],
        "flicker": (0.0, 0.01, 0.005)[seed % 3],
        "flicker_hz": (10.0, 7.3, 1.7)[seed % 3],
        "drift": (0.03, 0.0, 0.06)[seed % 3],
        "crf": (23, 20, 26)[seed % 3],
    }
    settings = {**({} if name == "clean" else by_seed), **PRESETS[name], **changes}
    return ClipSpec(photo=photo, fps=fps, duration_s=duration_s, seed=seed, **settings)
