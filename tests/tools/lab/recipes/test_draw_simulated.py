from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from typer import Typer
from typer.testing import CliRunner

from lab.recipes import draw_simulated
from training.datasets import CLASSES
from training.simulate import UNIT_NAMES, simulate

app = Typer()
app.command()(draw_simulated.main)


def test_a_picture_is_written(tmp_path: Path) -> None:
    path = tmp_path / "simulated.png"
    result = CliRunner().invoke(app, [str(path), "--count", "60", "--examples", "1"])
    assert result.exit_code == 0, result.output
    picture = cv2.imread(str(path))
    assert picture is not None and picture.shape[1] > picture.shape[0] > 300
    assert picture.std() > 20


def test_each_class_has_its_row_and_each_map_names_its_units() -> None:
    drawn = simulate(60, 1)
    figure = draw_simulated.draw(drawn, examples=2)
    columns = [[axis.get_title() for axis in column.axes if axis.get_title()] for column in figure.subfigs]
    counts = np.bincount(drawn.labels)
    assert columns[0] == [f"{name}: mean of {count}" for name, count in zip(CLASSES, counts, strict=True)]
    first = [int(np.flatnonzero(drawn.labels == label)[0]) for label in range(len(CLASSES))]
    reported = [[name for name in UNIT_NAMES if drawn.units[one, UNIT_NAMES.index(name)]] for one in first]
    assert columns[1] == [", ".join(names) or "no unit clearly" for names in reported]
    assert len(columns) == 3


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "no" / "where.png"), "--count", "50", "--examples", "0"])
    assert result.exit_code == 1 and "cannot be written" in str(result.exception)
