"""The face models by LiteRT beside MediaPipe's own way, and the errors where neither can be had."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine import mesh
from engine.errors import BackendError, WeightsError
from engine.mesh import BLENDSHAPE_NAMES, MESH_POINTS, MeshModels, Region, bundle, region_around, region_of_box
from engine.mesh.litert import LiteRTModels
from engine.mesh.tasks import VideoMesh
from engine.types import F32, U8, Frame
from tests.faces import EYES, grey_picture, photo, side_by_side

TURNS = (-40, -15, 0, 15, 40)
"""Degrees by which a head may be tilted."""


@pytest.fixture(scope="module")
def ours() -> Iterator[MeshModels]:
    models = mesh.load(backend="litert")
    yield models
    models.close()


@pytest.fixture(scope="module")
def theirs() -> Iterator[MeshModels]:
    models = mesh.load(backend="mediapipe")
    yield models
    models.close()


def turned(picture: U8, degrees: float) -> U8:
    high, wide = picture.shape[:2]
    how = cv2.getRotationMatrix2D((wide / 2, high / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(picture, how, (wide, high), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def eye_distance(points: F32) -> float:
    return float(np.hypot(*(points[33, :2] - points[263, :2])))


def whole(picture: U8) -> tuple[Frame, Region]:
    high, wide = picture.shape[:2]
    return Frame(0, 0.0, picture), Region(wide / 2, high / 2, max(high, wide))


@pytest.mark.parametrize("degrees", TURNS)
@pytest.mark.parametrize(("name", "scale"), [("hopper", 0.6), ("hopper", 1), ("astronaut", 1)])
def test_both_ways_give_the_same_numbers(ours: MeshModels, theirs: MeshModels, name: str, scale: float, degrees: float) -> None:
    """Both detect, then run the mesh: measured .0002 to .001 of the eyes' distance, and .02 of a blendshape at most."""
    picture = turned(photo(name, scale), degrees)
    side = min(picture.shape[:2]) // 2 * 2
    picture = np.asarray(picture[:side, :side].copy(), np.uint8)  # both see one square
    wanted = theirs.mesh(*whole(picture))
    (region, *_) = ours.detect(picture)
    found = ours.mesh(Frame(0, 0.0, picture), region)
    assert found is not None and wanted is not None
    apart = np.hypot(*(found.points - wanted.points)[:, :2].T) / eye_distance(wanted.points)
    assert apart.mean() < 0.002
    assert np.abs(found.points[:, 2] - wanted.points[:, 2]).mean() / eye_distance(wanted.points) < 0.004
    assert max(abs(found.blendshapes[key] - wanted.blendshapes[key]) for key in BLENDSHAPE_NAMES) < 0.04


@pytest.mark.parametrize("side", [97, 250, 400, 900])
@pytest.mark.parametrize("layout", ["rgb", "i420", "grey"])
def test_a_face_is_seen_where_it_is_in_every_layout_and_size(ours: MeshModels, side: int, layout: str) -> None:
    scale = side / 300
    picture = photo("hopper", scale)
    picture = np.asarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2], np.uint8)
    codes = {"grey": cv2.COLOR_RGB2GRAY, "i420": cv2.COLOR_RGB2YUV_I420}
    pixels = picture if layout == "rgb" else np.asarray(cv2.cvtColor(picture, codes[layout]), np.uint8)
    frame = Frame(0, 0.0, np.ascontiguousarray(pixels), layout)  # type: ignore[arg-type]
    true = (np.array(EYES["hopper"]) + 0.5) * scale - 0.5
    middle = true.mean(axis=0)
    found = ours.mesh(frame, Region(float(middle[0]), float(middle[1]) + 0.1 * side, side))
    assert found is not None and found.presence > 3
    assert found.points.shape == (MESH_POINTS, 3) and found.points.dtype == np.float32
    eyes = np.array([found.points[[33, 133], :2].mean(axis=0), found.points[[362, 263], :2].mean(axis=0)])
    assert np.hypot(*(eyes - true).T).max() < 0.05 * np.hypot(*(true[1] - true[0]))


@pytest.mark.parametrize("degrees", TURNS)
def test_a_tilted_head_is_seen_upright(ours: MeshModels, degrees: float) -> None:
    """What the face does does not hang on how the head is tilted."""
    level, tilted = photo("astronaut"), turned(photo("astronaut"), degrees)
    seen = []
    for picture in (level, tilted):
        frame = Frame(0, 0.0, picture)
        first = ours.mesh(frame, ours.detect(picture)[0])
        assert first is not None
        region = region_around(first.points)
        again = ours.mesh(frame, region)
        assert again is not None
        seen.append((region, again))
    assert np.degrees(seen[0][0].angle - seen[1][0].angle) == pytest.approx(degrees, abs=2.5)
    assert eye_distance(seen[1][1].points) == pytest.approx(eye_distance(seen[0][1].points), rel=0.03)


def test_blendshapes_say_what_a_smiling_face_does(ours: MeshModels) -> None:
    frame = Frame(0, 0.0, photo("astronaut"))
    seen = ours.mesh(frame, ours.detect(frame.rgb)[0])
    assert seen is not None and tuple(seen.blendshapes) == BLENDSHAPE_NAMES
    assert all(0 <= value <= 1 for value in seen.blendshapes.values())
    assert min(seen.blendshapes["mouthSmileLeft"], seen.blendshapes["mouthSmileRight"]) > 0.5
    assert seen.blendshapes["mouthFrownLeft"] < 0.1 and seen.blendshapes["jawOpen"] < 0.3


