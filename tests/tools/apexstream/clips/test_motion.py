from __future__ import annotations

from dataclasses import replace

import numpy as np

from apexstream.clips.actions import GRID_STEP, grid_over
from apexstream.clips.motion import NOD_PX, depth, motion, nods, wander
from apexstream.clips.plan import frame_times
from apexstream.clips.portrait import portrait
from apexstream.clips.spec import ClipSpec, preset


def test_wandering_is_smooth_and_stays_within_one() -> None:
    t = np.arange(0, 300, 0.01)
    for seed in range(5):
        x = wander(t, np.random.default_rng(seed))
        assert np.abs(x).max() <= 1
        assert x.std() > 0.15
        assert np.abs(np.diff(x)).max() / 0.01 < 2 * np.pi * 0.5


def test_motion_keeps_to_its_settings_and_is_the_same_at_any_frame_rate() -> None:
    spec = ClipSpec(sway_px=7.0, roll_deg=2.0, zoom=0.03, yaw_deg=3.0, pitch_deg=1.0, drift=0.05, duration_s=60)
    m = motion(spec, frame_times(spec))
    assert 2 < np.abs(m.x).max() <= 7
    assert np.abs(m.roll).max() <= np.deg2rad(2)
    assert np.abs(m.zoom - 1).max() <= 0.03
    assert np.abs(m.yaw).max() <= np.deg2rad(3)
    assert np.abs(m.pitch).max() <= np.deg2rad(1)
    assert 0.01 < np.abs(m.light - 1).max() <= 0.0501
    double = motion(replace(spec, fps=60.0), frame_times(replace(spec, fps=60.0)))
    assert np.allclose(double.x[::2], m.x)


def test_a_clean_clip_has_neither_motion_nor_changing_light() -> None:
    spec = preset("clean")
    m = motion(spec, frame_times(spec))
    assert not np.concatenate([m.x, m.y, m.roll, m.zoom - 1, m.yaw, m.pitch, m.light - 1, m.tilt.ravel()]).any()


def test_flicker_has_its_frequency_and_strength() -> None:
    spec = ClipSpec(fps=120, flicker=0.02, flicker_hz=7.0, duration_s=20)
    light = motion(spec, frame_times(spec)).light - 1
    spectrum = np.abs(np.fft.rfft(light))
    assert np.fft.rfftfreq(len(light), 1 / 120)[spectrum.argmax()] == 7.0
    assert abs(light.max() - 0.02) < 0.001


def test_nods_are_quick_and_return() -> None:
    spec = ClipSpec(nods_per_minute=6.0, duration_s=120, sway_px=0.0)
    t = frame_times(spec)
    n = nods(spec, t)
    assert 0.3 < np.abs(n).max() <= 1
    assert np.count_nonzero(n == 0) > len(t) / 2
    assert np.allclose(motion(spec, t).y, NOD_PX * n)


def test_the_nose_stands_out_and_the_background_is_flat() -> None:
    face = portrait("hopper", 45.0)
    grid = grid_over(face)
    z = depth(face, grid)
    assert max(z[0].max(), z[-1].max(), z[:, 0].max(), z[:, -1].max()) < 0.02 * z.max()

    def at(point: str) -> float:
        j, i = np.rint((face.points[point][0] - grid.origin) / GRID_STEP).astype(int)
        return float(z[i, j])

    assert at("nose_tip") > max(at("cheek_r"), at("cheek_l"), at("mouth_r")) > at("side_r")
    assert at("nose_tip") == z[np.isfinite(z)].max() or at("nose_tip") > 0.95 * z.max()
