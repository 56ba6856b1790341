from __future__ import annotations

import ast
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest

import engine
from apexstream.clips.spec import Action
from engine.errors import InputError
from engine.geometry import CANONICAL_KEYPOINTS, keypoints_to_map
from engine.pipeline import APEX_REACH_S, ONSET_REACH_S
from engine.recognition.flowmap import face_flow, whole_map
from engine.types import F32, Frame
from tests.databases import Shot, face_part, shot, write_picture, write_shot
from tests.faces import grey_picture, registered
from training.datasets import flow as flow_module
from training.datasets.clips import Clip
from training.datasets.flow import ClipFlow, FlowMaker, deciding_files, looked_at
from training.datasets.pictures import ClipFolder

ENGINE = Path(str(engine.__file__)).parent
EYE, NOSE, LEFT_LIP, RIGHT_LIP = 0, 2, 3, 4


def clip_of(taken: Shot) -> Clip:
    frames = (taken.onset, taken.apex, taken.offset)
    return Clip("samm", "samm/006", "006_1_2", *frames, 1, "happiness", "12", taken.fps, ("006_1_2",))


@lru_cache(maxsize=1)
def maker() -> FlowMaker:
    return FlowMaker()


def made(folder: Path, taken: Shot, *, cropped: bool = False) -> ClipFlow:
    return maker().make(clip_of(taken), ClipFolder(folder, cropped, False))


def at(flow: ClipFlow, channel: int, keypoint: int, *, up: float = 0.0) -> float:
    """A channel of the map near a keypoint, less what it is in the middle of all cells, where nothing moves."""
    x, y = (flow.keypoints[keypoint] - (0, up)).round().astype(int)
    channels = flow.whole[channel]
    return float(channels[y - 1 : y + 2, x - 1 : x + 2].mean() - np.median(channels))


@pytest.mark.parametrize("fps", [30.0, 200.0])
def test_a_smile_pulls_the_lip_corners_up_and_out(fps: float, tmp_path: Path) -> None:
    taken = shot("smile", fps)
    flow = made(write_shot(tmp_path / "clip", taken, "img{}.jpg"), taken)
    assert at(flow, 0, LEFT_LIP) < -0.3 and at(flow, 0, RIGHT_LIP) > 0.3
    assert max(at(flow, 1, LEFT_LIP), at(flow, 1, RIGHT_LIP)) < -0.5
    assert abs(at(flow, 1, NOSE)) < 0.15 and abs(at(flow, 1, EYE, up=3)) < 0.15
    assert flow.sure and flow.px > 0.5
    assert (flow.onset, flow.apex, flow.offset) == (taken.onset, taken.apex, taken.offset)


@pytest.mark.parametrize(("action", "sign"), [("brow_raise", -1), ("brow_lower", 1)])
def test_brows_go_where_they_go(action: Action, sign: int, tmp_path: Path) -> None:
    taken = shot(action)
    flow = made(write_shot(tmp_path / "clip", taken), taken)
    assert sign * at(flow, 1, EYE, up=3) > 0.4 and abs(at(flow, 1, LEFT_LIP)) < 0.15


def test_the_face_is_framed_as_the_published_maps_are(tmp_path: Path) -> None:
    taken = shot("smile")
    flow = made(write_shot(tmp_path / "clip", taken), taken)
    assert flow.whole.shape == (3, 28, 28) and flow.whole.dtype == np.float32
    assert np.abs(flow.keypoints - CANONICAL_KEYPOINTS).max() < 1.5  # measured 0.9: faces differ


def test_the_map_is_that_of_live_analysis(tmp_path: Path) -> None:
    """A camera that ran long before the onset registers to an earlier picture; the map is nevertheless the same."""
    taken = shot("smile", 100.0)
    flow = made(write_shot(tmp_path / "clip", taken, "{}.png"), taken)
    numbers = range(taken.onset - 100, taken.apex + 8)
    crops = [crop for crop, _ in registered(Frame(n, n / taken.fps, taken.picture(n)) for n in numbers)]
    onset = [c for c in crops if -ONSET_REACH_S - 1e-6 <= c.mark.t - taken.onset / taken.fps <= 1e-6]
    apex = [c for c in crops if abs(c.mark.t - taken.apex / taken.fps) <= APEX_REACH_S + 1e-6]
    live, points, _ = face_flow(onset, apex, backend="cpu")
    for channel in (0, 1):
        assert correlation(whole_map(live)[channel], flow.whole[channel]) > 0.97
    assert np.abs(keypoints_to_map(points) - flow.keypoints).max() < 0.5


