from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from apexstream.clips.follow import Followed
from apexstream.clips.injection_plan import END_S, REST_S, plan_into
from apexstream.clips.spec import IntoSpec
from engine.errors import InputError


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
