from __future__ import annotations

import ast
import copy
import inspect
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import SpotterSettings
from engine.spotting import spotter as module
from engine.spotting.spotter import BREAK_S, TABLE, Spotter, State, Trigger
from engine.types import F64, Crop, Mark, Span
from tests.engine.spotting.pulses import (
    BROWS_UP,
    SMILE,
    TOLERANCE_S,
    WHOLE_HEAD,
    Pulse,
    agree,
    finals,
    sequence,
    spot,
    steady,
)


def varying(fps: float, seconds: float, seed: int = 1) -> F64:
    """Times of a source whose frame intervals vary by a factor of three."""
    steps = np.clip(np.exp(0.4 * np.random.default_rng(seed).standard_normal(round(2 * seconds * fps))), 0.5, 2) / fps
    times = np.cumsum(steps)
    return np.asarray(times[times < seconds])


TIMES = {
    "25 fps": steady(25, 6),
    "30 fps": steady(30, 6),
    "60 fps": steady(60, 6),
    "120 fps": steady(120, 6),
    "200 fps": steady(200, 6),
    "about 30 fps": varying(30, 6),
    "about 90 fps": varying(90, 6),
}


@pytest.mark.parametrize("rate", TIMES)
@pytest.mark.parametrize("where", [BROWS_UP, SMILE], ids=["brows", "smile"])
def test_onset_apex_and_offset_are_located_at_every_frame_rate(crop: Crop, rate: str, where: F64) -> None:
    pulses = [Pulse(1.5, 1.7, 1.95, 2, where), Pulse(3.3, 3.8, 4.4, 3, where)]
    found = finals(spot(sequence(crop, TIMES[rate], pulses)))
    assert [span.kind for span in found] == ["micro", "macro"]
    for span, pulse in zip(found, pulses, strict=True):
        agree(span, pulse)
        assert not span.truncated


def test_a_provisional_span_comes_once_the_apex_is_known_and_the_final_one_keeps_its_ordinal(crop: Crop) -> None:
    pulses = [Pulse(1.5, 1.7, 1.95), Pulse(3.0, 3.4, 4.2, 2, SMILE)]
    spotter, reported = Spotter(), []
    for one in sequence(crop, steady(60, 6), pulses):
        reported += [(one.mark.t, span) for span in spotter.observe(one)]
    assert [(span.state, span.ordinal) for _, span in reported] == [
        ("provisional", 0),
        ("final", 0),
        ("provisional", 1),
        ("final", 1),
    ]
    for pulse, (early_t, early), (late_t, late) in zip(pulses, reported[::2], reported[1::2], strict=True):
        assert (early.offset, early.kind, early.truncated) == (None, None, False)
        assert pulse.apex < early_t < pulse.offset, "the apex is reported before the motion has ended"
        assert late_t < pulse.offset + 0.4
        assert early.apex == late.apex and early.onset == late.onset
        agree(late, pulse)


@pytest.mark.parametrize("fps", [25, 100, 200])
def test_the_pending_span_is_the_one_announced(crop: Crop, fps: float) -> None:
    crops, one = sequence(crop, steady(fps, 4), [Pulse(1.5, 1.7, 2.0)]), Spotter()
    before, reported = None, []
    for taken in crops:
        spans = one.observe(taken)
        if spans and not reported:
            assert before == (spans[0].onset, spans[0].apex)
        reported += spans
        before = one.pending()
        assert before is None or not reported, "what is announced is no longer pending"
    assert [span.state for span in reported] == ["provisional", "final"]
    assert reported == spot(crops)[:2], "`pending` changes nothing"
    one.finish()
    assert one.pending() is None


def test_nothing_is_pending_in_a_quiet_face(crop: Crop) -> None:
    one = Spotter()
    assert one.pending() is None
    for taken in sequence(crop, steady(30, 5), noise=0.1):
        one.observe(taken)
        assert one.pending() is None


