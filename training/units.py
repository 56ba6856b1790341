"""Action units as the displacement of skin, and which of them show an emotion: the tables behind `training.simulate`.

FACS (Ekman, Friesen and Hager, "Facial Action Coding System", 2002) describes any facial movement as a sum of action units,
each the work of one muscle or a few. EMFACS keeps those related to emotion; its prototypes, and what is known of
micro-expressions (Yan et al., "CASME II", PLoS ONE 2014; Davison et al., "Objective classes for micro-facial expression
recognition", Journal of Imaging 2018), say which units go together. Here a unit is one to four patches of skin, each moved one
way, most in its middle; a face's motion is the sum over its units and sides.

Lengths are cells of the 28 x 28 map, x and u to the right, y and v down. Units are written for the picture's left side, where
+x points to the middle of the face; the right side is the mirror image. Displacements are relative: a map is scaled to its
own range, so only their proportions count.

The numbers are this project's estimates of where and how far each unit moves the skin. No program fitted them; twice they, and
the amounts of warp and noise in `training.simulate`, were corrected by hand after simulated maps were compared with maps of
the composite database's development subjects.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError
from engine.types import F64
from training.datasets import CLASSES

Anchor = Literal["eye", "nose", "lip", "mouth", "eyes"]
"""What a patch is placed by: the eye, nose tip or lip corner, on each side; or, once, the middle of the lip corners or eyes."""

SIDED: frozenset[Anchor] = frozenset(("eye", "nose", "lip"))
"""Anchors whose patches come twice, the right one mirrored."""


class Patch(NamedTuple):
    """Skin that moves one way: its middle (dx, dy) from the anchor, half widths, and displacement (u, v)."""

    anchor: Anchor
    dx: float
    dy: float
    half_x: float
    half_y: float
    u: float
    v: float


UNITS: Mapping[str, tuple[Patch, ...]] = MappingProxyType(
    {
        # Upper face. Brows lie some 4 to 5 cells above the eye, the forehead above them; lids within 1.5.
        "AU1": (  # inner brow raiser
            Patch("eye", 3.2, -5.0, 3.4, 2.8, 0.1, -1.0),
            Patch("eye", 3.0, -7.2, 3.4, 2.2, 0.05, -0.6),
        ),
        "AU2": (  # outer brow raiser
            Patch("eye", -1.6, -5.0, 3.4, 2.6, -0.15, -1.0),
            Patch("eye", -1.5, -7.2, 3.4, 2.2, -0.1, -0.6),
        ),
        "AU4": (  # brow lowerer: down and together, the root of the nose with it
            Patch("eye", 3.2, -4.4, 3.2, 2.4, 0.55, 0.8),
            Patch("eye", -0.8, -4.2, 3.6, 2.2, 0.45, 0.75),
            Patch("eyes", 0.0, -4.5, 2.4, 3.0, 0.0, 0.35),
        ),
        "AU5": (Patch("eye", 0.0, -1.3, 2.9, 1.1, 0.0, -1.0),),  # upper lid raiser
        "AU6": (  # cheek raiser: cheek, lower lid, and the crow's feet drawn inwards
            Patch("eye", -0.8, 4.4, 3.6, 2.2, 0.1, -0.7),
            Patch("eye", -0.4, 1.7, 3.0, 1.0, 0.0, -0.5),
            Patch("eye", -3.6, 0.3, 1.8, 2.0, 0.5, 0.0),
        ),
        "AU7": (  # lid tightener
            Patch("eye", 0.0, -0.9, 2.8, 1.1, 0.0, 0.6),
            Patch("eye", 0.0, 1.4, 2.8, 1.0, 0.1, -0.6),
        ),
        # Lower face.
        "AU9": (  # nose wrinkler, which lowers the inner brow and lifts the upper lip too
            Patch("nose", -2.4, -2.6, 2.2, 2.8, 0.2, -0.9),
            Patch("eye", 3.4, -3.6, 2.4, 2.2, 0.3, 0.5),
            Patch("lip", 3.0, -2.0, 2.4, 1.6, 0.0, -0.5),
        ),
        "AU10": (  # upper lip raiser
            Patch("lip", 2.8, -2.0, 2.7, 1.8, -0.1, -1.0),
            Patch("lip", 0.8, -4.2, 2.4, 2.2, 0.0, -0.6),
        ),
        "AU12": (  # lip corner puller: corner, cheek above it, cheek beside it, upper lip
            Patch("lip", -0.2, -0.3, 2.1, 2.3, -0.6, -0.8),
            Patch("lip", -0.2, -3.4, 2.6, 2.8, -0.35, -0.7),
            Patch("lip", -3.6, -4.6, 2.2, 2.8, -0.8, -0.4),
            Patch("lip", 2.5, 0.3, 2.0, 1.5, -0.3, -0.2),
        ),
        "AU14": (  # dimpler: cheek and corner pressed together
            Patch("lip", -2.0, 0.0, 2.0, 2.2, 0.7, -0.1),
            Patch("lip", 1.4, 0.0, 1.8, 1.8, -0.6, 0.0),
        ),
        "AU15": (Patch("lip", -0.3, 1.2, 2.3, 2.4, -0.1, 0.9),),  # lip corner depressor
        "AU16": (Patch("mouth", 0.0, 2.4, 3.6, 1.8, 0.0, 1.0),),  # lower lip depressor
        "AU17": (  # chin raiser, which pushes the lower lip up
            Patch("mouth", 0.0, 4.6, 3.8, 2.4, 0.0, -1.0),
            Patch("mouth", 0.0, 1.9, 3.4, 1.3, 0.0, -0.7),
        ),
        "AU20": (Patch("lip", -0.4, 0.4, 2.9, 1.9, -1.0, 0.15),),  # lip stretcher
        "AU23": (  # lip tightener
            Patch("lip", 0.4, 0.0, 2.2, 1.8, 0.7, 0.0),
            Patch("mouth", 0.0, -0.9, 3.0, 1.0, 0.0, 0.35),
            Patch("mouth", 0.0, 1.5, 3.0, 1.0, 0.0, -0.45),
        ),
        "AU24": (  # lip pressor
            Patch("mouth", 0.0, -1.0, 3.6, 1.1, 0.0, 0.7),
            Patch("mouth", 0.0, 1.5, 3.6, 1.2, 0.0, -0.7),
        ),
        "AU25": (  # lips part
            Patch("mouth", 0.0, 1.7, 3.4, 1.4, 0.0, 0.9),
            Patch("mouth", 0.0, -0.9, 3.2, 1.1, 0.0, -0.4),
        ),
        "AU26": (Patch("mouth", 0.0, 4.4, 5.0, 3.4, 0.0, 1.0),),  # jaw drop
        "AU38": (Patch("nose", -1.8, -0.3, 1.4, 1.4, -0.7, 0.0),),  # nostril dilator
        # What eyes do whatever is felt. A strength below 0 turns the motion round: the eye opens, the gaze goes left.
        "blink": (
            Patch("eye", 0.0, -0.7, 2.7, 1.2, 0.0, 1.0),
            Patch("eye", 0.0, 1.1, 2.5, 0.9, 0.0, -0.35),
        ),
        "gaze": (Patch("eye", 0.0, 0.0, 1.8, 1.1, 1.0, 0.0),),
        "eye bag": (Patch("eye", 0.2, 2.6, 2.6, 1.2, 0.0, -0.6),),
    }
)
"""Each unit's patches."""

