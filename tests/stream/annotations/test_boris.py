from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError
from stream.annotations import boris as module
from stream.annotations.boris import read_project
from stream.annotations.timed_label import TimedLabel, Wanted
from tests.exports import VIDEO, exported

EXPORTED = [
    TimedLabel(1.0, 1.4, "surprise", 1.2, 0),
    TimedLabel(6.834, 7.334, "positive", 7.067, 0),
    TimedLabel(7.0, 8.0, "negative", 7.5, 0),
    TimedLabel(7.067, 7.367, "uncertain", 7.2, 1),
]


def written(path: Path, **changes: Any) -> Path:
    """A project as a coder makes one, with an observation of each of two videos."""

    def observation(video: str, *events: list[Any]) -> dict[str, Any]:
        return {"type": "MEDIA", "file": {"1": [f"C:\\videos\\{video}"]}, "time offset": 0.0, "events": events}

    behaviours = [
        {"code": "happiness", "type": "State event", "category": ""},
        {"code": "hand", "type": "State event", "category": ""},
        {"code": "apex", "type": "Point event", "category": ""},
    ]
    happy = [[1.0, "", "happiness", "", ""], [1.2, "", "apex", "", ""], [1.5, "", "happiness", "", "", 45]]
    hand = [[4.0, "", "hand", "", ""], [2.0, "", "hand", "", ""]]
    observations = {"one": observation("one.mp4", *happy), "two": observation("two.mp4", *happy, *hand)}
    whole = {"behaviors_conf": {str(k): one for k, one in enumerate(behaviours)}, "observations": observations, **changes}
    path.write_text(json.dumps(whole))
    return path


def test_an_export_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "events.boris"
    path.write_bytes(exported("boris"))
    assert read_project(path, Wanted()) == EXPORTED
    packed = tmp_path / "events.boris.gz"
    packed.write_bytes(gzip.compress(exported("boris")))
    assert read_project(packed, Wanted(video=VIDEO.name)) == EXPORTED


def test_the_observation_is_that_of_the_video(tmp_path: Path) -> None:
    path = written(tmp_path / "anna.boris")
    assert read_project(path, Wanted(video="one.mp4")) == [TimedLabel(1.0, 1.5, "happiness", 1.2)]
    assert [one.label for one in read_project(path, Wanted(observation="two"))] == ["happiness", "hand"]
    with pytest.raises(InputError, match="several observations; choose one by --observation: one, two"):
        read_project(path, Wanted(video="three.mp4"))
    with pytest.raises(InputError, match="no observation 'three'; it has one, two"):
        read_project(path, Wanted(observation="three"))


def test_behaviours_are_chosen_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "anna.boris")
    assert [one.label for one in read_project(path, Wanted(("happiness",), "two"))] == ["happiness"]
    with pytest.raises(InputError, match="no state event or category 'smile'; it has happiness, hand"):
        read_project(path, Wanted(("smile",), "two"))


def test_the_offset_that_boris_adds_is_taken_off(tmp_path: Path) -> None:
    content = json.loads(exported("boris"))
    (observation,) = content["observations"].values()
    observation["time offset"] = "0.5"
    path = tmp_path / "events.boris"
    path.write_text(json.dumps(content))
    assert read_project(path, Wanted())[0].start == 0.5


@pytest.mark.parametrize(
    "events", [[[1.0, "", "happiness", "", ""]], [[1.0, "x", "happiness", "", ""], [2.0, "y", "happiness", "", ""]]]
)
def test_a_state_without_a_stop_is_named(tmp_path: Path, events: list[Any]) -> None:
    observation = {"only": {"type": "LIVE", "file": [], "events": events}}
    with pytest.raises(InputError, match=r"the state 'happiness' of '.*' at 1\.000 s has no stop"):
        read_project(written(tmp_path / "anna.boris", observations=observation), Wanted())


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"behaviors_conf": {}, "observations": {"a": {"events": [["NA"]]}}}', "null"]
)
def test_damage_is_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "anna.boris"
    path.write_text(content)
    with pytest.raises(InputError, match="damaged or no BORIS project"):
        read_project(path, Wanted())
    for data in (b"\xff\xfe\x00\x80", b"[" * 100_000):
        path.write_bytes(data)
        with pytest.raises(InputError, match="damaged or no BORIS project"):
            read_project(path, Wanted())


def test_compressed_damage_and_bombs_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "anna.boris.gz"
    for content in (b"no gzip", gzip.compress(exported("boris"))[:-20]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged or no BORIS project"):
            read_project(path, Wanted())
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    path.write_bytes(gzip.compress(b" " * 100_000))
    with pytest.raises(InputError, match="too large"):
        read_project(path, Wanted())


def test_a_project_without_observations_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no observation"):
        read_project(written(tmp_path / "anna.boris", observations={}), Wanted())
