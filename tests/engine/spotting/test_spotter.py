from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import SpotterSettings
from engine.faces.landmarks import FaceLocator
from engine.registration.align import REGION_NAMES, Registrar
from engine.spotting import spotter
from engine.spotting.spotter import BREAK_S, TABLE, Meets, Spotter, State
from engine.types import F64, Crop, Frame, Mark, Span
from tests.faces import photo

TOLERANCE_S = 0.06
Lids = Callable[[float], float]


@pytest.fixture(scope="module")
def crop() -> Crop:
    """A real crop of a face at rest; the tests move it by hand."""
    locator, frame = FaceLocator(), Frame(0, 0.0, photo("hopper"))
    made = Registrar().register(frame, locator.locate(frame)[0])
    locator.close()
    assert made is not None
    return made


def pattern(**regions: tuple[float, float]) -> F64:
    """[R, 2] of which regions move, and where to."""
    motion = np.zeros((len(REGION_NAMES), 2))
    for name, step in regions.items():
        motion[REGION_NAMES.index(name)] = step
    return motion


BROWS_UP = pattern(
    brow_outer_left=(0, -0.8),
    brow_inner_left=(0, -1),
    glabella=(0, -0.4),
    brow_inner_right=(0, -1),
    brow_outer_right=(0, -0.8),
    forehead=(0, -0.3),
)
SMILE = pattern(
    lip_corner_left=(-0.8, -0.6),
    lip_corner_right=(0.8, -0.6),
    cheek_left=(-0.1, -0.5),
    cheek_right=(0.1, -0.5),
    upper_lip=(0, -0.2),
    nose_left=(-0.1, -0.2),
    nose_right=(0.1, -0.2),
)
WHOLE_HEAD = np.ones((len(REGION_NAMES), 2))


@dataclass(frozen=True)
class Pulse:
    """One motion: raised cosines up and down; where it never comes down, offset is far away."""

    onset: float
    apex: float
    offset: float
    px: float = 2.0
    where: F64 = None  # type: ignore[assignment]

    def at(self, t: F64) -> F64:
        """[N, R, 2] displacement at times t."""
        rise, fall = (t - self.onset) / (self.apex - self.onset), (self.offset - t) / (self.offset - self.apex)
        height = (1 - np.cos(np.pi * np.clip(np.where(t < self.apex, rise, fall), 0, 1))) / 2
        where = BROWS_UP if self.where is None else self.where
        return np.asarray(self.px * height[:, None, None] * where)


def sequence(
    crop: Crop, t: F64, pulses: Iterable[Pulse] = (), *, noise: float | F64 = 0.02, seed: int = 0, lids: Lids | None = None
) -> list[Crop]:
    """Crops at times t: the pulses' motion and white noise (pixels, one number or one a crop) in every region."""
    motion = np.random.default_rng(seed).normal(0, 1, (len(t), *WHOLE_HEAD.shape)) * np.reshape(noise, (-1, 1, 1))
    for pulse in pulses:
        motion = motion + pulse.at(t)
    return [
        replace(
            crop,
            mark=Mark(k, float(t[k])),
            motion=motion[k].astype(np.float32),
            turn=np.zeros_like(crop.turn),
            eye_opening=lids(float(t[k])) if lids else 0.3,
        )
        for k in range(len(t))
    ]


def spot(crops: Iterable[Crop], one: Spotter | None = None) -> list[Span]:
    """All spans, the end of the source included."""
    watch = one or Spotter()
    return [span for crop in crops for span in watch.observe(crop)] + watch.finish()


def finals(spans: Iterable[Span]) -> list[Span]:
    return [span for span in spans if span.state == "final"]


def agree(span: Span, pulse: Pulse) -> None:
    """Each moment within 60 ms; on a slow flank within a fifth of it, where a raised cosine is under a tenth of its height."""
    assert span.offset is not None
    rise, fall = pulse.apex - pulse.onset, pulse.offset - pulse.apex
    for name, flank in (("onset", rise), ("apex", 0.0), ("offset", fall)):
        seen, true = getattr(span, name).t, getattr(pulse, name)
        assert abs(seen - true) <= max(TOLERANCE_S, 0.2 * flank), f"{name} at {seen:.3f} s instead of {true} s"


