from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.faces.landmarks import FaceLocator
from engine.types import U8, Face, Frame
from stream.analysis.preview import CONTOURS, PreviewMaker, draw, region_boxes
from stream.messages import Arrival, Preview, WantedPreview
from tests.faces import EYES, grey_picture, photo
from tests.live import Collected
from tests.videos import quadrants

WANTED = WantedPreview(width=320, fps=10)


@pytest.fixture(scope="module")
def hopper() -> tuple[Frame, list[Face]]:
    picture = photo("hopper")
    frame = Frame(7, 0.25, picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
    locator = FaceLocator()
    faces = locator.locate(frame)
    locator.close()
    assert len(faces) == 1
    return frame, faces


def read(preview: Preview) -> U8:
    """The JPEG as [H, W, 3] RGB."""
    found = cv2.imdecode(np.frombuffer(preview.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return np.asarray(found[..., ::-1], np.uint8)


def planar(picture: U8) -> U8:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)


@pytest.mark.parametrize("layout", ["rgb", "i420", "grey"])
@pytest.mark.parametrize("width", [64, 200, 333, 640])
def test_the_preview_is_the_frame_resized(layout: str, width: int) -> None:
    picture = quadrants(640, 480)
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    frame = Frame(0, 0.0, {"rgb": picture, "i420": planar(picture), "grey": grey}[layout], layout)  # type: ignore[arg-type]
    preview = draw("desk", frame, [], WantedPreview(width, 10))
    shown = read(preview)
    assert abs(shown.shape[1] - width) <= 1 and abs(shown.shape[0] - width * 3 / 4) <= 1
    assert (preview.header["width"], preview.header["height"]) == (shown.shape[1], shown.shape[0])
    expected = picture if layout != "grey" else np.repeat(grey[..., None], 3, axis=2)
    small = cv2.resize(expected, shown.shape[1::-1], interpolation=cv2.INTER_AREA)
    quarter = shown.shape[0] // 4, shown.shape[1] // 4
    for y in (quarter[0], 3 * quarter[0]):
        for x in (quarter[1], 3 * quarter[1]):
            assert np.abs(shown[y, x].astype(int) - small[y, x]).max() <= 12


def test_it_is_never_enlarged_nor_too_small_to_see() -> None:
    frame = Frame(0, 0.0, grey_picture(120, 160))
    assert read(draw("desk", frame, [], WantedPreview(640, 10))).shape[:2] == (120, 160)
    assert read(draw("desk", frame, [], WantedPreview(1, 10))).shape[1] == 64


def test_landmarks_and_regions_lie_on_the_face(hopper: tuple[Frame, list[Face]]) -> None:
    frame, faces = hopper
    header = draw("desk", frame, faces, WantedPreview(256, 10)).header
    assert (header["stream"], header["t"], header["index"]) == ("desk", 0.25, 7)
    (face,) = header["faces"]
    shrink = header["width"] / frame.width
    eyes = np.array(EYES["hopper"]) * shrink
    points = np.array(face["landmarks"])
    assert len(points) == sum(header["contours"])
    lines = np.split(points, np.cumsum(header["contours"])[:-1])
    for line, eye in zip(lines[1:3], eyes, strict=True):
        assert np.hypot(*(line.mean(axis=0) - eye)) < 3, "the second and third line are the eyes"
    boxes = np.array(face["regions"])
    assert boxes.shape == (5, 4)
    for (x, y, wide, high), eye in zip(boxes[:2], eyes, strict=True):
        assert x < eye[0] < x + wide and y < eye[1] < y + high
    outline = lines[0]
    middles = boxes[:, :2] + boxes[:, 2:] / 2
    assert (middles > outline.min(axis=0)).all() and (middles < outline.max(axis=0)).all()


def test_regions_are_those_of_the_network(hopper: tuple[Frame, list[Face]]) -> None:
    _, (face,) = hopper
    boxes = region_boxes(face.points)
    assert np.allclose(boxes[:2, 2:], boxes[0, 2]), "the eyes' pieces are 14 x 14 cells"
    assert np.allclose(boxes[2:, 3], boxes[0, 3]) and np.allclose(boxes[2:, 2] / boxes[0, 2], [10 / 14, 8 / 14, 10 / 14])
    twice = face.points * 2
    assert np.allclose(region_boxes(twice), 2 * boxes, atol=1e-3)


def test_contours_are_those_of_the_mesh() -> None:
    from mediapipe.tasks.python.vision import FaceLandmarksConnections

    edges = {frozenset((edge.start, edge.end)) for edge in FaceLandmarksConnections.FACE_LANDMARKS_CONTOURS}
    drawn = {frozenset((a, b)) for line in CONTOURS for a, b in zip(line, (*line[1:], line[0]), strict=True)}
    assert edges - drawn == set()
    assert drawn - edges == {frozenset(edge) for edge in ((46, 70), (55, 107), (276, 300), (285, 336))}, "brows are closed"


def offered(sink: Collected, fps: float, seconds: float = 3.0) -> int:
    """How many pictures come of so many seconds of frames."""
    maker, frame = PreviewMaker("desk", sink), Frame(0, 0.0, grey_picture(48, 64))
    rng = np.random.default_rng(1)
    before = len(sink.previews)
    for k in range(round(seconds * fps)):
        maker.offer(Arrival(frame, 100 + k / fps + rng.uniform(0, 0.2 / fps), 0.0), [])
    return len(sink.previews) - before


@pytest.mark.parametrize(("wanted_fps", "fps", "count"), [(10, 30, 30), (15, 30, 45), (15, 10, 30), (1, 25, 3), (5, 29.97, 15)])
def test_as_many_come_as_are_asked_for(wanted_fps: float, fps: float, count: int) -> None:
    assert abs(offered(Collected(WantedPreview(64, wanted_fps)), fps) - count) <= 1


def test_none_come_while_nobody_watches() -> None:
    sink = Collected()
    assert offered(sink, 30) == 0
    sink.wanted = WantedPreview(64, 0)
    assert offered(sink, 30) == 0
    sink.wanted = WANTED
    assert offered(sink, 30) > 20
