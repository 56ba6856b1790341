from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, InputError
from engine.geometry import INPUTS
from engine.recognition.flowmap import network_input
from tests.flowmaps import write_dataset
from training.datasets import CLASSES, htnet_3db, load, refuse_two_spellings


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_are_those_of_live_analysis(tmp_path: Path, kind: str) -> None:
    data = htnet_3db.load(write_dataset(tmp_path / "set", per_class=1))
    made = data.inputs(kind)
    assert made.shape == (len(data), *INPUTS[kind]) and made.dtype == np.float32
    assert np.array_equal(made[4], network_input(kind, data.maps[4], data.keypoints[4]))


def test_an_unknown_input_is_refused(tmp_path: Path) -> None:
    data = htnet_3db.load(write_dataset(tmp_path / "set", per_class=1))
    with pytest.raises(ConfigError, match="no network input is called 'nose'"):
        data.inputs("nose")


def test_taking_keeps_rows_together(tmp_path: Path) -> None:
    data = htnet_3db.load(write_dataset(tmp_path / "set", per_class=1))
    part = data.take([7, 2])
    assert part.names == (data.names[7], data.names[2]) and part.subjects == (data.subjects[7], data.subjects[2])
    assert np.array_equal(part.maps[1], data.maps[2]) and part.labels.tolist() == data.labels[[7, 2]].tolist()


def test_the_description_has_maps_subjects_and_absent_maps(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", per_class=1)
    assert htnet_3db.load(folder).description() == "12 maps of 4 subjects"
    next((folder / htnet_3db.MAPS).glob("sub01_c0*")).unlink()
    assert htnet_3db.load(folder).description() == "11 maps of 4 subjects; named but absent: 1 (sub01_c0_0)"


def test_classes_are_in_the_order_of_the_composite_database() -> None:
    assert CLASSES == ("negative", "positive", "surprise")


def test_load_distinguishes_both_kinds_of_folders(tmp_path: Path) -> None:
    published = write_dataset(tmp_path / "set", per_class=1)
    assert load(published).names == htnet_3db.load(published).names
    with pytest.raises(InputError, match=r"there is no folder .*gone"):
        load(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no flow maps: neither the published ones .* nor databases made by"):
        load(tmp_path / "empty")


@pytest.mark.parametrize(
    ("one", "other"),
    [("sub01", "Sub01"), ("sub01", "sub1"), ("006", "6"), ("spNO.1", "spNO. 1"), ("casme2/sub10", "CASME2/sub010")],
)
def test_one_person_spelled_in_two_ways_is_an_error_that_names_both(one: str, other: str) -> None:
    with pytest.raises(InputError, match=f"the table spells one subject in two ways, {one!r} and {other!r}"):
        refuse_two_spellings((one, "another", one, other), "the table")


def test_different_people_are_different() -> None:
    refuse_two_spellings(("sub01", "sub10", "sub100", "sub01", "sub001x", "1", "11", "0", "smic/s01", "samm/s01"), "the table")
