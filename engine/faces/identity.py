"""Ids of faces: kept through short losses, given back to a face that returns, exchanged where two faces passed each other.

Where a face came so near to another that one may be mistaken for the other, or where one left and one appears, the pictures of
the faces decide (`engine.faces.appearance`).
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.faces.appearance import OTHER, SAME, Gallery, appearance_of
from engine.faces.boxes import near
from engine.faces.tracking import EARLY_S, Track
from engine.mesh import FaceMesh
from engine.types import F32, Frame

COMPARE_S = 0.5
"""From one comparison of a face's looks to the next, seconds."""
_DOUBT_S = 0.5  # a face that is like no known one for so long is a new one
_REMEMBERED = 16  # faces that left


class Identities:
    """The ids given so far, and how the faces looked that left."""

    def __init__(self) -> None:
        self._next_id = 0
        self._left: dict[int, Gallery] = {}

    def clear(self) -> None:
        """Forgets the faces that left."""
        self._left.clear()

    def identify(self, track: Track, mesh: FaceMesh, frame: Frame, tracks: Sequence[Track]) -> None:
        """Compares how a face looks with how it looked, where another of the tracks is so near that it may be that one."""
        rivals = [other for other in tracks if other is not track and near(other.box, track.box)]
        track.near_another |= bool(rivals)
        if not track.near_another and frame.t - track.compared_t < COMPARE_S - EARLY_S:
            return
        track.compared_t, seen = frame.t, appearance_of(frame.grey, mesh.points)
        likeness = track.gallery.likeness(seen)
        if not track.near_another or (likeness >= SAME and all(k.gallery.likeness(seen) < OTHER for k in rivals)):
            track.gallery.add(seen)
        if not track.near_another:
            return
        if likeness >= SAME:
            track.apart |= track.doubted_since is not None
            track.doubted_since, track.near_another = None, bool(rivals)
            return
        track.doubted_since = frame.t if track.doubted_since is None else track.doubted_since
        if not rivals:
            self._reassign(track, seen, likeness, frame.t, tracks)

    def _reassign(self, track: Track, seen: F32, likeness: float, now: float, tracks: Sequence[Track]) -> None:
        """Gives a face that looks like another the id of that one, or after a while a new one."""
        missing = {k.id: k for k in tracks if k is not track and k.gallery and not k.shown}
        known = {id_: k.gallery for id_, k in missing.items()} | self._left
        best = max(known, key=lambda id_: known[id_].likeness(seen), default=None)
        if best is not None and known[best].likeness(seen) >= max(SAME, likeness):
            other = missing.get(best)
            if other is not None:
                track.id, track.gallery, other.id, other.gallery = other.id, other.gallery, track.id, track.gallery
            else:
                self.remember(track)
                track.id, track.gallery = best, self._left.pop(best)
        elif track.doubted_since is None or now - track.doubted_since < _DOUBT_S:
            return
        else:
            self.remember(track)
            track.id, track.gallery = self._new_id(), Gallery()
        track.gallery.add(seen)
        track.doubted_since, track.near_another, track.apart = None, False, True

    def assign(self, frame: Frame, mesh: FaceMesh) -> tuple[int, Gallery]:
        """The id and gallery of a face just found: of one that left, if it looks like that one, else new ones."""
        seen = appearance_of(frame.grey, mesh.points)
        best = max(self._left, key=lambda id_: self._left[id_].likeness(seen), default=None)
        if best is None or self._left[best].likeness(seen) < SAME:
            return self._new_id(), Gallery()
        return best, self._left.pop(best)

    def remember(self, track: Track) -> None:
        """Keeps how a face looked that left, if that is known."""
        if track.gallery:
            self._left[track.id] = track.gallery
        while len(self._left) > _REMEMBERED:
            del self._left[next(iter(self._left))]

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1