def test_two_faces_are_two_regions(ours: MeshModels, theirs: MeshModels) -> None:
    picture = side_by_side()
    for models in (ours, theirs):
        places = sorted(region.x for region in models.detect(picture))
        assert len(places) == 2 and places[0] < 320 < places[1]


def test_where_there_is_no_face_there_is_none(ours: MeshModels, theirs: MeshModels) -> None:
    blank = grey_picture(180, 240)
    for models in (ours, theirs):
        assert models.detect(blank) == [] and models.mesh(*whole(blank)) is None


@pytest.mark.parametrize(
    "region", [Region(-5000, 20, 60), Region(30, 30, 0), Region(30, 30, 1e4, 2.0), Region(32, 32, 50, 7.9)]
)
def test_a_region_out_of_the_picture_or_of_no_size_is_no_crash(ours: MeshModels, region: Region) -> None:
    assert ours.mesh(Frame(0, 0.0, grey_picture(64, 64)), region) is None


def test_the_same_region_gives_the_same_numbers_whatever_was_seen_before(ours: MeshModels) -> None:
    frame, other = Frame(0, 0.0, photo("astronaut")), Frame(1, 0.1, photo("hopper"))
    region = ours.detect(frame.rgb)[0]
    first = ours.mesh(frame, region)
    ours.mesh(other, region)
    again = ours.mesh(frame, region)
    assert first is not None and again is not None
    assert np.array_equal(first.points, again.points) and first.blendshapes == again.blendshapes


def test_over_a_video_mediapipe_follows_the_face_by_itself() -> None:
    video, picture = VideoMesh(bundle.read()), photo("hopper", 0.6)
    seen = [video.find(picture, 0.01 * k) for k in (0, 1, 1, 2)]
    gone = [video.find(grey_picture(*picture.shape[:2]), t) for t in (0.1, 0.2)]
    video.close()
    assert gone[-1] is None
    for points in seen:
        assert points is not None
        eyes = np.array([points[[33, 133], :2].mean(axis=0), points[[362, 263], :2].mean(axis=0)])
        assert np.abs(eyes - ((np.array(EYES["hopper"]) + 0.5) * 0.6 - 0.5)).max() < 5


def test_regions_follow_points_and_boxes() -> None:
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.random.default_rng(0).uniform(-10, 10, (MESH_POINTS, 2))
    points[33], points[263] = (-9, 0), (9, 0)
    region = region_around((points @ turn.T + (100, 50)).astype(np.float32))
    assert region.angle == pytest.approx(angle, abs=1e-5)
    box = region_of_box(10, 20, 40, 30, np.array([[20, 30], [40, 30]], np.float32))
    assert box == Region(30, 35, 60, 0)
    assert replace(box, angle=1.0) != box


@pytest.mark.parametrize(
    ("backend", "module"), [("litert", "ai_edge_litert.interpreter"), ("mediapipe", "mediapipe.tasks.python")]
)
def test_a_backend_that_is_not_there_is_reported_missing(monkeypatch: pytest.MonkeyPatch, backend: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match="cannot run the face model"):
        mesh.load(backend=backend)  # type: ignore[arg-type]


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    first = mesh.load()
    assert first.backend == "litert"
    first.close()
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    second = mesh.load()
    assert second.backend == "mediapipe"
    second.close()
    monkeypatch.setitem(sys.modules, "mediapipe.tasks.python", None)
    with pytest.raises(BackendError, match=r"LiteRT.*mediapipe"):
        mesh.load()


def test_a_damaged_network_is_refused() -> None:
    parts = bundle.networks(bundle.read())
    with pytest.raises(BackendError, match="LiteRT cannot run the face model"):
        LiteRTModels({**parts, "face_blendshapes": b"nonsense"})


def test_where_the_model_is_searched_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(bundle.VARIABLE, str(tmp_path / "named.task"))
    assert bundle.place().path == tmp_path / "named.task" and bundle.VARIABLE in bundle.place().why
    assert bundle.place(tmp_path / "set.task").path == tmp_path / "set.task"
    monkeypatch.delenv(bundle.VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert bundle.place().path.name == bundle.NAME and "user's data folder" in bundle.place().why


def unusable(file: Path, how: str) -> None:
    """Leaves no file, another one, or a folder."""
    if how == "folder":
        file.mkdir()
    elif how == "other":
        file.write_bytes(b"x")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("none", "is missing; `apexstream fetch` fetches it"),
        ("other", "is not usable: it has 1 bytes"),
        ("folder", "cannot be read"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    file = tmp_path / "face.task"
    unusable(file, how)
    monkeypatch.setenv(bundle.VARIABLE, str(file))
    with pytest.raises(WeightsError) as caught:
        mesh.load()
    assert message in str(caught.value) and str(file) in str(caught.value) and bundle.VARIABLE in str(caught.value)


@pytest.mark.parametrize(("how", "message"), [("none", "is missing"), ("other", "is not usable"), ("folder", "cannot be read")])
def test_what_a_setting_names_is_nothing_to_fetch_or_remove(tmp_path: Path, how: str, message: str) -> None:
    file = tmp_path / "own.task"
    unusable(file, how)
    with pytest.raises(WeightsError, match=f"own.task .setting landmarks.model. {message}") as caught:
        mesh.load(file)
    assert "fetch" not in str(caught.value) and "remove" not in str(caught.value)


def test_a_library_that_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", silent)
    with pytest.raises(BackendError, match="LiteRT cannot run the face model: RuntimeError"):
        mesh.load(backend="litert")


def test_the_bundle_holds_three_networks() -> None:
    content = bundle.read()
    assert len(content) == bundle.SIZE
    assert set(bundle.networks(content)) == {"face_detector", "face_landmarks_detector", "face_blendshapes"}