def steady(fps: float, seconds: float) -> F64:
    return np.arange(round(seconds * fps)) / fps


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
def test_onset_apex_and_offset_are_where_they_are_at_every_rate(crop: Crop, rate: str, where: F64) -> None:
    pulses = [Pulse(1.5, 1.7, 1.95, 2, where), Pulse(3.3, 3.8, 4.4, 3, where)]
    found = finals(spot(sequence(crop, TIMES[rate], pulses)))
    assert [span.kind for span in found] == ["micro", "macro"]
    for span, pulse in zip(found, pulses, strict=True):
        agree(span, pulse)
        assert not span.truncated


@pytest.mark.parametrize(("length", "kind"), [(0.2, "micro"), (0.3, "micro"), (0.43, "micro"), (0.65, "macro"), (1.2, "macro")])
@pytest.mark.parametrize("px", [0.8, 2.0, 4.0])
def test_half_a_second_divides_micro_from_macro(crop: Crop, length: float, kind: str, px: float) -> None:
    pulse = Pulse(2.0, 2.0 + 0.45 * length, 2.0 + length, px, SMILE)
    (span,) = finals(spot(sequence(crop, steady(60, 5), [pulse])))
    assert span.kind == kind
    agree(span, pulse)


def test_a_provisional_span_comes_as_soon_as_the_apex_is_sure_and_the_final_one_keeps_its_number(crop: Crop) -> None:
    pulses = [Pulse(1.5, 1.7, 1.95), Pulse(3.0, 3.4, 4.2, 2, SMILE)]
    watch, told = Spotter(), []
    for one in sequence(crop, steady(60, 6), pulses):
        told += [(one.mark.t, span) for span in watch.observe(one)]
    assert [(span.state, span.ordinal) for _, span in told] == [
        ("provisional", 0),
        ("final", 0),
        ("provisional", 1),
        ("final", 1),
    ]
    for pulse, (early_t, early), (late_t, late) in zip(pulses, told[::2], told[1::2], strict=True):
        assert (early.offset, early.kind, early.truncated) == (None, None, False)
        assert pulse.apex < early_t < pulse.offset, "the apex is told before the motion has ended"
        assert late_t < pulse.offset + 0.4
        assert early.apex == late.apex and early.onset == late.onset
        agree(late, pulse)


@pytest.mark.parametrize("fps", [25, 100, 200])
def test_what_is_foreseen_is_what_is_announced(crop: Crop, fps: float) -> None:
    crops, one = sequence(crop, steady(fps, 4), [Pulse(1.5, 1.7, 2.0)]), Spotter()
    before, told = None, []
    for taken in crops:
        spans = one.observe(taken)
        if spans and not told:
            assert before == (spans[0].onset, spans[0].apex)
        told += spans
        before = one.foreseen()
        assert before is None or not told, "what is announced is not foreseen any more"
    assert [span.state for span in told] == ["provisional", "final"]
    assert told == spot(crops)[:2], "asking changes nothing"
    one.finish()
    assert one.foreseen() is None


