from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.spotting.features import FLOW_WIDTH, HZ, MESH_FEATURES, REGIONS
from engine.types import F32
from training.datasets.long_tables import Annotation
from training.datasets.long_video import LongVideo
from training.datasets.pictures import ClipFolder
from training.judge import WINDOW, Known
from training.tapes import (
    MACRO_PX,
    MICRO_LENGTH_S,
    LiveTapes,
    LongVideos,
    Mixed,
    Tape,
    added,
    course,
    expressions,
    of_flow,
    read_tapes,
    rows_of,
    running_mean,
    write_tapes,
)

STILL: F32 = np.zeros((900, 2 * len(REGIONS)), np.float32)
MESH: F32 = np.zeros((900, len(MESH_FEATURES)), np.float32)


def moving(fps: float, *truth: Annotation) -> LongVideo:
    """Both mouth corners go 3 px aside over half a second from second 4 on, and stay."""
    motion = np.zeros((round(20 * fps), 12, 2), np.float32)
    motion[round(4 * fps) + 1 : round(4.5 * fps) + 1, [8, 10], 0] = 6 / fps
    return LongVideo("samm-lv", "006", "006_1", fps, motion, truth)


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_region_flow_becomes_displacement_at_thirty_rows_a_second(fps: float) -> None:
    video = moving(fps, Annotation(50, None, 59, "micro"), Annotation(100, None, 149, "macro"))
    tape = of_flow(video)
    corner = tape.displacement[:, 2 * REGIONS.index("lip_corner_left")]
    assert len(tape.displacement) == pytest.approx(20 * HZ, abs=2) and tape.mesh is None
    assert (tape.name, tape.person, tape.kind) == ("006_1", "006", "flow")
    assert corner[round(3.9 * HZ)] == 0 and corner[round(4.3 * HZ)] == pytest.approx(1.8, abs=0.15)
    assert np.allclose(corner[round(4.6 * HZ) :], 3.0, atol=0.25)
    assert not tape.displacement[:, 2 * REGIONS.index("nose")].any()
    one, other = tape.known
    assert (one.onset, one.offset) == pytest.approx((50 * HZ / fps, 60 * HZ / fps - 1)) and one.micro and not other.micro


def test_pictures_are_no_flow() -> None:
    video = LongVideo("samm-lv", "006", "006_1", 200.0, ClipFolder(Path(), False, False), ())
    with pytest.raises(InputError, match="006_1 holds pictures; region flow is needed"):
        of_flow(video)


def test_a_running_mean_follows_a_step() -> None:
    values = np.concatenate([np.zeros((1, 1)), np.ones((60, 1))])
    assert running_mean(values, 1.0)[30, 0] == pytest.approx(1 - np.exp(-1))
    two = running_mean(np.repeat(values, 2, 1), np.array([1.0, 0.25]))
    assert np.allclose(two, np.concatenate([running_mean(values, 1.0), running_mean(values, 0.25)], 1))


@pytest.mark.parametrize("kind", ["speech", "quiet"])
def test_added_expressions_lie_where_they_are_known(kind: str) -> None:
    rng = np.random.default_rng(4)
    tape = added(Tape("a", "p", kind, STILL, MESH), 1.0, rng)
    assert len(tape.known) > 5 and not STILL.any()
    inside = np.zeros(len(STILL), bool)
    for one in tape.known:
        first, last = int(one.onset), int(one.offset)
        part = np.abs(tape.displacement[first : last + 1])
        assert 0.2 < part.max() < 3 * MACRO_PX[1]
        assert one.micro == ((one.offset - one.onset) / HZ <= 0.5 + 1e-6)
        inside[first : last + 1] = True
    assert not tape.displacement[~inside].any()
    assert added(Tape("a", "p", kind, STILL), 0.0, rng).known == ()


def test_a_course_goes_up_and_comes_down() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        micro = course(True, rng)
        assert micro[0] == 0 and micro[-1] < 0.05 and 0.6 < micro.max() <= 1
        assert MICRO_LENGTH_S[0] <= (len(micro) - 1) / HZ <= MICRO_LENGTH_S[1] + 1 / HZ + 1e-9
        assert course(False, rng)[-1] < 0.05


def test_real_expressions_are_cut_out_from_rest_to_rest_and_added() -> None:
    place = STILL.copy()
    place[100:120, 3] = 5 * np.sin(np.linspace(0, np.pi, 20))
    place[:, 7] = np.linspace(0, 30, 900)  # what drifts meanwhile is taken out
    source = Tape("a", "p", "flow", place, None, (Known(100, 119, True), Known(890, 899, True)))
    (motion,) = expressions([source])
    assert motion.shape == (25, 20) and motion[:, 3].max() == pytest.approx(5, abs=0.1)
    assert np.abs(motion[:, 7]).max() < 1e-3 and not motion[[0, -1]].round(3).any()
    tape = added(Tape("b", "q", "quiet", STILL), 1.0, np.random.default_rng(0), [motion])
    assert any(round(one.offset - one.onset) == 24 for one in tape.known)


def test_draws_fill_windows_with_what_is_known() -> None:
    long = Tape("a", "p", "flow", STILL, None, (Known(500, 530, False),))
    short = Tape("b", "q", "quiet", STILL[:200], MESH[:200])
    rng = np.random.default_rng(0)
    flow = [LongVideos([long, short])(rng) for _ in range(40)]
    assert {len(one.rows) for one in flow} == {WINDOW, 200}
    assert sum(bool(one.answers[:, 0].any()) for one in flow) > 15
    live = [LiveTapes([short], [], quiet=3.0)(rng) for _ in range(40)]
    assert all(30 <= len(one.rows) <= WINDOW for one in live) and any(one.answers[:, 0].any() for one in live)
    assert 0 < sum(not one.rows[:, FLOW_WIDTH:].any() for one in live) < 20
    mixed = [Mixed([(LongVideos([long]), 1.0), (LiveTapes([short], []), 1.0)])(rng) for _ in range(30)]
    assert {len(one.rows) for one in mixed} > {WINDOW}


def test_tapes_come_back_from_their_file(tmp_path: Path) -> None:
    tapes = [
        Tape("a.mp4", "p", "speech", STILL[:50] + 1, MESH[:50], (Known(3.5, 9, True),)),
        Tape("b", "q", "flow", STILL[:40]),
    ]
    path = tmp_path / "tapes.npz"
    write_tapes(path, tapes)
    back = list(read_tapes(path))
    assert [(one.name, one.person, one.kind, one.known) for one in back] == [
        ("a.mp4", "p", "speech", (Known(3.5, 9.0, True),)),
        ("b", "q", "flow", ()),
    ]
    assert np.array_equal(back[0].displacement, tapes[0].displacement)
    assert back[0].mesh is not None and back[0].mesh.shape == (50, 7) and back[1].mesh is None


def test_a_file_that_holds_no_tapes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.npz"
    write_tapes(path, [Tape("a", "p", "flow", STILL)])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"broken\.npz holds no tapes"):
        list(read_tapes(path))
    with pytest.raises(InputError, match=r"absent\.npz holds no tapes"):
        list(read_tapes(tmp_path / "absent.npz"))


def test_rows_of_a_still_face_are_quiet() -> None:
    rows = rows_of(STILL, None)
    assert not rows[:, : FLOW_WIDTH - len(REGIONS)].any() and np.ptp(rows[:, FLOW_WIDTH - len(REGIONS) : FLOW_WIDTH]) == 0
