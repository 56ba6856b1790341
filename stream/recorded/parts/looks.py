"""How the faces of a part look, so that a person who is away where parts meet is known again in the next one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from engine.faces.appearance import SAME, Gallery, appearance_of
from engine.faces.identity import COMPARE_S
from engine.types import F32
from stream.recorded.passage import Seen, Step


class Looks:
    """Adds to the frames of a part how their faces look, now and then, and when one is new."""

    def __init__(self) -> None:
        self._looked_t: dict[int, float] = {}

    def added(self, step: Step) -> Step:
        """The step, with looks. To be called with all steps in their order, before their pixels are removed."""
        if not isinstance(step, Seen):
            return step
        t = step.frame.t
        due = [face for face in step.faces if face.t == t and t - self._looked_t.get(face.id, -math.inf) >= COMPARE_S]
        if not due:
            return step
        self._looked_t.update((face.id, t) for face in due)
        return replace(step, looks={face.id: appearance_of(step.frame.grey, face.points) for face in due})


class KnownFaces:
    """How the faces of a whole video look, by their numbers."""

    def __init__(self) -> None:
        self._galleries: dict[int, Gallery] = {}

    def add(self, face: int, look: F32, *, alone: bool) -> None:
        """Keep a look [32, 32] of a face. One that is not alone may be taken for another: then the look has to be like one
        before."""
        gallery = self._galleries.setdefault(face, Gallery())
        if alone or gallery.likeness(look) >= SAME:  # 1 while there is none
            gallery.add(look)

    def like(self, look: F32, but: Mapping[int, int]) -> int | None:
        """The face that looks most like that, but none of those that are the values of but; None where none is the same."""
        likeness = {face: gallery.likeness(look) for face, gallery in self._galleries.items() if face not in but.values()}
        best = max(likeness, key=likeness.__getitem__, default=None)
        return best if best is not None and likeness[best] >= SAME else None
