"""Made motions of a face and the spans a spotter finds in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from engine.registration.regions import REGION_NAMES
from engine.spotting.spotter import Spotter
from engine.types import F64, Crop, Mark, Span

TOLERANCE_S = 0.06
Lids = Callable[[float], float]


def pattern(**regions: tuple[float, float]) -> F64:
    """[R, 2] of which regions move, and where to."""
    motion = np.zeros((len(REGION_NAMES), 2))
    for name, step in regions.items():
        motion[REGION_NAMES.index(name)] = step
    return motion


BROWS_UP = pattern(
    brow_outer_left=(0, -0.8),
    brow_inner_left=(0, -1),
    glabella=(0, -0.4),
    brow_inner_right=(0, -1),
    brow_outer_right=(0, -0.8),
    forehead=(0, -0.3),
)


SMILE = pattern(
    lip_corner_left=(-0.8, -0.6),
    lip_corner_right=(0.8, -0.6),
    cheek_left=(-0.1, -0.5),
    cheek_right=(0.1, -0.5),
    upper_lip=(0, -0.2),
    nose_left=(-0.1, -0.2),
    nose_right=(0.1, -0.2),
)


WHOLE_HEAD = np.ones((len(REGION_NAMES), 2))


@dataclass(frozen=True)
class Pulse:
    """One motion: raised cosines up and down; offset is far away where it never comes down."""

    onset: float
    apex: float
    offset: float
    px: float = 2.0
    where: F64 = None  # type: ignore[assignment]

    def at(self, t: F64) -> F64:
        """[N, R, 2] displacement at times t."""
        rise, fall = (t - self.onset) / (self.apex - self.onset), (self.offset - t) / (self.offset - self.apex)
        height = (1 - np.cos(np.pi * np.clip(np.where(t < self.apex, rise, fall), 0, 1))) / 2
        where = BROWS_UP if self.where is None else self.where
        return np.asarray(self.px * height[:, None, None] * where)


def sequence(
    crop: Crop, t: F64, pulses: Iterable[Pulse] = (), *, noise: float | F64 = 0.02, seed: int = 0, lids: Lids | None = None
) -> list[Crop]:
    """Crops at times t: the pulses' motion and white noise (pixels, one number or one a crop) in every region."""
    motion = np.random.default_rng(seed).normal(0, 1, (len(t), *WHOLE_HEAD.shape)) * np.reshape(noise, (-1, 1, 1))
    for pulse in pulses:
        motion = motion + pulse.at(t)
    return [
        replace(
            crop,
            mark=Mark(k, float(t[k])),
            motion=motion[k].astype(np.float32),
            turn=np.zeros_like(crop.turn),
            eye_opening=lids(float(t[k])) if lids else 0.3,
        )
        for k in range(len(t))
    ]


def spot(crops: Iterable[Crop], one: Spotter | None = None) -> list[Span]:
    """All spans, the end of the source included."""
    spotter = one or Spotter()
    return [span for crop in crops for span in spotter.observe(crop)] + spotter.finish()


def finals(spans: Iterable[Span]) -> list[Span]:
    return [span for span in spans if span.state == "final"]


def agree(span: Span, pulse: Pulse) -> None:
    """Each moment within 60 ms; on a slow flank within a fifth of it, where a raised cosine is under a tenth of its height."""
    assert span.offset is not None
    rise, fall = pulse.apex - pulse.onset, pulse.offset - pulse.apex
    for name, flank in (("onset", rise), ("apex", 0.0), ("offset", fall)):
        seen, true = getattr(span, name).t, getattr(pulse, name)
        assert abs(seen - true) <= max(TOLERANCE_S, 0.2 * flank), f"{name} at {seen:.3f} s instead of {true} s"


def steady(fps: float, seconds: float) -> F64:
    return np.arange(round(seconds * fps)) / fps


def lids_of(closed: float, fall: float = 0.08, rise: float = 0.17) -> Lids:
    """Eyes open to 0.3 but for one blink whose lids are down at `closed`."""

    def opening(t: float) -> float:
        down = 1 - (closed - t) / fall if t < closed else 1 - (t - closed) / rise
        return 0.3 * (1 - 0.8 * min(max(down, 0.0), 1.0))

    return opening
