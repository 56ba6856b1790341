from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.faces.appearance import appearance_of
from engine.faces.identity import COMPARE_S
from engine.types import F32, Face
from stream.recorded.parts.looks import KnownFaces, Looks
from stream.recorded.passage import Found, Seen
from tests.parts import MadePart


def looks_of(part: MadePart) -> list[tuple[float, list[int]]]:
    """When which faces were looked at."""
    looks = Looks()
    seen = [step for step in map(looks.added, part.steps) if isinstance(step, Seen)]
    return [(one.frame.t, list(one.looks)) for one in seen if one.looks]


def a_look(*, like: F32 | None = None, seed: int = 0) -> F32:
    """A look like no other; or one that is like another, and not the same."""
    noise = np.random.default_rng(seed).normal(size=(32, 32)).astype(np.float32)
    mixed = noise if like is None else 30 * like + 0.4 * noise
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def test_faces_are_looked_at_when_they_are_new_and_then_now_and_again() -> None:
    part = MadePart(100, 112, {0: 0.0})
    part.show(7, 1, 300.0)
    assert looks_of(part) == [(10.0, [0]), (10 + COMPARE_S, [0]), (10.7, [1]), (10 + 2 * COMPARE_S, [0])]
    found = Found([], [])
    assert Looks().added(found) is found


def test_a_face_is_looked_at_where_its_mesh_was_taken() -> None:
    part = MadePart(0, 10)
    old = [replace(seen, faces=[replace(face, t=0.0) for face in seen.faces]) for seen in part.steps]
    part.steps = [old[1], *old[1:]]
    assert looks_of(part) == []


def test_a_look_is_the_appearance_of_the_face() -> None:
    rng = np.random.default_rng(3)
    part = MadePart(0, 3)
    pixels = rng.integers(0, 255, (200, 200, 3), np.uint8)
    points = np.zeros((478, 3), np.float32)
    points[:, :2] = rng.uniform(50, 150, (478, 2))
    step = replace(part.steps[0], frame=replace(part.steps[0].frame, pixels=pixels), faces=[Face(0, points, 0.0)])
    seen = Looks().added(step)
    assert isinstance(seen, Seen)
    np.testing.assert_array_equal(seen.looks[0], appearance_of(seen.frame.grey, points))


def test_the_same_person_is_known_and_nobody_else() -> None:
    known, first, second = KnownFaces(), a_look(seed=1), a_look(seed=2)
    known.add(0, first, alone=True)
    known.add(1, second, alone=True)
    assert (known.like(a_look(like=second, seed=9), {}), known.like(a_look(seed=3), {})) == (1, None)
    assert known.like(second, {5: 1}) is None


def test_beside_another_face_a_look_like_none_before_is_not_kept() -> None:
    known, first, passing, turned = KnownFaces(), a_look(seed=1), a_look(seed=2), a_look(seed=3)
    known.add(0, first, alone=False)
    known.add(0, passing, alone=False)
    assert (known.like(passing, {}), known.like(first, {})) == (None, 0)
    known.add(0, turned, alone=True)
    assert (known.like(turned, {}), known.like(first, {})) == (0, 0)