def test_what_was_foreseen_is_not_fitted_again_where_the_apex_is_decided(crop: Crop, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    fit = spotter.foot
    monkeypatch.setattr(spotter, "foot", lambda t, curve: [fitted.append(len(t)), fit(t, curve)][1])
    one, asked, told = Spotter(), 0, []
    for taken in sequence(crop, steady(60, 4), [Pulse(1.5, 1.7, 2.0)]):
        before = len(fitted)
        spans = one.observe(taken)
        told += [(span.state, len(fitted) - before) for span in spans]
        asked += one.foreseen() is not None
    assert asked > 1
    assert told == [("provisional", 0), ("final", 1)], "the offset alone is new"
    assert len(fitted) <= asked + 1, "a peak that rises no more is not fitted twice"


def test_nothing_is_foreseen_of_a_face_at_rest(crop: Crop) -> None:
    one = Spotter()
    assert one.foreseen() is None
    for taken in sequence(crop, steady(30, 5), noise=0.1):
        one.observe(taken)
        assert one.foreseen() is None


def test_the_apex_is_the_highest_of_two_summits(crop: Crop) -> None:
    pulses = [Pulse(2.0, 2.2, 3.0, 2), Pulse(2.25, 2.6, 3.0, 2.2)]
    height = sum(float(np.abs(pulse.at(np.array([2.6]))).max()) for pulse in pulses)
    assert height > 2.2
    (span,) = finals(spot(sequence(crop, steady(60, 5), pulses)))
    assert abs(span.apex.t - 2.6) <= TOLERANCE_S


@pytest.mark.parametrize("gap", [0.1, 0.2, 0.4, 1.0])
@pytest.mark.parametrize("second", [BROWS_UP, SMILE], ids=["same", "other"])
def test_two_motions_in_a_row_are_two_spans(crop: Crop, gap: float, second: F64) -> None:
    pulses = [Pulse(2.0, 2.2, 2.4), Pulse(2.4 + gap, 2.6 + gap, 2.8 + gap, 2, second)]
    found = finals(spot(sequence(crop, steady(60, 6), pulses)))
    for span, pulse in zip(found, pulses, strict=True):
        agree(span, pulse)


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.06, 0.12])
@pytest.mark.parametrize("seed", range(3))
def test_noise_is_no_event_and_hides_none(crop: Crop, noise: float, seed: int) -> None:
    """White noise in pixels of the crop; the registration of a camera with 2 grey levels of noise leaves 0.01."""
    t, pulse = steady(30, 10), Pulse(6.0, 6.2, 6.45, 2.5)
    assert spot(sequence(crop, t, noise=noise, seed=seed)) == []
    (span,) = finals(spot(sequence(crop, t, [pulse], noise=noise, seed=seed)))
    agree(span, pulse)


@pytest.mark.parametrize("seed", range(3))
def test_a_camera_that_turns_four_times_as_noisy_raises_no_event(crop: Crop, seed: int) -> None:
    t = steady(30, 20)
    assert spot(sequence(crop, t, noise=np.where(t < 8, 0.02, 0.08), seed=seed)) == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_really_noisy_camera_raises_its_own_thresholds(crop: Crop, seed: int) -> None:
    """Noise above the first threshold keeps the machine from ever resting; it must learn all the same."""
    t = np.arange(0, 12, 1 / 30)
    assert len(finals(spot(sequence(crop, t, noise=0.2, seed=seed)))) <= 1


@pytest.mark.parametrize("length", [0.4, 3.0, 12.0])
def test_what_all_regions_do_alike_is_the_head(crop: Crop, length: float) -> None:
    pulse = Pulse(3.0, 3.0 + length / 2, 3.0 + length, 2.0, WHOLE_HEAD)
    assert finals(spot(sequence(crop, steady(30, 16), [pulse]))) == []


def test_a_face_that_slowly_settles_elsewhere_has_done_nothing(crop: Crop) -> None:
    assert finals(spot(sequence(crop, steady(30, 20), [Pulse(2.0, 18.0, 1e9, 3)]))) == []


@pytest.mark.parametrize("fps", [30, 120])
def test_an_event_is_found_on_top_of_a_drift(crop: Crop, fps: float) -> None:
    pulse = Pulse(7.0, 7.2, 7.4, 2)
    (span,) = finals(spot(sequence(crop, steady(fps, 12), [Pulse(1, 6, 12, 1.5, WHOLE_HEAD), pulse])))
    agree(span, pulse)


def test_a_step_that_stays_becomes_the_new_neutral(crop: Crop) -> None:
    step, later = Pulse(3.0, 3.3, 1e9, 2), Pulse(15.0, 15.2, 15.4, 2, SMILE)
    watch = Spotter(SpotterSettings(longest_s=8))
    found = finals(spot(sequence(crop, steady(30, 18), [step, later]), watch))
    agree(found[-1], later)
    assert len(found) <= 2, "one step is at most one event"
    assert all(span.offset is not None and span.offset.t < 11.5 for span in found[:-1])


def lids_of(closed: float, fall: float = 0.08, rise: float = 0.17) -> Lids:
    """Eyes open to 0.3 but for one blink whose lids are down at `closed`."""

    def opening(t: float) -> float:
        down = 1 - (closed - t) / fall if t < closed else 1 - (t - closed) / rise
        return 0.3 * (1 - 0.8 * min(max(down, 0.0), 1.0))

    return opening


