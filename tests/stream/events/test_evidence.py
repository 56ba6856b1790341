from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from engine.types import U8, Evidence
from stream.events import evidence as module
from stream.events.evidence import PICTURES, EvidenceStore, flow_colours
from tests.events import evidence


def read(png: bytes | None) -> U8:
    assert png is not None
    found = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return np.asarray(found, np.uint8)


def test_the_face_is_drawn_unchanged_and_the_flow_in_colours() -> None:
    rng = np.random.default_rng(0)
    onset, apex = rng.integers(0, 256, (2, 128, 128), np.uint8)
    flow = rng.normal(0, 2, (2, 128, 128)).astype(np.float32)
    kept = EvidenceStore(1)
    kept.put("e1", Evidence(onset, apex, flow))
    seen = {picture: kept.get("e1", picture) for picture in PICTURES}
    assert (read(seen["onset"]) == onset).all() and (read(seen["apex"]) == apex).all()
    assert (read(seen["flow"])[..., ::-1] == flow_colours(flow)).all()


def test_pictures_are_drawn_on_request_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event must not wait for them, and few are ever requested."""
    drawn: list[tuple[int, ...]] = []
    draw = module._png
    monkeypatch.setattr(module, "_png", lambda picture: [drawn.append(picture.shape), draw(picture)][1])
    kept = EvidenceStore(2)
    kept.put("a", evidence())
    kept.put("b", evidence())
    assert "a" in kept and "c" not in kept
    assert drawn == [], "membership draws nothing"
    assert kept.get("a", "flow") == kept.get("a", "flow")
    assert drawn == [(128, 128, 3)]


def test_evidence_that_is_put_again_is_drawn_again_only_if_it_differs() -> None:
    first, other = evidence(), evidence(grey=7)
    kept = EvidenceStore(2)
    kept.put("a", first)
    apex = kept.get("a", "apex")
    kept.put("a", first)
    assert kept.get("a", "apex") is apex
    kept.put("a", other)
    assert kept.get("a", "apex") != apex


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
def test_the_hue_is_the_direction(u: float, v: float, colour: tuple[int, int, int]) -> None:
    assert np.abs(uniform(u, v).astype(int) - colour).max() <= 1


def test_the_saturation_is_the_length_and_noise_stays_pale() -> None:
    paleness = [int(uniform(u, 0).min()) for u in (0.1, 0.5, 1.0)]
    assert paleness[0] > 220 and paleness[1] in range(120, 136) and paleness[2] == 0
    strong = np.zeros((2, 100, 100), np.float32)
    strong[0] = np.linspace(0, 5, 100)
    assert 100 < flow_colours(strong)[50, 50].min() < 150, "five pixels are the full colour here, not one"


def test_only_the_last_events_are_kept() -> None:
    kept = EvidenceStore(3)
    for event in "abcd":
        kept.put(event, evidence())
    assert len(kept._kept) == 3
    assert kept.get("a", "onset") is None
    assert all(kept.get("d", picture) for picture in PICTURES)
    kept.put("b", evidence())
    kept.put("e", evidence())
    assert kept.get("b", "flow") is not None and kept.get("c", "flow") is None, "evidence put again counts as new"


@pytest.mark.parametrize("picture", ["event", "stream", "__class__", "put", ""])
def test_only_pictures_are_returned(picture: str) -> None:
    kept = EvidenceStore(1)
    kept.put("a", evidence())
    assert kept.get("a", picture) is None


def test_a_capacity_of_0_keeps_none() -> None:
    kept = EvidenceStore(0)
    kept.put("a", evidence())
    assert len(kept._kept) == 0 and kept.get("a", "onset") is None


def test_threads_may_use_it_at_the_same_time() -> None:
    kept = EvidenceStore(10)

    def put(name: str) -> None:
        for number in range(500):
            kept.put(f"{name}{number}", evidence())
            kept.get(f"{name}{number - 1}", "apex")

    threads = [threading.Thread(target=put, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept._kept) == 10
