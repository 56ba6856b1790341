from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from apexstream.clips import preset
from apexstream.clips.actions import GRID_STEP, grid_over
from apexstream.clips.render import Scene
from apexstream.clips.spec import Action
from engine.config import LandmarkSettings
from engine.faces.landmarks import FaceLocator
from engine.geometry import CANONICAL_KEYPOINTS, CROP_SIDE, apply, keypoints, keypoints_to_crop, similarity
from engine.registration.align import Registrar, eye_opening, region_places, without_head
from engine.registration.head import MARGIN, Head, head_design
from engine.registration.regions import HEAD_POINTS, REGION_NAMES, REGIONS
from engine.types import F32, F64, U8, Face, Frame
from tests.faces import photo, registered, render, rise

SMALL: dict[str, Any] = {"size": (360, 300), "eye_px": 80.0, "noise_sigma": 2.0}
HEAD: dict[str, Any] = {"sway_px": 6.0, "roll_deg": 2.0, "zoom": 0.02}
NO_ACTION: dict[str, Any] = {"n_events": 0, **SMALL}


def a_head(seed: int = 3) -> tuple[F64, F64]:
    """Places [R, 3] of the regions on a made-up face in crop pixels, and the displacement by a turn, tilt, shift and zoom."""
    rng = np.random.default_rng(seed)
    places: F64 = np.column_stack([rng.uniform(20, 108, (len(REGION_NAMES), 2)), rng.uniform(-15, 15, len(REGION_NAMES))])
    design = head_design(places[:, :2] + MARGIN, places[:, 2] - places[:, 2].mean())
    return places, design @ np.array([0.004, -0.006, 0.5, -0.3, 0.02, -0.03])


def test_head_motion_is_removed_and_facial_motion_stays() -> None:
    places, moved = a_head()
    assert np.abs(without_head(moved.ravel(), places)).max() < 0.05
    smile = np.zeros_like(moved)
    smile[[11, 12]] = [(-1.5, -1.2), (1.5, -1.2)]
    left = without_head((moved + smile).ravel(), places).reshape(-1, 2)
    assert np.abs(left - smile).max() < 0.3


def mesh() -> F32:
    """Points [478, 3] of hopper's face, in crop pixels."""
    locator = FaceLocator()
    (face,) = locator.locate(Frame(0, 0.0, photo("hopper")))
    locator.close()
    crop = Registrar().register(Frame(0, 0.0, photo("hopper")), face)
    assert crop is not None
    return crop.landmarks


def test_the_keypoints_of_the_first_crop_are_canonical() -> None:
    points = mesh()
    away = keypoints(points) - keypoints_to_crop(CANONICAL_KEYPOINTS)
    assert np.hypot(*away.T).max() < 8  # one similarity cannot fit five points of every face
    assert np.hypot(*away.mean(axis=0)) < 0.1
    places = region_places(points)
    assert places.shape == (len(REGIONS), 3)
    left, right = places[REGION_NAMES.index("lip_corner_left")], places[REGION_NAMES.index("lip_corner_right")]
    assert left[0] < 63 < right[0]
    assert places[REGION_NAMES.index("forehead"), 1] < places[REGION_NAMES.index("chin"), 1]


def by_landmarks(points: F32, first: F32) -> F64:
    """Positions [R, 2] of the regions by landmarks alone, registered on those of the first frame: the usual method."""
    heads = [one[list(HEAD_POINTS), :2].astype(float) for one in (points, first)]
    moved = apply(similarity(*heads), points[:, :2].astype(float))
    return np.array([moved[list(members)].mean(axis=0) for members in REGIONS.values()])


def in_crop_px(points: F32) -> float:
    """Crop pixels per frame pixel of this face."""
    eyes = keypoints(points)[:2]
    canonical = keypoints_to_crop(CANONICAL_KEYPOINTS)[:2]
    return float(np.hypot(*(canonical[1] - canonical[0])) / np.hypot(*(eyes[1] - eyes[0])))


def test_a_still_face_on_a_moving_head_has_no_motion() -> None:
    clip = render(preset("clean", "hopper", 30, seed=3, duration_s=3, **NO_ACTION, **HEAD))
    seen = list(registered(clip.frames))
    assert len(seen) == len(clip.frames) and {crop.anchor for crop, _ in seen} == {0}
    motion = np.stack([crop.motion for crop, _ in seen])
    assert motion.std(axis=0).max() < 0.1  # measured: 0.011 px
    plain = np.stack([by_landmarks(points, seen[0][1]) * in_crop_px(points) for _, points in seen])
    assert plain.std(axis=0).mean() > 3 * motion.std(axis=0).mean()


