from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from speach import elan

from tests.exports import EVENTS, HOSTILE, RECORDING, exported, interview_event, reviewed


def read(content: bytes, tmp_path: Path) -> elan.Doc:
    """The file as another library reads it."""
    path = tmp_path / "events.eaf"
    path.write_bytes(content)
    return elan.read_eaf(path)


def spans(document: elan.Doc, tier: str) -> list[tuple[float, float, str]]:
    return [(one.from_ts.sec, one.to_ts.sec, one.text) for one in document[tier]]


def test_tiers_of_each_face_are_read_by_another_library(tmp_path: Path) -> None:
    document = read(exported("eaf"), tmp_path)
    assert [tier.name for tier in document] == [
        *("face 0 label", "face 0 kind", "face 0 confidence", "face 0 speaking", "face 0 apex"),
        *("face 0 label 2", "face 0 kind 2", "face 0 confidence 2", "face 0 speaking 2", "face 0 apex 2", "face 0 speech"),
        *("face 1 label", "face 1 kind", "face 1 confidence", "face 1 speaking", "face 1 why", "face 1 apex"),
        "face 1 blink",
    ]
    assert spans(document, "face 0 label") == [(1.0, 1.4, "surprise"), (6.834, 7.334, "positive")]
    assert spans(document, "face 0 label 2") == [(7.0, 8.0, "negative")], "what overlaps is on a tier of its own"
    assert spans(document, "face 1 label") == [(7.067, 7.367, "uncertain")]
    assert [text for _, _, text in spans(document, "face 1 why")] == ["not sure"]
    assert spans(document, "face 0 speech") == [(5.0, 10.0, "speech")]
    assert [start for start, _, _ in spans(document, "face 0 apex")] == [1.2, 7.067]


def test_what_is_known_of_an_event_belongs_to_its_label(tmp_path: Path) -> None:
    """Who moves the borders of a label in ELAN moves these with it."""
    document = read(exported("eaf"), tmp_path)
    label = document["face 0 label"]
    for name, values in {"kind": ["micro", "micro"], "confidence": ["0.92", "0.92"], "speaking": ["no", "yes"]}.items():
        tier = document[f"face 0 {name}"]
        assert tier.parent_ref == label.ID and tier.participant == "face 0"
        assert [one.text for one in tier] == values
        assert [one.ref.ID for one in tier] == [one.ID for one in label]
    assert document["face 0 apex"].parent_ref == label.ID


def test_the_video_is_linked_and_times_are_the_players(tmp_path: Path) -> None:
    root = ElementTree.fromstring(exported("eaf"))
    (medium,) = root.iter("MEDIA_DESCRIPTOR")
    assert medium.attrib == {
        "MEDIA_URL": "file:///videos/An interview & more.mp4",
        "RELATIVE_MEDIA_URL": "./An interview & more.mp4",
        "MIME_TYPE": "video/mp4",
    }
    times = [int(slot.attrib["TIME_VALUE"]) for slot in root.iter("TIME_SLOT")]
    assert times == sorted(times) and times[-1] == 10_000
    beside = ElementTree.fromstring(exported("eaf", recording=replace(RECORDING, folder=Path("/results/interview"))))
    assert next(beside.iter("MEDIA_DESCRIPTOR")).attrib["RELATIVE_MEDIA_URL"] == "../../videos/An interview & more.mp4"
    unknown = ElementTree.fromstring(exported("eaf", recording=replace(RECORDING, path=Path("/videos/x.whatever"))))
    assert [one.attrib["MIME_TYPE"] for one in unknown.iter("MEDIA_DESCRIPTOR")] == ["unknown"]


def test_the_elements_stand_in_the_order_of_the_schema() -> None:
    root = ElementTree.fromstring(exported("eaf"))
    order = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "CONSTRAINT"]
    assert [tag for tag, _ in zip(order, dict.fromkeys(child.tag for child in root), strict=True)] == order
    types = {one.attrib["LINGUISTIC_TYPE_ID"]: one.attrib.get("CONSTRAINTS") for one in root.iter("LINGUISTIC_TYPE")}
    assert {tier.attrib["LINGUISTIC_TYPE_REF"] for tier in root.iter("TIER")} == types.keys()
    assert types == {"label": None, "attribute": "Symbolic_Association", "apex": "Included_In", "activity": None}


def test_stored_events_say_when_zero_was(tmp_path: Path) -> None:
    content = exported("eaf", recording=None)
    assert spans(read(content, tmp_path), "interview face 0 label")[0] == (0.0, 0.4, "surprise")
    root = ElementTree.fromstring(content)
    (zero,) = (one.text for one in root.iter("PROPERTY") if one.attrib["NAME"] == "began")
    assert zero is not None and zero.startswith("2026-01-31T08:59:5") and root.find("HEADER/MEDIA_DESCRIPTOR") is None


def test_no_event_gives_a_file_with_an_empty_tier(tmp_path: Path) -> None:
    document = read(exported("eaf", [], replace(RECORDING, activities=())), tmp_path)
    assert next(tier.name for tier in document) == "face 0 label" and spans(document, "face 0 label") == []


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    document = read(reviewed("eaf"), tmp_path)
    (note,) = document["face 0 note"]
    assert note.text == HOSTILE.encode("unicode_escape").decode().replace("\\\\", "\\")
    assert [one.text for one in document["face 0 action_units"]] == ["AU1+AU2"]
    root = ElementTree.fromstring(reviewed("eaf"))
    assert {tier.attrib["ANNOTATOR"] for tier in root.iter("TIER")} == {"anna"}
    odd = exported("eaf", [replace(EVENTS[0], label=HOSTILE)])
    assert [one.text for one in read(odd, tmp_path)["face 0 label"]] == [note.text]


@pytest.mark.parametrize("count", [5_000])
def test_thousands_of_events_take_seconds(count: int) -> None:
    """A search for the parent of each annotation would make this quadratic."""
    events = [interview_event(number, 30 * number, 30 * number + 12) for number in range(count)]
    began = time.process_time()
    assert exported("eaf", events).count(b"<ALIGNABLE_ANNOTATION") == 2 * count + 2
    assert time.process_time() - began < 8