@pytest.mark.parametrize("fps", [30, 60, 120])
@pytest.mark.parametrize("px", [0.0, 0.3, 0.6])
def test_a_blink_is_not_reported(crop: Crop, fps: float, px: float) -> None:
    """Lids pull the brows along; the same motion under open eyes is an expression (the last line), so the lids decide."""
    t, with_brows = steady(fps, 8), [Pulse(4.0, 4.08, 4.25, px, -BROWS_UP)]
    watch = Spotter()
    assert spot(sequence(crop, t, with_brows, lids=lids_of(4.08)), watch) == []
    watch = Spotter()
    assert len(finals(spot(sequence(crop, t, with_brows), watch))) == (px > 0.5)


def test_an_expression_with_a_blink_in_it_is_still_one(crop: Crop) -> None:
    pulse, watch = Pulse(4.0, 4.2, 4.45, 2.5, SMILE), Spotter()
    (span,) = finals(spot(sequence(crop, steady(60, 8), [pulse], lids=lids_of(4.2)), watch))
    agree(span, pulse)


@pytest.mark.parametrize("end", [1.78, 1.85])
def test_what_is_open_at_the_end_is_final_and_truncated(crop: Crop, end: float) -> None:
    t = steady(60, end)
    watch = Spotter()
    (span,) = finals(spot(sequence(crop, t, [Pulse(1.5, 1.7, 2.2)]), watch))
    assert span.truncated and span.offset == Mark(len(t) - 1, float(t[-1]))
    assert watch.state is State.QUIET
    assert watch.finish() == [], "it is told once"


def test_a_gap_ends_what_is_open_and_nothing_bridges_it(crop: Crop) -> None:
    t = np.concatenate([steady(60, 1.8), 1.8 + BREAK_S + steady(60, 3)])
    pulses = [Pulse(1.5, 1.7, 2.1), Pulse(3.5, 3.7, 3.9)]
    found = finals(spot(sequence(crop, t, pulses)))
    assert [span.truncated for span in found] == [True, False]
    assert found[0].offset == Mark(107, float(t[107]))
    agree(found[1], pulses[1])
    assert [span.ordinal for span in found] == [0, 1]


def test_a_hole_shorter_than_a_gap_is_bridged(crop: Crop) -> None:
    t = steady(60, 6)
    t, pulse = t[(t < 1.5) | (t > 1.5 + 0.8 * BREAK_S)], Pulse(1.4, 2.2, 3.4)
    (span,) = finals(spot(sequence(crop, t, [pulse])))
    assert not span.truncated and abs(span.apex.t - pulse.apex) <= TOLERANCE_S


def test_a_time_from_which_the_source_starts_again_is_learned_afresh(crop: Crop) -> None:
    """After `finish` the same spotter watches on; ordinals go on, nothing of before is used."""
    watch, pulse = Spotter(), Pulse(2.0, 2.2, 2.45)
    crops = sequence(crop, steady(60, 4), [pulse])
    again = [replace(one, motion=one.motion + np.float32(5)) for one in crops]
    found = finals(spot(crops, watch) + spot(again, watch))
    assert [span.ordinal for span in found] == [0, 1]
    for span in found:
        agree(span, pulse)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 299), max_size=4, unique=True))
def test_where_the_stream_is_cut_into_pieces_does_not_matter(crop: Crop, cuts: list[int]) -> None:
    """A copy taken at any moment goes on as the original would, and two spotters share nothing."""
    crops = sequence(crop, steady(60, 5), [Pulse(1.5, 1.7, 1.95), Pulse(3.0, 3.4, 4.2, 2, SMILE)])
    whole = spot(crops)
    assert len(finals(whole)) == 2
    pieces: list[Span] = []
    watch, other = Spotter(), Spotter()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(crops)], strict=True):
        watch = copy.deepcopy(watch)
        for one in crops[start:stop]:
            pieces += watch.observe(one)
            other.observe(replace(one, motion=-3 * one.motion))
    assert pieces + watch.finish() == whole


def test_one_spotter_over_a_long_time_forgets_and_stays_right(crop: Crop) -> None:
    starts = np.arange(2.0, 118.0, 4.0)
    pulses = [Pulse(s, s + 0.2, s + 0.45, 2, where) for s, where in zip(starts, [BROWS_UP, SMILE] * 20, strict=False)]
    found = finals(spot(sequence(crop, steady(60, 120), pulses)))
    assert [span.ordinal for span in found] == list(range(len(pulses)))
    for span, pulse in zip(found, pulses, strict=True):
        agree(span, pulse)