@pytest.mark.parametrize("gap", [0.1, 0.2, 0.4, 1.0])
@pytest.mark.parametrize("second", [BROWS_UP, SMILE], ids=["same", "other"])
def test_two_motions_in_a_row_are_two_spans(crop: Crop, gap: float, second: F64) -> None:
    pulses = [Pulse(2.0, 2.2, 2.4), Pulse(2.4 + gap, 2.6 + gap, 2.8 + gap, 2, second)]
    found = finals(spot(sequence(crop, steady(60, 6), pulses)))
    for span, pulse in zip(found, pulses, strict=True):
        agree(span, pulse)


def test_a_step_that_stays_becomes_the_new_baseline(crop: Crop) -> None:
    step, later = Pulse(3.0, 3.3, 1e9, 2), Pulse(15.0, 15.2, 15.4, 2, SMILE)
    spotter = Spotter(SpotterSettings(longest_s=8))
    found = finals(spot(sequence(crop, steady(30, 18), [step, later]), spotter))
    agree(found[-1], later)
    assert len(found) <= 2, "one step is at most one event"
    assert all(span.offset is not None and span.offset.t < 11.5 for span in found[:-1])


@pytest.mark.parametrize("end", [1.78, 1.85])
def test_an_open_span_is_final_and_truncated_at_the_end(crop: Crop, end: float) -> None:
    t = steady(60, end)
    spotter = Spotter()
    (span,) = finals(spot(sequence(crop, t, [Pulse(1.5, 1.7, 2.2)]), spotter))
    assert span.truncated and span.offset == Mark(len(t) - 1, float(t[-1]))
    assert spotter.state is State.QUIET
    assert spotter.finish() == [], "it is reported once"


def test_a_gap_truncates_an_open_span(crop: Crop) -> None:
    t = np.concatenate([steady(60, 1.8), 1.8 + BREAK_S + steady(60, 3)])
    pulses = [Pulse(1.5, 1.7, 2.1), Pulse(3.5, 3.7, 3.9)]
    found = finals(spot(sequence(crop, t, pulses)))
    assert [span.truncated for span in found] == [True, False]
    assert found[0].offset == Mark(107, float(t[107]))
    agree(found[1], pulses[1])
    assert [span.ordinal for span in found] == [0, 1]


def test_a_short_dropout_is_bridged(crop: Crop) -> None:
    t = steady(60, 6)
    t, pulse = t[(t < 1.5) | (t > 1.5 + 0.8 * BREAK_S)], Pulse(1.4, 2.2, 3.4)
    (span,) = finals(spot(sequence(crop, t, [pulse])))
    assert not span.truncated and abs(span.apex.t - pulse.apex) <= TOLERANCE_S


def test_after_finish_ordinals_go_on_and_the_baseline_is_new(crop: Crop) -> None:
    spotter, pulse = Spotter(), Pulse(2.0, 2.2, 2.45)
    crops = sequence(crop, steady(60, 4), [pulse])
    again = [replace(one, motion=one.motion + np.float32(5)) for one in crops]
    found = finals(spot(crops, spotter) + spot(again, spotter))
    assert [span.ordinal for span in found] == [0, 1]
    for span in found:
        agree(span, pulse)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 299), max_size=4, unique=True))
def test_a_copy_of_a_spotter_goes_on_as_the_original(crop: Crop, cuts: list[int]) -> None:
    """At any moment; and two spotters share nothing."""
    crops = sequence(crop, steady(60, 5), [Pulse(1.5, 1.7, 1.95), Pulse(3.0, 3.4, 4.2, 2, SMILE)])
    whole = spot(crops)
    assert len(finals(whole)) == 2
    pieces: list[Span] = []
    spotter, other = Spotter(), Spotter()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(crops)], strict=True):
        spotter = copy.deepcopy(spotter)
        for one in crops[start:stop]:
            pieces += spotter.observe(one)
            other.observe(replace(one, motion=-3 * one.motion))
    assert pieces + spotter.finish() == whole


def documented_table() -> dict[tuple[State, Trigger], State]:
    """The table of the module's docstring."""
    table: dict[tuple[State, Trigger], State] = {}
    for line in (module.__doc__ or "").splitlines():
        words = line.replace("any open", "any_open").split()
        if len(words) < 4 or words[1] not in Trigger.__members__ or words[2] not in State.__members__:
            continue
        states = [State.RISING, State.FALLING] if words[0] == "any_open" else [State[words[0]]]
        table.update({(state, Trigger[words[1]]): State[words[2]] for state in states})
    return table