UNIT_NAMES = tuple(UNITS)

UNMIRRORED = "gaze"
"""Both eyes look the same way: the one unit whose u is not mirrored on the right."""


def placed_patches(name: str) -> list[tuple[Patch, int | None]]:
    """A unit's patches in place: as written on the left (0), mirrored on the right (1), once in the middle (None)."""
    placed: list[tuple[Patch, int | None]] = []
    for patch in UNITS[name]:
        if patch.anchor in SIDED:
            right = patch._replace(dx=-patch.dx, u=patch.u if name == UNMIRRORED else -patch.u)
            placed += [(patch, 0), (right, 1)]
        else:
            placed.append((patch, None))
    return placed


class Nuisance(NamedTuple):
    """A unit unrelated to the class: how often it is shown, and its mean strength."""

    name: str
    often: float
    mean: float


NUISANCES = (
    Nuisance("blink", 0.7, 1.2),
    Nuisance("gaze", 0.4, 0.7),
    Nuisance("eye bag", 0.3, 0.5),
    Nuisance("AU38", 0.08, 0.6),
)

CLEAR = 0.35
"""Strength above which a unit counts as clearly shown; below it, what else moves in a map hides it."""

ACCOMPANYING = 0.75
"""Strength of a unit that accompanies a prototype, relative to one that makes it."""

STRAY = 0.02
"""Chance of a unit that a prototype does not name."""


class Prototype(NamedTuple):
    """One way to show a class: its share of the class, and the chance of each unit; units of chance 1 make the prototype, the
    others accompany it."""

    share: float
    units: dict[str, float]