def correlation(a: F32, b: F32) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_a_clip_says_the_same_whatever_came_before_it(tmp_path: Path) -> None:
    taken = shot("smile")
    folder = write_shot(tmp_path / "clip", taken)
    other = shot("brow_raise", 30.0, "astronaut")
    late = write_shot(tmp_path / "late", other)
    alone = made(folder, taken)
    made(late, other)
    again = made(folder, taken)
    assert np.array_equal(again.whole, alone.whole) and np.array_equal(again.keypoints, alone.keypoints)


@pytest.mark.parametrize(("alike", "one_reference", "sure"), [(0.81, True, True), (0.79, True, False), (0.95, False, False)])
def test_a_flow_is_sure_where_live_analysis_would_name_it(alike: float, one_reference: bool, sure: bool) -> None:
    whole = np.zeros((3, 28, 28), np.float32)
    assert ClipFlow(whole, CANONICAL_KEYPOINTS, alike, one_reference, 1.0, 1, 2, 3, "").sure == sure


def test_an_apex_close_to_the_onset_keeps_its_motion(tmp_path: Path) -> None:
    """Two of the real clips have their apex one and five pictures after the onset, where resting pictures are within reach."""
    taken = shot("smile", 200.0)
    rest, smile = taken.picture(taken.onset), taken.picture(taken.apex)
    for number in range(taken.onset - 14, taken.onset + 16):
        write_picture(tmp_path / f"{number}.jpg", rest if number <= taken.onset else smile)
    px = [
        maker().make(replace(clip_of(taken), apex=taken.onset + after), ClipFolder(tmp_path, False, False)).px
        for after in (1, 5, 10)
    ]
    assert px == pytest.approx([px[2]] * 3, rel=0.02)


def test_what_is_looked_at_is_told_by_names_sizes_and_times(tmp_path: Path) -> None:
    taken = shot("smile")
    folder = ClipFolder(write_shot(tmp_path / "clip", taken), False, False)
    stamp = looked_at(clip_of(taken), folder).stamp()
    (folder.path / "1000.jpg").write_bytes(b"nobody looks at this")
    assert looked_at(clip_of(taken), folder).stamp() == stamp
    picture = folder.path / f"{taken.apex}.jpg"
    then = picture.stat().st_mtime_ns
    os.utime(picture, ns=(then, then + 10**9))
    assert looked_at(clip_of(taken), folder).stamp() != stamp
    os.utime(picture, ns=(then, then))
    assert looked_at(clip_of(taken), folder).stamp() == stamp
    picture.write_bytes(picture.read_bytes() + b"0")
    os.utime(picture, ns=(then, then))
    assert looked_at(clip_of(taken), folder).stamp() != stamp


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder .*gone cannot be read: No such file"):
        made(tmp_path / "gone", shot("smile"))


def test_grey_pictures_give_the_same(tmp_path: Path) -> None:
    taken = shot("smile")
    colour = made(write_shot(tmp_path / "colour", taken, "{}.png"), taken)
    (tmp_path / "grey").mkdir()
    for number in taken.needed():
        grey = cv2.cvtColor(taken.picture(number), cv2.COLOR_RGB2GRAY)
        cv2.imwrite(str(tmp_path / "grey" / f"006_{number:05d}.png"), grey)
    flow = made(tmp_path / "grey", taken)
    assert correlation(flow.whole[1], colour.whole[1]) > 0.97 and np.abs(flow.keypoints - colour.keypoints).max() < 0.5


def test_cropped_faces_are_found_too(tmp_path: Path) -> None:
    taken = shot("smile", 100.0)
    for number in taken.needed():
        write_picture(tmp_path / f"reg_img{number}.jpg", face_part(taken, number))
    flow = made(tmp_path, taken, cropped=True)
    assert min(-at(flow, 1, LEFT_LIP), -at(flow, 1, RIGHT_LIP)) > 0.5
    assert np.abs(flow.keypoints - CANONICAL_KEYPOINTS).max() < 1.5


def test_a_folder_of_just_the_expression_begins_at_the_onset_and_has_its_apex_in_the_middle(tmp_path: Path) -> None:
    taken = shot("smile", 100.0)
    half = taken.apex - taken.onset
    numbers = range(taken.onset, taken.apex + half + 1)
    for number in numbers:
        write_picture(tmp_path / f"image{number + 13000:06d}.jpg", taken.picture(number))
    clip = Clip("smic", "smic/s01", "s01_ne_02", None, None, None, 0, "negative", "", 100.0, ("s1_ne_02",))
    flow = maker().make(clip, ClipFolder(tmp_path, False, True))
    assert [n - 13000 for n in (flow.onset, flow.apex, flow.offset)] == [taken.onset, taken.apex, taken.apex + half]
    assert at(flow, 1, LEFT_LIP) < -0.5


