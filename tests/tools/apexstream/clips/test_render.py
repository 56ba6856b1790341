from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from apexstream.clips.plan import frame_times
from apexstream.clips.portrait import OVERSAMPLE, portrait
from apexstream.clips.render import Scene, render_frames
from apexstream.clips.spec import ClipSpec, preset
from engine.types import F64

SMALL = ClipSpec(size=(320, 180), eye_px=45.0, duration_s=6.0, fps=30.0, n_events=2, seed=3)


def in_frame(scene: Scene, i: int, point: str, index: int = 0) -> F64:
    """(x, y) in frame i of a point of the neutral face seen from the front."""
    whole = np.vstack([scene.placement(i), [0, 0, 1]])
    return np.asarray((np.linalg.inv(whole) @ [*scene.face.points[point][index], 1])[:2])


def test_frames_have_their_times_shape_and_type() -> None:
    spec = replace(SMALL, duration_s=4.0, n_events=0, vfr=0.2)
    frames = list(render_frames(spec))
    assert [t for t, _ in frames] == list(frame_times(spec))
    assert all(p.shape == (180, 320, 3) and p.dtype == np.uint8 for _, p in frames)


def test_a_spec_renders_the_same_frames_again_in_any_order_and_another_seed_others() -> None:
    spec = replace(preset("harder", seed=1), size=(320, 180), eye_px=45.0, duration_s=5.0)
    one, again, other = Scene(spec), Scene(replace(spec)), Scene(replace(spec, seed=2))
    later = one.frame(40)
    first = one.frame(3)
    assert np.array_equal(first, again.frame(3))
    assert np.array_equal(later, again.frame(40))
    assert not np.array_equal(first, other.frame(3))


