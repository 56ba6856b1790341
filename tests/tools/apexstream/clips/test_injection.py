from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from apexstream.clips.follow import Followed, follow
from apexstream.clips.injection import END_S, INTO, REST_S, Injection, plan_into, put_into
from apexstream.clips.plan import course
from apexstream.clips.portrait import CROP_EYE_PX
from apexstream.clips.spec import INTO_ACTIONS, Action, IntoSpec, read_truth, truth_path
from engine.errors import InputError, OutputError, SourceError


def decoded(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [float(f.pts * f.time_base) for f in frames], [f.to_ndarray(format="gray") for f in frames]


def test_the_clip_keeps_the_times_and_shows_the_brow_as_far_up_as_was_asked(video: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "out.mp4", tmp_path / "sheet.png"
    seen: list[tuple[str, int]] = []
    spec = IntoSpec(str(video), seed=3, n_events=1, actions=("brow_raise",), macro_fraction=1.0, crf=None)
    truth = put_into(spec, out, lambda name, done, _: seen.append((name, done)), sheet)
    assert read_truth(truth_path(out)) == truth
    assert seen == [(name, i + 1) for name in ("following", "writing") for i in range(truth.frames)]
    assert cv2.imread(str(sheet)).shape == (240, 960, 3)

    (times, filmed), (new_times, made) = decoded(video), decoded(out)
    assert np.allclose(times, new_times, atol=1e-4)
    (event,) = truth.events
    assert event.apex_t == pytest.approx(times[event.apex_frame], abs=1e-4)
    changed = [float(np.abs(a.astype(float) - b).mean()) for a, b in zip(filmed, made, strict=True)]
    during = [event.onset_t < t < event.offset_t for t in times]
    assert max(c for c, d in zip(changed, during, strict=True) if not d) < 0.3  # rounding of colours alone: .17
    assert changed[event.apex_frame] > 0.95 * max(changed)

    at = follow(video).portrait(event.apex_frame)
    ups = []
    for brow in ("brow_r", "brow_l"):
        x, y = np.round(at.points[brow][2]).astype(int)
        patch = filmed[event.apex_frame][y - 6 : y + 7, x - 8 : x + 9]
        around = made[event.apex_frame][y - 18 : y + 19, x - 10 : x + 11]
        found = cv2.minMaxLoc(cv2.matchTemplate(around, patch, cv2.TM_CCOEFF_NORMED))[3]
        ups.append((12 - found[1]) * CROP_EYE_PX / at.eye_distance)
    assert max(ups) == pytest.approx(event.amplitude, abs=1.0)  # found to a pixel
    assert min(ups) > 0.6 * event.amplitude  # one side may be weaker


@pytest.mark.parametrize("action", INTO_ACTIONS)
def test_the_largest_displacement_is_the_amplitude_and_nothing_folds(face: Followed, action: Action) -> None:
    spec = IntoSpec(str(face.path), seed=1, n_events=1, actions=(action,), macro_fraction=1.0, macro_px=(10.0, 10.0))
    truth = plan_into(spec, face)
    injection = Injection(face, truth)
    apex = truth.events[0].apex_frame
    shift, (x, y) = injection.displacement(apex, injection.moves[0])
    portrait = face.portrait(apex)
    size = np.linalg.norm(shift, axis=-1)
    assert size.max() * CROP_EYE_PX / portrait.eye_distance == pytest.approx(10.0, rel=0.02)
    row, column = np.unravel_index(size.argmax(), size.shape)
    points = [portrait.points[push.point.split(":")[0]] for push in INTO[action]]
    at_rest = np.array([x + column, y + row]) - shift[row, column]
    assert np.linalg.norm(np.concatenate(points) - at_rest, axis=-1).min() < 0.1 * portrait.eye_distance
    edge = np.round(face.outline(apex) - (x, y)).astype(int)
    assert (
        size[edge[:, 1], edge[:, 0]].max() < 0.25 * size.max()
    )  # the outline of the head stays; the mesh's is a pixel or two unsure
    rows, columns = np.mgrid[: shift.shape[0], : shift.shape[1]]
    at_x, at_y = columns - shift[..., 0], rows - shift[..., 1]
    area = np.gradient(at_x, axis=1) * np.gradient(at_y, axis=0) - np.gradient(at_x, axis=0) * np.gradient(at_y, axis=1)
    assert area.min() > 0.1


def test_the_strength_over_time_is_the_renderer_s(face: Followed) -> None:
    injection = Injection(face, plan_into(IntoSpec(str(face.path), seed=2, n_events=1), face))
    (move,) = injection.moves
    expected = course(move.event, face.times, "warp-a", np.random.default_rng(move.seed))
    assert np.array_equal(move.part, expected)
    assert move.part[move.event.apex_frame] == 1
    assert not move.part[(face.times <= move.event.onset_t) | (face.times >= move.event.offset_t)].any()


def test_what_cannot_be_done_is_one_sentence(video: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="some of brow_raise"):
        IntoSpec(str(video), actions=("nose_wrinkle",))
    with pytest.raises(InputError, match="amplitude range"):
        IntoSpec(str(video), micro_px=(1.0, 40.0))
    with pytest.raises(SourceError, match=r"no\.mp4"):
        put_into(IntoSpec(str(tmp_path / "no.mp4")), tmp_path / "out.mp4")
    with pytest.raises(OutputError, match="choose a writable place"):
        put_into(IntoSpec(str(video), seconds=1.0), tmp_path / "no" / "out.mp4")


def test_events_keep_apart_from_each_other_and_from_cuts(face: Followed) -> None:
    runs = ((0, 70), (75, 150))
    cut = replace(face, runs=runs)
    for seed in range(30):
        events = plan_into(IntoSpec(str(face.path), seed=seed, events_per_minute=60, macro_fraction=0.2), cut).events
        assert events
        assert all(b.onset_t - a.offset_t > REST_S - 1e-3 for a, b in pairwise(events))
        for event in events:
            times = [(face.times[a], face.times[b - 1]) for a, b in runs]
            assert any(a + REST_S - 1e-3 < event.onset_t and event.offset_t < b - END_S + 1e-3 for a, b in times)


def test_equal_specs_give_equal_plans_and_other_seeds_others(face: Followed) -> None:
    spec = IntoSpec(str(face.path), seed=5, events_per_minute=30)
    assert plan_into(spec, face) == plan_into(spec, face)
    assert plan_into(spec, face).events != plan_into(replace(spec, seed=6), face).events
    assert {e.action for e in plan_into(spec, face).events} <= {"brow_raise", "brow_lower"}


def test_more_events_than_fit_are_refused(face: Followed, video: Path) -> None:
    with pytest.raises(InputError, match="of 20 events fit"):
        plan_into(IntoSpec(str(video), n_events=20), face)
