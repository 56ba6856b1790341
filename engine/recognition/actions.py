"""Facial actions as evidence for the class of a large expression, combined with the network's answer.

The network was fitted on micro-expressions. The larger a motion, the less its answer means, and the better the mesh sees which
facial actions make it up. From SMALL_PX on both count, as a product of experts: the network's logarithms, less and less, plus
EVIDENCE times the size of each action. EVIDENCE follows EMFACS (AU12 positive; AU1+2+5 with 26 surprise; AU4, 15, 17, 20, 24
negative), its sizes were chosen on photographs of 14 people posing six emotions (547 pictures) and checked on 12 others (493):
unweighted average recall .86 by the actions alone. Only actions that begin count: a smile that fades is no sorrow. The jaw
counts as far as brows or lids rise with it: a syllable opens it too.

A large motion with little evidence, of the mouth alone, with the lips of speech, or that ends an expression is likely none of
the classes. Its probabilities are shrunk towards uniform, so that confidence falls. Weights were chosen on 62 people who talk
or sit still (none kept back) and on the 14 people's pictures turned into clips (neutral, expression, neutral), and checked on
such clips of the 12 others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.registration.regions import REGION_NAMES
from engine.types import F64, Crop

SMALL_PX = 1.5
"""Size, in pixels of intensity (`recognizer.intensity`), up to which the network alone names a motion."""
LARGE_PX = 3.0  # and from which on actions count in full
DOUBT_PX = 3.0  # intensity over SMALL_PX at which the network counts half

CLASSES = ("negative", "positive", "surprise")

EVIDENCE: dict[str, tuple[float, float, float]] = {
    "smile": (-1.5, 3.0, -1.5),  # AU12
    "teeth": (-1.5, 1.5, 0.0),  # AU12 + 25
    "brows_raised": (0.0, -5.0, 6.0),  # AU1 + 2
    "eyes_wide": (0.0, -6.0, 7.0),  # AU5
    "jaw_dropped": (-3.0, -4.0, 7.0),  # AU26, with AU1 + 2 or 5
    "brows_lowered": (5.0, -2.5, -2.5),  # AU4
    "corners_down": (3.5, -2.5, -1.0),  # AU15
    "chin_raised": (3.0, -0.5, -2.5),  # AU17
    "lips_stretched": (4.0, -1.0, -3.0),  # AU20
    "lips_pressed": (3.0, -1.5, -1.5),  # AU24
    "lids_tight": (3.0, 0.5, -3.5),  # AU7
}
"""Logarithmic evidence for each of CLASSES per unit of an action (a blendshape's whole range)."""

EXPRESSIVE = (
    *("mouthSmile", "mouthUpperUp", "mouthFrown", "mouthStretch", "jawOpen"),
    *("browDown", "browInnerUp", "browOuterUp", "eyeWide"),
)
"""Blendshapes that are near zero on a resting face: where they fall, an expression ends."""
HELD = ("mouthPress", "mouthShrugLower")
"""Those that a resting face may show too."""

ARTICULATION = {"mouthPucker": 1.0, "mouthFunnel": 3.0, "mouthClose": 5.0}
"""Blendshapes of speech; the last two span little."""

MOVED_SHARE = 0.6
"""Intensity per pixel of the largest regional motion: of 38 rendered motions of up to SMALL_PX 95 % move no region by more than
2.5 px, of 114 as faint ones of people who talk less than half (lips move far, the skin around them little)."""

PULLED_PX = 3.0
"""Pixels by which the lip corners rise in a smile: 22 of 23 rise by 2 or more; of 20 mouths drawn wide in fear, anger or
disgust, which the mesh takes for smiles as well, two do."""
LEAST_PULLED = 0.25  # share of a smile that counts all the same

CHANGE_PX = 7.0
"""Pixels of flow that a change of a blendshape by one stands for; 95 % of 38 rendered motions of up to SMALL_PX change none by
more than .15."""

_STRANGE, _KNOWN, _UPPER = -0.5, 0.6, 1.5  # logistic weights: intercept, per unit of margin, per share of the upper face
_ENDING, _MOUTHED = 4.0, 4.0  # per unit of `Actions.ending` and `.articulation`
_MAX_MARGIN, _MAX_MOUTHED = 5.0, 1.0  # greater margins, or more articulation, count no more
_UPPER_REGIONS = [k for k, name in enumerate(REGION_NAMES) if not name.startswith(("lip", "upper_lip", "lower_lip", "chin"))]
_CORNERS = [k for k, name in enumerate(REGION_NAMES) if name.startswith("lip_corner")]
_NOISE_PX = 0.3


@dataclass(frozen=True)
class Actions:
    """sizes of the actions by name of EVIDENCE, 0 to 1; upper is the share of the face's largest regional motion that its
    upper part (all but lips and chin) reaches, 0 to 1; change is the largest change of a blendshape, up or down; moved is
    the largest regional motion in pixels of the crop; ending is by how much expressive blendshapes fall more than they rise, in
    all; articulation is how much the lips round, protrude or close and the jaw moves without the brows, as in speech."""

    sizes: Mapping[str, float]
    upper: float
    change: float
    moved: float
    ending: float
    articulation: float

    @property
    def evidence(self) -> F64:
        """[3] for CLASSES, logarithms up to a constant."""
        return np.asarray(sum((size * np.array(EVIDENCE[name]) for name, size in self.sizes.items()), np.zeros(3)))


@dataclass(frozen=True)
class Fused:
    """probabilities of the classes if the motion is one of them; none is how likely it is not."""

    probabilities: dict[str, float]
    none: float

    @property
    def shrunk(self) -> dict[str, float]:
        """The probabilities, shrunk towards uniform by `none`."""
        if not self.none:
            return self.probabilities
        even = self.none / len(self.probabilities)
        return {name: (1 - self.none) * p + even for name, p in self.probabilities.items()}


def facial_actions(onset: Sequence[Crop], apex: Sequence[Crop]) -> Actions | None:
    """The facial actions that begin between the onset crops and the apex crops, at least one each; None where the mesh was not
    refreshed since the onset."""
    before, after = _shapes(onset), _shapes(apex)
    if not before or not after or apex[-1].mark.t - apex[-1].mesh_age <= onset[-1].mark.t:
        return None

    def rise(name: str) -> float:
        return max(after.get(name, 0.0) - before.get(name, 0.0), 0.0)

    def fall(name: str) -> float:
        return max(before.get(name, 0.0) - after.get(name, 0.0), 0.0)

    moved = np.mean([crop.motion for crop in apex], axis=0) - np.mean([crop.motion for crop in onset], axis=0)
    pulled = min(max(-float(moved[_CORNERS, 1].mean()) / PULLED_PX, LEAST_PULLED), 1.0)
    smile, brows = pulled * rise("mouthSmile"), (rise("browInnerUp") + rise("browOuterUp")) / 2
    eyes = rise("eyeWide") + max(fall("eyeSquint") - fall("eyeBlink") / 2, 0.0)
    sizes = {
        "smile": smile,
        "teeth": min(smile, rise("mouthUpperUp")),
        "brows_raised": brows,
        "eyes_wide": eyes,
        "jaw_dropped": min(rise("jawOpen"), 2 * brows + eyes),
        "brows_lowered": rise("browDown"),
        "corners_down": rise("mouthFrown"),
        "chin_raised": rise("mouthShrugLower"),
        "lips_stretched": max(rise("mouthStretch") - smile, 0.0),
        "lips_pressed": max(rise("mouthPress") - smile, 0.0),
        "lids_tight": max(rise("eyeSquint") - rise("eyeBlink") / 2, 0.0),
    }
    lengths = np.hypot(moved[:, 0], moved[:, 1])
    upper = (lengths[_UPPER_REGIONS].max() + _NOISE_PX / 2) / (lengths.max() + _NOISE_PX)
    changes = [after.get(name, 0.0) - before.get(name, 0.0) for name in EXPRESSIVE]
    held = [after.get(name, 0.0) - before.get(name, 0.0) for name in HELD]
    mouthed = sum(size * rise(name) for name, size in ARTICULATION.items())
    mouthed += rise("jawOpen") - sizes["jaw_dropped"] + fall("jawOpen")
    ending = max(-sum(changes), 0.0)
    change, largest = max(map(abs, changes + held)), float(lengths.max())
    return Actions(sizes, float(upper), change, largest, ending, min(mouthed, _MAX_MOUTHED))


def fuse(probabilities: Mapping[str, float], intensity: float, actions: Actions | None) -> Fused:
    """The network's probabilities for a motion of an intensity (pixels of the crop), combined with the actions' evidence.

    Unchanged where it is no larger than SMALL_PX by flow, regions and mesh, without actions, and for a network of other
    classes than CLASSES.
    """
    if actions is None or (over := _size(intensity, actions) - SMALL_PX) <= 0 or set(probabilities) != set(CLASSES):
        return Fused(dict(probabilities), 0.0)
    share = min(over / (LARGE_PX - SMALL_PX), 1.0)
    network = np.log(np.maximum([probabilities[name] for name in CLASSES], 1e-6)) / (1 + over / DOUBT_PX)
    known, none = _weigh(network + share * actions.evidence, actions)
    return Fused({name: known[name] for name in probabilities}, share * none)


def by_actions(actions: Actions) -> Fused:
    """The classes by the actions alone, where the flow means nothing and the regions' motion may be the head's."""
    return Fused(*_weigh(actions.evidence, replace(actions, upper=0.0)))


def _size(intensity: float, actions: Actions) -> float:
    """How large a motion is, in pixels of intensity: the largest of three measures."""
    return max(intensity, CHANGE_PX * actions.change, MOVED_SHARE * actions.moved)


def _weigh(logits: F64, actions: Actions) -> tuple[dict[str, float], float]:
    """The probabilities of logits [3], and how likely the motion is none of the classes."""
    odds = np.exp(logits - logits.max())
    low, high = np.sort(logits)[-2:]
    known = _KNOWN * min(high - low, _MAX_MARGIN) + _UPPER * actions.upper
    strange = _STRANGE + _ENDING * actions.ending + _MOUTHED * actions.articulation
    return dict(zip(CLASSES, (odds / odds.sum()).tolist(), strict=True)), float(1 / (1 + np.exp(known - strange)))


def _shapes(crops: Sequence[Crop]) -> dict[str, float]:
    """Mean blendshapes of crops; those of the left and right side as one."""
    sums: dict[str, list[float]] = {}
    for crop in crops:
        for name, value in crop.blendshapes.items():
            sums.setdefault(name.removesuffix("Left").removesuffix("Right"), []).append(value)
    return {name: sum(values) / len(values) for name, values in sums.items()}
