from __future__ import annotations

import numpy as np
import pytest

from engine.spotting.features import FLOW_WIDTH, HZ, MESH_FEATURES, REGIONS, WIDTH, FeatureSeries
from engine.types import F64
from training.tapes import rows_of


def motion(t: float) -> F64:
    """[20] pixels: slow waves, another for each region and axis."""
    k = np.arange(2 * len(REGIONS))
    return np.asarray(0.8 * np.sin(2 * np.pi * (0.4 + 0.02 * k) * t + k))


def mesh(t: float) -> F64:
    return np.asarray(0.3 * np.sin(2 * np.pi * 0.5 * t + np.arange(len(MESH_FEATURES))))


def series_of(fps: float, seconds: float = 6.0, with_mesh: bool = True) -> FeatureSeries:
    series = FeatureSeries()
    for k in range(round(seconds * fps) + 1):
        series.append(k / fps, motion(k / fps), mesh(k / fps) if with_mesh else None)
    return series


@pytest.mark.parametrize(("fps", "apart"), [(25.0, 0.01), (60.0, 1e-6), (120.0, 1e-6)])
def test_rows_do_not_depend_on_the_frame_rate(fps: float, apart: float) -> None:
    """At 25 frames a second linear interpolation changes the rows by 0.0057, measured."""
    at_30, other = series_of(30.0), series_of(fps)
    assert at_30.size == other.size == 181
    assert at_30.last_t == pytest.approx(other.last_t, abs=1e-9)
    assert np.abs(at_30.rows - other.rows).max() < apart


@pytest.mark.parametrize("with_mesh", [True, False])
def test_rows_equal_those_of_a_whole_tape(with_mesh: bool) -> None:
    t = np.arange(400) / HZ
    displacement = np.array([motion(x) for x in t])
    displacement[200:] += 7.0  # a cut
    features = np.array([mesh(x) for x in t]) if with_mesh else None
    series = FeatureSeries()
    for k, x in enumerate(t):
        series.append(float(x), displacement[k], None if features is None else features[k])
    whole = rows_of(displacement.astype(np.float32), None if features is None else features.astype(np.float32))
    assert whole.shape == series.rows.shape == (400, WIDTH)
    assert np.abs(series.rows - whole).max() < 1e-4


def test_a_row_without_a_mesh_is_marked() -> None:
    assert not series_of(30.0, 1.0, with_mesh=False).rows[:, FLOW_WIDTH:].any()
    assert (series_of(30.0, 1.0).rows[:, -1] == 1).all()


def test_dropped_rows_change_no_later_row() -> None:
    whole, lean, dropped = FeatureSeries(), FeatureSeries(), 0
    for k in range(1500):
        whole.append(k / HZ, motion(k / HZ), None)
        lean.append(k / HZ, motion(k / HZ), None)
        dropped += lean.drop(100)
        assert lean.size + dropped == whole.size
    assert dropped > 1000 and lean.size < 100 + 256
    assert np.array_equal(lean.rows, whole.rows[dropped:]) and lean.last_t == whole.last_t