def test_a_clean_face_at_rest_does_not_move_at_all() -> None:
    scene = Scene(replace(preset("clean", n_events=1), size=(320, 180), eye_px=45.0, duration_s=5.0))
    before = scene.truth.events[0].onset_t
    resting = [i for i, t in enumerate(scene.times) if t <= before]
    assert all(np.array_equal(scene.frame(0), scene.frame(i)) for i in resting[:: len(resting) // 4])


@pytest.mark.parametrize("renderer", ["warp-a", "warp-b"])
@pytest.mark.parametrize("action", ["brow_raise", "brow_lower", "smile", "nose_wrinkle", "lip_depress"])
def test_the_picture_moves_by_the_amplitude_in_crop_pixels(renderer: str, action: str) -> None:
    """Measured with dense flow, which knows nothing of the warp.

    Farneback's smooths peaks, hence the wide margin: it measures 0.77 to 0.96 of the truth.
    """
    changes = {"actions": (action,), "renderer": renderer, "micro_px": (3.0, 3.0), "macro_fraction": 0.0, "n_events": 1}
    scene = Scene(preset("clean", "astronaut", 240.0, 1, 4.0, eye_px=90.0, **changes))
    event = scene.truth.events[0]
    rest, apex = (cv2.cvtColor(scene.frame(i), cv2.COLOR_RGB2GRAY) for i in (0, event.apex_frame))
    flow = cv2.calcOpticalFlowFarneback(rest, apex, np.zeros((360, 640, 2), np.float32), 0.5, 3, 13, 5, 7, 1.5, 0)
    peak = np.percentile(np.linalg.norm(flow[40:-40, 180:-180], axis=-1), 99.9)
    frame_px_per_crop_px = 90.0 / 70.5
    assert peak / frame_px_per_crop_px == pytest.approx(3.0, rel=0.25)


def test_the_field_peaks_with_the_amplitude_at_the_apex() -> None:
    scene = Scene(replace(preset("clean", n_events=2, fps=240.0), duration_s=8.0))
    for event in scene.truth.events:
        peaks = [np.linalg.norm(scene.expression(i), axis=-1).max() for i in range(event.onset_frame, event.offset_frame + 1)]
        assert max(peaks) / scene.face.crop_px == pytest.approx(event.amplitude, rel=0.01)
        assert abs(event.onset_frame + int(np.argmax(peaks)) - event.apex_frame) <= 1


def test_the_face_sits_at_its_placement() -> None:
    """The brightest change of a blink is at the eyes, wherever sway, roll and zoom have put them."""
    still = preset("clean", "astronaut", n_events=0, blinks_per_minute=20.0)
    scene = Scene(replace(still, sway_px=30.0, roll_deg=8.0, zoom=0.1, duration_s=10.0))
    blink = scene.truth.blinks[0]
    closed = int(np.abs(scene.times - blink.closed_t).argmin())
    scene._down[:] = 0.0
    opened = scene.frame(closed).astype(float)
    scene._down[:] = 1.0
    change = np.abs(scene.frame(closed).astype(float) - opened).sum(axis=-1)
    rows, cols = np.nonzero(change > 0.25 * change.max())
    eyes = np.array(
        [(in_frame(scene, closed, f"lid_{s}_up", 2) + in_frame(scene, closed, f"lid_{s}_low", 2)) / 2 for s in "rl"]
    )
    for side in (cols < eyes[:, 0].mean(), cols >= eyes[:, 0].mean()):
        middle = np.array([cols[side].mean(), rows[side].mean()])
        assert np.linalg.norm(eyes - middle, axis=-1).min() < 4


def test_a_turn_moves_the_nose_more_than_the_cheeks_and_the_outline_not() -> None:
    scene = Scene(replace(preset("clean", n_events=0), duration_s=4.0))
    scene.motion.yaw[0] = np.deg2rad(3)
    shift = -scene._offset(0) @ scene.face.across.astype(np.float32)

    def at(point: str) -> float:
        j, i = np.rint((scene.face.points[point][0] - scene._grid.origin) / 4).astype(int)
        return float(shift[i, j])

    assert at("nose_tip") > at("cheek_r") > at("side_r") > 0
    assert at("nose_tip") == pytest.approx(scene.face.eye_distance * np.sin(np.deg2rad(3)) * 1.0, rel=0.25)
    assert abs(shift[0]).max() < 0.1


def test_moving_by_a_fraction_of_a_pixel_does_not_change_the_sharpness() -> None:
    scene = Scene(replace(preset("clean", n_events=0), duration_s=2.0))
    edges = []
    for i, shift in enumerate((0.0, 0.25, 0.5, 0.75)):
        scene.motion.x[i] = shift
        edges.append(float(cv2.Laplacian(scene.frame(i)[60:300, 200:440].astype(np.float32), cv2.CV_32F).std()))
    assert max(edges) / min(edges) < 1.02


def test_noise_has_its_strength_and_differs_from_frame_to_frame() -> None:
    spec = replace(preset("clean", n_events=0), duration_s=2.0, size=(320, 180), eye_px=45.0)
    quiet, noisy = Scene(spec).frame(0).astype(float), Scene(replace(spec, noise_sigma=3.0))
    grain = [noisy.frame(i) - quiet for i in (0, 1)]
    middle = (quiet > 30) & (quiet < 225)
    assert grain[0][middle].std() == pytest.approx(3.0, rel=0.05)
    assert abs(np.corrcoef(grain[0][middle], grain[1][middle])[0, 1]) < 0.02


@pytest.mark.parametrize("size", [(16, 16), (640, 480), (480, 640)])
def test_any_frame_size(size: tuple[int, int]) -> None:
    scene = Scene(replace(SMALL, size=size, duration_s=4.0, n_events=1, eye_px=0.25 * min(size)))
    assert scene.frame(0).shape == (size[1], size[0], 3)


def test_the_face_of_a_spec_is_its_photograph() -> None:
    face = Scene(replace(SMALL, photo="astronaut-2")).face
    assert face.eye_distance == pytest.approx(SMALL.eye_px * OVERSAMPLE)
    assert np.array_equal(face.texture, portrait("astronaut-2", SMALL.eye_px).texture)