PROTOTYPES: Mapping[str, tuple[Prototype, ...]] = MappingProxyType(
    {
        "negative": (
            Prototype(  # the lowered brow of anger, sadness, disgust and effort alike: the commonest by far
                0.40,
                {"AU4": 1, "AU7": 0.4, "AU9": 0.12, "AU10": 0.08, "AU5": 0.05, "AU17": 0.08, "AU14": 0.05, "AU24": 0.05},
            ),
            Prototype(0.08, {"AU7": 1, "AU4": 0.2, "AU10": 0.1}),
            Prototype(0.09, {"AU9": 1, "AU4": 0.5, "AU7": 0.4, "AU10": 0.4, "AU17": 0.1}),  # disgust
            Prototype(0.07, {"AU10": 1, "AU4": 0.3, "AU7": 0.3, "AU25": 0.15, "AU17": 0.1}),  # disgust
            Prototype(0.10, {"AU14": 1, "AU4": 0.1, "AU17": 0.15, "AU24": 0.1}),  # contempt
            Prototype(0.10, {"AU15": 1, "AU17": 0.4, "AU4": 0.2, "AU1": 0.12, "AU14": 0.1}),  # sadness
            Prototype(0.08, {"AU17": 1, "AU24": 0.3, "AU15": 0.2, "AU4": 0.15, "AU14": 0.1}),
            Prototype(0.03, {"AU20": 1, "AU4": 0.4, "AU1": 0.2, "AU5": 0.2, "AU25": 0.2}),  # fear
            Prototype(0.05, {"AU23": 0.5, "AU24": 0.7, "AU17": 0.3, "AU4": 0.3}),  # anger held back
        ),
        "positive": (
            Prototype(0.50, {"AU12": 1, "AU6": 0.25, "AU25": 0.08, "AU14": 0.03}),
            Prototype(0.36, {"AU12": 1, "AU6": 1, "AU7": 0.15, "AU25": 0.1}),  # the smile of the eyes too
            Prototype(0.06, {"AU6": 1, "AU7": 0.2}),
            Prototype(0.08, {"AU12": 1, "AU14": 0.4, "AU24": 0.3, "AU17": 0.2}),  # a smile held back
        ),
        "surprise": (
            Prototype(0.66, {"AU1": 1, "AU2": 1, "AU5": 0.3, "AU25": 0.06, "AU26": 0.04}),
            Prototype(0.12, {"AU2": 1, "AU1": 0.3}),
            Prototype(0.08, {"AU1": 1, "AU5": 0.1}),
            Prototype(0.06, {"AU5": 1, "AU1": 0.4, "AU2": 0.4}),
            Prototype(0.05, {"AU25": 1, "AU26": 0.6, "AU1": 0.5, "AU2": 0.5, "AU5": 0.2}),
        ),
    }
)
"""How each class of `training.datasets.CLASSES` is shown; shares count relative to their sum."""


def chances(prototypes: tuple[Prototype, ...]) -> F64:
    """[prototypes, units of UNIT_NAMES]: the chance of each unit, STRAY where a prototype does not name it, 0 for nuisances.

    Raises ConfigError for a unit that does not exist or a chance outside 0..1.
    """
    nuisances = {nuisance.name for nuisance in NUISANCES}
    table = np.full((len(prototypes), len(UNIT_NAMES)), STRAY)
    table[:, [name in nuisances for name in UNIT_NAMES]] = 0
    for row, prototype in zip(table, prototypes, strict=True):
        for name, chance in prototype.units.items():
            if name not in UNITS:
                raise ConfigError(f"a prototype names the action unit {name!r}; there are {', '.join(UNIT_NAMES)}")
            if not 0 <= chance <= 1:
                raise ConfigError(f"a prototype shows {name} with chance {chance}; from 0 to 1 is expected")
            row[UNIT_NAMES.index(name)] = chance
    return table


def shares(prototypes: tuple[Prototype, ...]) -> F64:
    """[prototypes], summing to 1: how often each is the way its class is shown."""
    share = np.array([prototype.share for prototype in prototypes])
    return np.asarray(share / share.sum())


def shown(labels: npt.NDArray[np.int64], draw: np.random.Generator) -> F64:
    """Strength of each unit on the left and right side, [n, 2, units]: 0 where it is not shown, below 0 reversed."""
    count = len(labels)
    chance = np.zeros((count, len(UNIT_NAMES)))
    for label, name in enumerate(CLASSES):
        mine = np.flatnonzero(labels == label)
        which = draw.choice(len(PROTOTYPES[name]), len(mine), p=shares(PROTOTYPES[name]))
        chance[mine] = chances(PROTOTYPES[name])[which]
    strength = (draw.random(chance.shape) < chance) * np.exp(draw.normal(-0.15, 0.55, chance.shape))
    strength *= np.where(chance == 1, 1.0, ACCOMPANYING)
    # Few expressions are wholly one-sided, many a little, and all units of a face lean much the same way.
    far = np.where(draw.random(count) < 0.25, draw.uniform(0.5, 1.0, count), np.abs(draw.normal(0, 0.2, count)))
    lean = (far * draw.choice((-1, 1), count))[:, None] + draw.normal(0, 0.15, chance.shape)
    sides = np.stack((strength * np.clip(1 + lean, 0, 1), strength * np.clip(1 - lean, 0, 1)), 1)
    for nuisance in NUISANCES:
        sign = draw.choice((-1, 1), count, p=(0.35, 0.65))
        amount = sign * (draw.random(count) < nuisance.often) * draw.gamma(1.2, nuisance.mean / 1.2, count)
        sides[:, :, UNIT_NAMES.index(nuisance.name)] = amount[:, None] * np.exp(draw.normal(0, 0.3, (count, 2)))
    return np.asarray(sides * np.exp(draw.normal(0, 0.12, sides.shape)))
