from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexstream.clips.plan import FIRST_ONSET_S, REST_S, closing, course, frame_times, generator, plan
from apexstream.clips.spec import LABEL_OF, PHOTOS, ClipSpec
from engine.errors import InputError
from engine.types import MICRO_LIMIT_S

specs = st.builds(
    ClipSpec,
    photo=st.sampled_from(PHOTOS),
    seed=st.integers(0, 10_000),
    duration_s=st.floats(1, 90),
    fps=st.sampled_from([15.0, 29.97, 60.0, 120.0]),
    events_per_minute=st.floats(0, 60),
    macro_fraction=st.floats(0, 1),
    vfr=st.sampled_from([0.0, 0.3]),
)


@given(specs)
@settings(max_examples=60, deadline=None)
def test_every_plan_keeps_the_rules(spec: ClipSpec) -> None:
    truth = plan(spec)
    times = frame_times(spec)
    assert truth.frames == len(times)
    for e in truth.events:
        length = e.offset_t - e.onset_t
        assert e.onset_t < e.apex_t < e.offset_t < spec.duration_s
        assert 0.19 < length <= MICRO_LIMIT_S if e.kind == "micro" else 0.69 < length <= 3.0
        low, high = spec.micro_px if e.kind == "micro" else spec.macro_px
        assert low <= e.amplitude <= high
        assert e.label == LABEL_OF[e.action]
        for frame, t in ((e.onset_frame, e.onset_t), (e.apex_frame, e.apex_t), (e.offset_frame, e.offset_t)):
            assert abs(times[frame] - t) == np.abs(times - t).min()
    assert all(e.onset_t >= FIRST_ONSET_S - 1e-9 for e in truth.events)
    assert all(b.onset_t - a.offset_t >= REST_S for a, b in pairwise(truth.events))
    assert all(0.1 <= b.end_t - b.start_t <= 0.3001 and b.start_t < b.closed_t < b.end_t for b in truth.blinks)
    assert all(b.start_t >= a.end_t for a, b in pairwise(truth.blinks))


def test_the_same_seed_gives_the_same_plan_and_another_another() -> None:
    spec = ClipSpec(seed=5)
    assert plan(spec) == plan(replace(spec))
    assert plan(spec).events != plan(replace(spec, seed=6)).events
    assert plan(spec).events != plan(replace(spec, photo="astronaut")).events


def test_times_do_not_depend_on_the_frame_rate_or_on_what_disturbs() -> None:
    def moments(spec: ClipSpec) -> list[tuple[float, float, float, str]]:
        return [(e.onset_t, e.apex_t, e.offset_t, e.action) for e in plan(spec).events]

    spec = ClipSpec(seed=2, fps=30)
    for other in (replace(spec, fps=120.0), replace(spec, vfr=0.3), replace(spec, noise_sigma=9.0, blinks_per_minute=0.0)):
        assert moments(other) == moments(spec)


def test_classes_come_in_equal_shares() -> None:
    labels = [e.label for e in plan(ClipSpec(n_events=30, duration_s=120)).events]
    assert {label: labels.count(label) for label in set(labels)} == {"negative": 10, "positive": 10, "surprise": 10}


def test_the_share_of_macro_expressions_and_chosen_actions_are_kept() -> None:
    events = plan(ClipSpec(n_events=20, duration_s=120, macro_fraction=0.25, actions=("smile", "brow_lower"))).events
    assert sum(e.kind == "macro" for e in events) == 5
    assert {e.action for e in events} == {"smile", "brow_lower"}


def test_more_events_than_fit_are_refused_when_a_number_was_asked_for() -> None:
    with pytest.raises(InputError, match="50 events do not fit into 10 s"):
        plan(ClipSpec(n_events=50, duration_s=10))
    assert plan(ClipSpec(events_per_minute=300, duration_s=10)).events


def test_some_blink_lies_apart_from_events_and_some_blinks_come_in_pairs() -> None:
    close = 0
    for seed in range(12):
        truth = plan(ClipSpec(seed=seed, duration_s=60))
        apart = [b for b in truth.blinks if all(b.end_t < e.onset_t or b.start_t > e.offset_t for e in truth.events)]
        assert apart
        close += sum(b.start_t - a.start_t < 0.41 for a, b in pairwise(truth.blinks))
    assert close > 0


def test_a_varying_frame_rate_varies_and_keeps_the_mean() -> None:
    steps = np.diff(frame_times(ClipSpec(fps=60, vfr=0.3, duration_s=30)))
    assert steps.min() > 0
    assert steps.std() / steps.mean() == pytest.approx(0.3, abs=0.06)
    assert steps.mean() == pytest.approx(1 / 60, rel=0.1)


@pytest.mark.parametrize("family", ["warp-a", "warp-b"])
def test_an_event_rises_from_zero_to_one_single_maximum_at_its_apex_and_back(family: str) -> None:
    events = [e for seed in range(8) for e in plan(ClipSpec(seed=seed, duration_s=40, macro_fraction=0.5)).events]
    for n, e in enumerate(events):
        t = np.unique(np.concatenate([np.linspace(e.onset_t - 0.2, e.offset_t + 0.2, 2001), [e.onset_t, e.apex_t, e.offset_t]]))
        y = course(e, t, family, np.random.default_rng(n))
        assert y.max() == pytest.approx(1, abs=1e-12)
        assert t[y.argmax()] == e.apex_t
        assert np.count_nonzero(y == y.max()) == 1
        assert not y[(t <= e.onset_t) | (t >= e.offset_t)].any()
        assert (y[(t > e.onset_t) & (t < e.offset_t)] > 0).all()
        assert (np.diff(y[t <= e.apex_t]) >= 0).all()
        assert (np.diff(y[t >= e.apex_t]) <= 0).all()


def test_the_two_families_differ_in_their_course() -> None:
    event = plan(ClipSpec(seed=1, macro_fraction=0.0)).events[0]
    t = np.linspace(event.onset_t, event.offset_t, 101)
    a, b = (course(event, t, family, np.random.default_rng(0)) for family in ("warp-a", "warp-b"))
    assert np.abs(a - b).max() > 0.02


def test_lids_are_open_outside_blinks_and_closed_once_in_each() -> None:
    blinks = plan(ClipSpec(seed=4, duration_s=60)).blinks
    t = np.arange(0, 60, 0.0005)
    down = closing(blinks, t)
    inside = np.zeros(len(t), bool)
    for b in blinks:
        during = (t > b.start_t) & (t < b.end_t)
        assert down[during].max() > 0.999
        assert abs(t[during][down[during].argmax()] - b.closed_t) < 0.001
        inside |= during
    assert not down[~inside].any()
    assert down.max() <= 1


def test_random_streams_of_topics_are_independent() -> None:
    spec = ClipSpec(seed=1)
    assert generator(spec, "events").random() == generator(spec, "events").random()
    assert generator(spec, "events").random() != generator(spec, "blinks").random()