def test_out_of_plane_turns_are_no_facial_motion() -> None:
    spec = preset("clean", "astronaut", 30, seed=4, duration_s=3, yaw_deg=2.5, pitch_deg=2.0, **NO_ACTION, **HEAD)
    seen, true = list(registered(render(spec).frames)), Scene(spec).motion
    motion = np.stack([crop.motion for crop, _ in seen])
    turn = np.stack([crop.turn for crop, _ in seen])
    for seen_turn, true_turn in zip(turn.T[:2], (true.yaw, true.pitch), strict=True):
        assert abs(np.corrcoef(seen_turn, true_turn)[0, 1]) > 0.9, "the turn itself is measured"
    assert np.sqrt(np.square(motion - np.median(motion, axis=0)).mean()) < 0.25


def test_light_does_not_matter() -> None:
    light = {"flicker": 0.03, "flicker_hz": 7.3, "drift": 0.15, "light_tilt": 0.05}
    clip = render(preset("clean", "hopper", 30, seed=3, duration_s=2, **NO_ACTION, **light))
    means = [frame.grey[60:240, 90:270].mean() for frame in clip.frames]
    assert np.ptp(means) > 4, "the clip's brightness has to vary"
    motion = np.stack([crop.motion for crop, _ in registered(clip.frames)])
    assert np.abs(motion - np.median(motion, axis=0)).max() < 0.15  # measured: 0.02 to 0.06 px


def test_a_blink_closes_the_eyes_and_leaves_the_brows() -> None:
    clip = render(preset("clean", "hopper", 30, seed=3, duration_s=3, blinks_per_minute=30, **NO_ACTION))
    assert clip.truth.blinks
    seen = [crop for crop, _ in registered(clip.frames)]
    brows = [k for k, name in enumerate(REGION_NAMES) if name.startswith(("brow", "glabella"))]
    motion = np.stack([crop.motion[brows] for crop in seen])
    assert np.abs(motion - np.median(motion, axis=0)).max() < 0.5  # the renderer moves the brow by 0.25 px
    opening = np.array([crop.eye_opening for crop in seen])
    for blink in clip.truth.blinks:
        assert opening[round(blink.closed_t * 30)] < 0.7 * np.median(opening)


@pytest.mark.parametrize("height", [0.0, 3.0, 10.0])
def test_eye_opening_is_height_over_width(height: float) -> None:
    points = np.zeros((478, 3), np.float32)
    for a, b, c, d, e, f in ((33, 160, 158, 133, 153, 144), (263, 387, 385, 362, 380, 373)):
        points[[a, b, c, d, e, f], :2] = [
            (0, 0),
            (10, -height / 2),
            (20, -height / 2),
            (30, 0),
            (20, height / 2),
            (10, height / 2),
        ]
    assert eye_opening(points) == pytest.approx(height / 30)


def true_motion(scene: Scene, index: int, points: F32) -> F64:
    """[R, 2] by which the renderer moves the regions in a frame, crop pixels; points are the mesh's in the neutral face."""
    grid = grid_over(scene.face)
    nodes = ((apply(scene.placement(0), points[:, :2].astype(float)) - grid.origin) / GRID_STEP).astype(np.float32)
    field = cv2.remap(scene.expression(index), nodes[None, :, 0], nodes[None, :, 1], cv2.INTER_LINEAR)[0]
    return np.array([field[list(members)].mean(axis=0) for members in REGIONS.values()]) / scene.face.crop_px


@pytest.mark.parametrize("photo_name", ["hopper", "astronaut"])
@pytest.mark.parametrize("action", get_args(Action))
def test_an_expression_moves_its_own_regions_in_its_direction(action: Action, photo_name: str) -> None:
    """The wide patches average over a motion this local: it is measured smaller, never elsewhere."""
    scene, crops, neutral = rise(action, photo_name)
    crop, true = crops[-1], true_motion(scene, scene.truth.events[0].apex_frame, neutral)
    seen_px, true_px = float(np.linalg.norm(crop.motion)), float(np.linalg.norm(true))
    likeness = float((crop.motion * true).sum()) / (seen_px * true_px)
    assert likeness > 0.7  # measured: 0.76 to 0.98
    assert 0.2 < likeness * seen_px / true_px < 1.1  # measured: 0.3 to 0.7
    quiet = np.hypot(*true.T) < 0.02
    assert np.hypot(*crop.motion[quiet].T).max() < 0.35


