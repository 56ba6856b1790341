from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, InputError
from engine.geometry import INPUTS
from engine.recognition.flowmap import network_input
from tests.flowmaps import write_dataset
from training.datasets import CLASSES, htnet_3db, load


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


def test_the_set_tells_what_it_holds(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", per_class=1)
    assert htnet_3db.load(folder).told() == "12 maps of 4 subjects"
    next((folder / htnet_3db.MAPS).glob("sub01_c0*")).unlink()
    assert htnet_3db.load(folder).told() == "11 maps of 4 subjects; named but absent: 1 (sub01_c0_0)"


def test_classes_are_in_the_order_of_the_composite_database() -> None:
    assert CLASSES == ("negative", "positive", "surprise")


def test_load_tells_both_kinds_of_folders_apart(tmp_path: Path) -> None:
    published = write_dataset(tmp_path / "set", per_class=1)
    assert load(published).names == htnet_3db.load(published).names
    with pytest.raises(InputError, match=r"there is no folder .*gone"):
        load(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no flow maps: neither the published ones .* nor databases made by"):
        load(tmp_path / "empty")