def test_the_documented_table_is_the_one_in_use() -> None:
    assert documented_table() == {key: state for key, (state, _) in TABLE.items()}


def test_every_state_is_reached_and_left() -> None:
    assert {state for state, _ in TABLE} == {state for state, _ in TABLE.values()} == set(State)
    assert {trigger for _, trigger in TABLE} == set(Trigger)


def test_every_action_of_the_table_is_a_method_and_none_is_unused() -> None:
    methods = dict(inspect.getmembers(Spotter, inspect.isfunction))
    actions = {name for name, method in methods.items() if [*inspect.signature(method).parameters] == ["self", "now"]}
    assert {action.__name__ for _, action in TABLE.values()} == actions
    assert all(methods[action.__name__] is action for _, action in TABLE.values())


def test_only_the_table_changes_the_state() -> None:
    tree = ast.parse(inspect.getsource(Spotter))
    movers = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for node in ast.walk(function):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
            if any(isinstance(part, ast.Attribute) and part.attr == "state" for t in targets for part in ast.walk(t)):
                movers.add(function.name)
    assert movers == {"__init__", "_fire"}


PLACES = {"brows": BROWS_UP, "smile": SMILE, "frown": -SMILE, "head": WHOLE_HEAD}


SEGMENTS = st.lists(
    st.tuples(
        st.sampled_from(["quiet", "pulse", "step", "shake", "dropout", "blink", "end"]),
        st.floats(0.05, 1.5),
        st.floats(0.1, 8.0),
        st.sampled_from(["brows", "smile", "frown", "head"]),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=25, deadline=None)
@given(SEGMENTS, st.sampled_from([12.0, 30.0, 100.0]), st.integers(0, 2**31))
def test_any_sequence_keeps_to_the_table_and_gives_ordered_spans(
    crop: Crop, segments: list[tuple[str, float, float, str]], fps: float, seed: int
) -> None:
    """Any mixture of motions, dropouts and ends: never an unknown (state, trigger), and spans in order."""
    rng = np.random.default_rng(seed)
    spotter = Spotter(SpotterSettings(longest_s=2.0))
    reported: list[Span] = []
    t, number, at = 0.0, 0, np.zeros_like(WHOLE_HEAD)
    for what, seconds, px, place in segments:
        where = PLACES[place]
        if what == "end":
            reported += spotter.finish()
        t += seconds if what == "dropout" else 0.0
        count = max(2, round(seconds * fps))
        for k in range(count):
            push = {"pulse": px * np.sin(np.pi * k / count) * where, "step": px * (k + 1) / count * where}.get(what, 0.0)
            shake = px * rng.normal(0, 1, at.shape) if what == "shake" else 0.0
            t, number = t + 1 / fps, number + 1
            motion = (at + push + shake + rng.normal(0, 0.02, at.shape)).astype(np.float32)
            opening = 0.05 if what == "blink" else 0.3
            reported += spotter.observe(
                replace(crop, mark=Mark(number, t), motion=motion, turn=np.zeros_like(crop.turn), eye_opening=opening)
            )
        at = at + (px * where if what == "step" else 0.0)
    reported += spotter.finish()
    check_order(reported)
    assert spotter.state is State.QUIET


def check_order(reported: list[Span]) -> None:
    """Ordinals rise, each ends exactly once, and no two spans overlap."""
    ended: list[Span] = []
    for span in reported:
        assert not any(span.ordinal <= old.ordinal for old in ended), "an ordinal was used again after its final span"
        assert span.onset.t < span.apex.t or span.onset == span.apex
        if span.state == "final":
            assert span.offset is not None and span.onset.t < span.offset.t and span.apex.t <= span.offset.t
            ended.append(span)
        else:
            assert span.offset is None and not span.truncated
    assert {span.ordinal for span in reported} == {span.ordinal for span in ended}, "an announced span was never ended"
    for before, after in pairwise(ended):
        assert before.offset is not None and before.offset.t <= after.onset.t, f"{before} and {after} overlap"
