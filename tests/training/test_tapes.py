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
from training.judge import Known
from training.tapes import Tape, read_tapes, rows_of, running_mean, tape_of_flow, write_tapes

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
    tape = tape_of_flow(video)
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
        tape_of_flow(video)


def test_a_running_mean_follows_a_step() -> None:
    values = np.concatenate([np.zeros((1, 1)), np.ones((60, 1))])
    assert running_mean(values, 1.0)[30, 0] == pytest.approx(1 - np.exp(-1))
    two = running_mean(np.repeat(values, 2, 1), np.array([1.0, 0.25]))
    assert np.allclose(two, np.concatenate([running_mean(values, 1.0), running_mean(values, 0.25)], 1))


def test_tapes_are_read_as_written(tmp_path: Path) -> None:
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


def test_a_broken_or_missing_file_is_an_input_error(tmp_path: Path) -> None:
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