# --- the machine ---------------------------------------------------------------------------------------------------------


def drawn() -> dict[tuple[State, Meets], State]:
    """The table as the module's docstring draws it."""
    table: dict[tuple[State, Meets], State] = {}
    for line in (spotter.__doc__ or "").splitlines():
        words = line.replace("any open", "any_open").split()
        if len(words) < 4 or words[1] not in Meets.__members__ or words[2] not in State.__members__:
            continue
        states = [State.RISING, State.FALLING] if words[0] == "any_open" else [State[words[0]]]
        table.update({(state, Meets[words[1]]): State[words[2]] for state in states})
    return table


def test_the_table_drawn_is_the_table_that_runs() -> None:
    assert drawn() == {key: state for key, (state, _) in TABLE.items()}


def test_every_action_of_the_table_exists_and_no_other() -> None:
    assert {action for _, action in TABLE.values()} == set(Spotter()._actions)


def test_every_state_is_reached_and_left() -> None:
    assert {state for state, _ in TABLE} == {state for state, _ in TABLE.values()} == set(State)
    assert {met for _, met in TABLE} == set(Meets)


def test_nothing_but_the_table_moves_the_state() -> None:
    tree = ast.parse(inspect.getsource(Spotter))
    movers = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for node in ast.walk(function):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
            if any(isinstance(part, ast.Attribute) and part.attr == "_state" for t in targets for part in ast.walk(t)):
                movers.add(function.name)
    assert movers == {"__init__", "_meet"}


PLACES = {"brows": BROWS_UP, "smile": SMILE, "frown": -SMILE, "head": WHOLE_HEAD}
STRETCHES = st.lists(
    st.tuples(
        st.sampled_from(["rest", "pulse", "step", "shake", "hole", "blink", "end"]),
        st.floats(0.05, 1.5),
        st.floats(0.1, 8.0),
        st.sampled_from(["brows", "smile", "frown", "head"]),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=25, deadline=None)
@given(STRETCHES, st.sampled_from([12.0, 30.0, 100.0]), st.integers(0, 2**31))
def test_whatever_comes_the_table_is_closed_and_the_spans_are_sane(
    crop: Crop, stretches: list[tuple[str, float, float, str]], fps: float, seed: int
) -> None:
    """Any mixture of motions, holes and ends: never an unknown (state, meets), and what is told is in order."""
    rng = np.random.default_rng(seed)
    watch = Spotter(SpotterSettings(longest_s=2.0))
    told: list[Span] = []
    t, number, at = 0.0, 0, np.zeros_like(WHOLE_HEAD)
    for what, seconds, px, place in stretches:
        where = PLACES[place]
        if what == "end":
            told += watch.finish()
        t += seconds if what == "hole" else 0.0
        count = max(2, round(seconds * fps))
        for k in range(count):
            push = {"pulse": px * np.sin(np.pi * k / count) * where, "step": px * (k + 1) / count * where}.get(what, 0.0)
            shake = px * rng.normal(0, 1, at.shape) if what == "shake" else 0.0
            t, number = t + 1 / fps, number + 1
            motion = (at + push + shake + rng.normal(0, 0.02, at.shape)).astype(np.float32)
            opening = 0.05 if what == "blink" else 0.3
            told += watch.observe(
                replace(crop, mark=Mark(number, t), motion=motion, turn=np.zeros_like(crop.turn), eye_opening=opening)
            )
        at = at + (px * where if what == "step" else 0.0)
    told += watch.finish()
    check_order(told)
    assert watch.state is State.QUIET


def check_order(told: list[Span]) -> None:
    """Numbers rise, each ends exactly once, and no two spans overlap."""
    ended: list[Span] = []
    for span in told:
        assert not any(span.ordinal <= old.ordinal for old in ended), "a number came again after its final span"
        assert span.onset.t < span.apex.t or span.onset == span.apex
        if span.state == "final":
            assert span.offset is not None and span.onset.t < span.offset.t and span.apex.t <= span.offset.t
            ended.append(span)
        else:
            assert span.offset is None and not span.truncated
    assert {span.ordinal for span in told} == {span.ordinal for span in ended}, "what was announced was never ended"
    for before, after in pairwise(ended):
        assert before.offset is not None and before.offset.t <= after.onset.t, f"{before} and {after} overlap"
