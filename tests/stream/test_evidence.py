from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from engine.pipeline import Evidence as Behind
from engine.types import U8
from stream.evidence import PICTURES, Shelf, drawn, flow_colours
from stream.feed import Evidence


def read(png: bytes) -> U8:
    found = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return np.asarray(found, np.uint8)


def pictures(event: str) -> Evidence:
    return Evidence(event, "desk", *(f"{event} {picture}".encode() for picture in PICTURES))


def test_the_face_is_drawn_as_it_was_and_the_flow_in_colours() -> None:
    rng = np.random.default_rng(0)
    onset, apex = rng.integers(0, 256, (2, 128, 128), np.uint8)
    flow = rng.normal(0, 2, (2, 128, 128)).astype(np.float32)
    seen = drawn(Behind(onset, apex, flow), "e1", "desk")
    assert (seen.event, seen.stream) == ("e1", "desk")
    assert (read(seen.onset) == onset).all() and (read(seen.apex) == apex).all()
    assert (read(seen.flow)[..., ::-1] == flow_colours(flow)).all()


def uniform(u: float, v: float) -> U8:
    """The colour of a flow that is the same everywhere."""
    flow = np.empty((2, 8, 8), np.float32)
    flow[0], flow[1] = u, v
    return flow_colours(flow)[4, 4]


def test_what_does_not_move_is_white() -> None:
    assert uniform(0, 0).tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("u", "v", "colour"), [(3, 0, (255, 0, 0)), (-3, 0, (0, 255, 255)), (0, 3, (128, 255, 0)), (0, -3, (128, 0, 255))]
)
def test_the_hue_says_where_to(u: float, v: float, colour: tuple[int, int, int]) -> None:
    assert np.abs(uniform(u, v).astype(int) - colour).max() <= 1


def test_the_saturation_says_how_far_and_noise_stays_pale() -> None:
    paleness = [int(uniform(u, 0).min()) for u in (0.1, 0.5, 1.0)]
    assert paleness[0] > 220 and paleness[1] in range(120, 136) and paleness[2] == 0
    strong = np.zeros((2, 100, 100), np.float32)
    strong[0] = np.linspace(0, 5, 100)
    assert 100 < flow_colours(strong)[50, 50].min() < 150, "five pixels are the full colour here, not one"


def test_only_the_last_events_are_kept() -> None:
    shelf = Shelf(3)
    for event in "abcd":
        shelf.put(pictures(event))
    assert len(shelf) == 3
    assert shelf.get("a", "onset") is None
    assert [shelf.get("d", picture) for picture in PICTURES] == [b"d onset", b"d apex", b"d flow"]
    shelf.put(pictures("b"))
    shelf.put(pictures("e"))
    assert shelf.get("b", "flow") is not None and shelf.get("c", "flow") is None, "what came again counts as new"


@pytest.mark.parametrize("picture", ["event", "stream", "__class__", "put", ""])
def test_nothing_but_pictures_can_be_had(picture: str) -> None:
    shelf = Shelf(1)
    shelf.put(pictures("a"))
    assert shelf.get("a", picture) is None


def test_none_are_kept_where_none_are_wanted() -> None:
    shelf = Shelf(0)
    shelf.put(pictures("a"))
    assert len(shelf) == 0 and shelf.get("a", "onset") is None


def test_threads_may_share_it() -> None:
    shelf = Shelf(10)

    def put(name: str) -> None:
        for number in range(500):
            shelf.put(pictures(f"{name}{number}"))
            shelf.get(f"{name}{number - 1}", "apex")

    threads = [threading.Thread(target=put, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shelf) == 10