def test_a_region_under_changing_text_is_not_found() -> None:
    """A clock burnt in on the chin: the head is tracked as without it, and the chin counts as lost."""
    frames = render(preset("clean", "hopper", 30, seed=2, duration_s=2, **NO_ACTION)).frames
    (plain, points), *_ = registered(frames[:1])
    x, y = points[152, :2].round().astype(int).tolist()
    clocked = []
    for frame in frames:
        pixels = frame.pixels.copy()
        cv2.putText(pixels, f"{frame.t:05.2f}", (x - 30, y + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
        clocked.append(replace(frame, pixels=pixels))
    chin = REGION_NAMES.index("chin")
    crops, bare = ([crop for crop, _ in registered(some)][5:] for some in (clocked, frames))
    assert plain.found.shape == (len(REGIONS),)
    assert np.mean([crop.found for crop in bare]) > 0.97
    found = np.mean([crop.found for crop in crops], axis=0)
    assert found[chin] < 0.8
    assert np.delete(found, chin).min() > 0.9


def test_the_crop_is_the_frame_through_the_transform() -> None:
    clip = render(preset("clean", "hopper", 30, seed=5, duration_s=0.5, **NO_ACTION, **HEAD))
    crop = [crop for crop, _ in registered(clip.frames)][-1]
    frame = clip.frames[-1]
    assert crop.pixels.shape == (CROP_SIDE, CROP_SIDE) and crop.pixels.dtype == np.uint8
    assert (crop.mark.frame, crop.mark.t) == (frame.index, frame.t)
    again = cv2.warpAffine(frame.grey, crop.transform, (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_CUBIC)
    assert np.abs(again.astype(float) - crop.pixels).mean() < 1


def test_frames_between_two_meshes_are_registered() -> None:
    clip = render(preset("clean", "hopper", 120, seed=5, duration_s=0.5, **NO_ACTION, **HEAD))
    seen = list(registered(clip.frames))
    assert [crop.mark.frame for crop, _ in seen] == list(range(60))
    motion = np.stack([crop.motion for crop, _ in seen])
    assert motion.std(axis=0).max() < 0.1


def sparse(frames: Iterable[Frame], every: int) -> Iterator[tuple[Frame, Face]]:
    """Each frame with its face, by a mesh in every so many frames."""
    locator, faces = FaceLocator(LandmarkSettings(mesh_hz=1000)), []
    for frame in frames:
        if frame.index % every == 0:
            faces = locator.locate(frame)
        for face in faces:
            yield frame, face
    locator.close()


def covered(frame: Frame, middle: F32) -> Frame:
    """The frame with a plain square over a point."""
    grey, (x, y) = frame.grey.copy(), np.rint(middle).astype(int)
    grey[max(0, y - 14) : y + 14, max(0, x - 14) : x + 14] = 90
    return Frame(frame.index, frame.t, np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8))


def test_landmarks_follow_the_head_between_two_meshes() -> None:
    clip = render(preset("clean", "hopper", 30, seed=5, duration_s=2, **NO_ACTION, sway_px=20.0))
    often, seldom = Registrar(), Registrar()
    there = [often.register(frame, face) for frame, face in sparse(clip.frames, 1)]
    here = [seldom.register(frame, face) for frame, face in sparse(clip.frames, 10)]
    apart = [np.hypot(*(a.landmarks - b.landmarks)[:, :2].T).mean() for a, b in zip(here, there, strict=True) if a and b]
    assert len(apart) == len(clip.frames)
    assert max(apart) < 2.0, "the mesh itself lags and jitters by one pixel; the head moves by six between two meshes"


def test_blendshapes_are_kept_with_their_age() -> None:
    clip = render(preset("clean", "hopper", 30, seed=5, duration_s=1, **NO_ACTION))
    registrar, seen = Registrar(), list(sparse(clip.frames, 10))
    for frame, face in seen:
        crop = registrar.register(frame, face)
        assert crop is not None and crop.blendshapes == face.blendshapes and "jawOpen" in crop.blendshapes
        assert crop.mesh_age == pytest.approx(frame.index % 10 / 30)


def test_a_lost_patch_does_not_move_with_the_head_under_an_old_mesh() -> None:
    clip = render(preset("clean", "hopper", 30, seed=5, duration_s=3, **NO_ACTION, sway_px=20.0))
    registrar, cheek, motion = Registrar(), REGIONS["cheek_left"], []
    meshes = list(sparse(clip.frames, 1))
    for (frame, now), (_, old) in zip(meshes, sparse(clip.frames, 6), strict=True):
        shown = frame if frame.index < 6 else covered(frame, now.points[list(cheek), :2].mean(axis=0))
        crop = registrar.register(shown, old)
        if crop is not None and frame.index >= 6:
            motion.append(crop.motion[REGION_NAMES.index("cheek_left")])
    assert len(motion) > 80
    assert np.hypot(*np.array(motion).T).max() < 1.5


def jump(picture: U8, dx: int, dy: int) -> U8:
    return np.roll(picture, (dy, dx), axis=(0, 1))


def test_a_head_that_jumps_is_tracked() -> None:
    """A cut or a dropped second: the face is in the crop again and does not move."""
    clip = render(preset("clean", "hopper", 30, seed=6, duration_s=1, **NO_ACTION))
    frames = [Frame(f.index, f.t, f.pixels if f.index < 12 else jump(f.pixels, 30, -16)) for f in clip.frames]
    seen = [crop for crop, _ in registered(frames)]
    before, after = seen[5], seen[-1]
    assert after.mark.frame == 29
    away = keypoints(after.landmarks) - keypoints(before.landmarks)
    assert np.hypot(*away.T).max() < 2
    assert np.abs(after.motion - before.motion).max() < 0.5


def test_another_face_gets_another_anchor() -> None:
    """Motion is measured against one reference picture; where that no longer fits, the crop has a new anchor."""
    clip = render(preset("clean", "hopper", 30, seed=6, duration_s=0.6, **NO_ACTION))
    other = render(preset("clean", "astronaut", 30, seed=6, duration_s=0.6, **NO_ACTION))
    frames = [*clip.frames, *(Frame(f.index + 18, f.t + 0.6, f.pixels) for f in other.frames)]
    seen = [crop for crop, _ in registered(frames, Registrar())]
    anchors = [crop.anchor for crop in seen]
    assert anchors[0] == 0 and anchors == sorted(anchors)
    assert anchors[-1] > 0, "another face was compared with the first one's picture"
    settled = [crop for crop in seen if crop.anchor == anchors[-1]]
    motion = np.stack([crop.motion for crop in settled])
    assert np.abs(motion - motion[0]).max() < 0.3


def test_turns_and_motions_continue_over_a_change_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spotter's regression on turns must hold after a new reference picture."""
    clip = render(preset("clean", "hopper", 30, seed=8, duration_s=2.0, yaw_deg=6.0, pitch_deg=5.0, **NO_ACTION))
    plain = {crop.mark.frame: crop for crop, _ in registered(clip.frames)}
    bad = Registrar._is_bad
    meshes: list[F32] = []

    def once_bad(self: Registrar, head: Head, found: F64) -> bool:
        """At the first frame with a new mesh after the thirtieth: a reference needs one."""
        fresh = not meshes or meshes[-1] is not self._raw
        meshes.append(self._raw)
        return (fresh and len(meshes) > 30 and self._anchors == 1) or bad(self, head, found)

    monkeypatch.setattr(Registrar, "_is_bad", once_bad)
    again = {crop.mark.frame: crop for crop, _ in registered(clip.frames)}
    changed = next(k for k, crop in again.items() if crop.anchor == 1)
    assert 30 <= changed < 45 and plain[changed + 4].anchor == 0
    steps = np.array([b.turn - a.turn for a, b in pairwise(again.values())])
    assert np.abs(steps).max() < 0.5 * max(np.ptp([crop.turn for crop in plain.values()], axis=0).max(), 0.5)
    assert np.abs(again[changed + 4].motion - plain[changed + 4].motion).max() < 0.1  # measured 0.054
    assert np.abs(again[changed + 4].turn - plain[changed + 4].turn).max() < 0.1


def test_offsets_from_earlier_references_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their errors must not accumulate: a lively video of ten minutes changes its reference hundreds of times."""
    clip = render(preset("clean", "hopper", 30, seed=8, duration_s=2.0, yaw_deg=6.0, pitch_deg=5.0, **NO_ACTION))
    slow = [replace(f, t=f.t * 30) for f in clip.frames]  # a second a frame
    bad = Registrar._is_bad
    calls = iter(range(10_000))
    monkeypatch.setattr(Registrar, "_is_bad", lambda self, head, found: next(calls) == 20 or bad(self, head, found))
    registrar = Registrar()
    crops = [crop for crop, _ in registered(slow[:40], registrar)]
    assert [crop.anchor for crop in crops[19:23]] == [0, 0, 1, 1]
    assert np.abs(registrar._carried_turn).max() < 0.3 * np.abs(crops[20].turn).max() / 20