def test_missing_onset_and_apex_are_told_with_what_is_there(tmp_path: Path) -> None:
    taken = shot("smile")
    folder = write_shot(tmp_path / "clip", taken, numbers=range(taken.onset, taken.apex))
    with pytest.raises(InputError, match=rf"the apex, picture {taken.apex}, is not in .*clip, which holds {taken.onset} to"):
        made(folder, taken)
    (folder / f"{taken.onset}.jpg").unlink()
    with pytest.raises(InputError, match=f"the onset, picture {taken.onset}, is not in"):
        made(folder, taken)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    taken = shot("smile")
    folder = write_shot(tmp_path / "clip", taken)
    (folder / f"{taken.onset + 1}.jpg").write_bytes(b"damaged")
    with pytest.raises(InputError, match=rf"{taken.onset + 1}\.jpg is no picture"):
        made(folder, taken)


def test_pictures_of_two_sizes_are_told(tmp_path: Path) -> None:
    taken = shot("smile")
    folder = write_shot(tmp_path / "clip", taken)
    write_picture(folder / f"{taken.apex}.jpg", grey_picture(100, 80))
    with pytest.raises(InputError, match=rf"{taken.apex}\.jpg has another size"):
        made(folder, taken)


def test_where_no_face_is_no_map_is_made_up(tmp_path: Path) -> None:
    taken = shot("smile")
    folder = write_shot(tmp_path / "clip", taken)
    for number in range(taken.apex, taken.needed().stop):
        write_picture(folder / f"{number}.jpg", grey_picture(300, 360))
    with pytest.raises(InputError, match=rf"no face was found at the apex of 006_1_2, .*{taken.apex}\.jpg"):
        made(folder, taken)
    for number in taken.needed():
        write_picture(folder / f"{number}.jpg", grey_picture(300, 360))
    with pytest.raises(InputError, match="no face was found at the onset of 006_1_2"):
        made(folder, taken)


def test_a_folder_with_too_few_pictures_is_told(tmp_path: Path) -> None:
    write_picture(tmp_path / "image1.jpg", grey_picture(60, 60))
    clip = Clip("smic", "smic/s01", "s01_ne_02", None, None, None, 0, "negative", "", 100.0, ("s1_ne_02",))
    with pytest.raises(InputError, match="holds 1 numbered pictures; an expression has at least 3"):
        maker().make(clip, ClipFolder(tmp_path, False, True))


def engine_imports(path: Path) -> set[Path]:
    """The files of engine that a source imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
    bases = [ENGINE.parent.joinpath(*name.split(".")) for name in names if name.split(".")[0] == "engine"]
    return {path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()}


def test_all_code_that_a_map_goes_through_decides_what_it_is() -> None:
    """Otherwise maps that other code made would be taken for these."""
    deciding = set(deciding_files(ENGINE))
    others = {ENGINE / name for name in ("__init__.py", "config.py", "errors.py", "types.py")}  # values, no arithmetic
    stages = ("faces/landmarks.py", "registration/align.py", "recognition/flowmap.py")
    seen: set[Path] = set()
    ahead = {ENGINE / stage for stage in stages}
    while ahead:
        seen |= ahead
        ahead = {path for one in ahead for path in engine_imports(one)} - seen - others
    assert len(seen) > 30
    assert seen <= deciding, sorted(seen - deciding)
    assert flow_module.LANDMARKS.backend == "litert"


@pytest.mark.parametrize("place", ["faces/new.py", "ops/tvl1/new.py", "recognition/new/deep.py"])
def test_a_new_file_in_a_deciding_folder_counts(place: str, tmp_path: Path) -> None:
    before = deciding_files(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).touch()
    assert set(deciding_files(tmp_path)) - set(before) == {tmp_path / place}


def test_changed_code_has_another_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "stage.py"
    monkeypatch.setattr(flow_module, "deciding_files", lambda _: [source])
    source.write_text("a = 1\n")
    before = flow_module.settings()["code"]
    assert flow_module.settings()["code"] == before
    source.write_text("a = 2\n")
    assert flow_module.settings()["code"] != before
