from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import rich.progress
import torch
from rich.progress import Progress

from apexstream.cli import main
from tests.flowmaps import write_dataset
from training import datasets
from training.fit import fit
from training.runs import load_run

TINY = """name = "tiny"
[model]
name = "ahmsa"
members = 2
options = { width = 8, heads = 2, repeats = [1, 1, 1] }
[fit]
epochs = 2
batch = 12
learning_rate = 1e-3
"""

MORE = """
[pretrain]
members = 1
maps = 100
epochs = 3
batch = 50
learning_rate = 1e-3
[pretrain.after]
epochs = 1
batch = 12
learning_rate = 1e-4
[kernel]
share = 0.25
centres = 60
"""


def exits(*args: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(TINY)
    write_dataset(tmp_path / "set", per_class=1)
    return tmp_path


def train(folder: Path, *more: str) -> object:
    given = ("--config", f"{folder}/tiny.toml", "--data", f"{folder}/set", "--out", f"{folder}/run", "--device", "cpu")
    return exits("train", *given, *more)


def test_a_run_is_written_with_what_it_was_fitted_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, "--seed", "5") == 0
    assert "fitted 2 x ahmsa to 12 maps" in capsys.readouterr().out
    assert json.loads((folder / "run" / "recipe.json").read_text())["seed"] == 5
    epochs = [(m, e) for m in (0, 1) for e in (1, 2)]
    assert losses(folder) == [("fitting", m, e) for m, e in epochs]
    facts = json.loads((folder / "run" / "data.json").read_text())
    assert facts["subjects"] == 4 and facts["made_by"]["device"] == "cpu"


def test_a_run_with_pre_training_and_kernel_machine_is_written_whole(folder: Path) -> None:
    (folder / "tiny.toml").write_text(TINY + MORE)
    assert train(folder) == 0
    before = [("pre-training", 0, epoch) for epoch in (1, 2, 3)]
    assert losses(folder) == [*before, ("fitting", 0, 1), ("fitting", 1, 1), ("fitting", 1, 2)]
    recipe, network, _ = load_run(folder / "run")
    expected = fit(recipe, datasets.load(folder / "set"))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in expected.state_dict().items())
    assert network.kernel is not None and network.kernel_share == 0.25


def test_the_bar_is_as_long_as_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tiny.toml").write_text(TINY + MORE)
    bars: list[Progress] = []

    class Watched(Progress):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            bars.append(self)

    monkeypatch.setattr(rich.progress, "Progress", Watched)
    assert train(folder) == 0
    assert [(task.completed, task.total) for task in bars[0].tasks] == [(3 + 1 + 2, 3 + 1 + 2)]


def test_a_stopped_run_goes_on_with_its_pre_trained_start(folder: Path) -> None:
    (folder / "tiny.toml").write_text(TINY + MORE)
    assert train(folder) == 0
    (start,) = (folder / "run").glob("start-*.pt")
    made, fitted = start.stat().st_mtime_ns, torch.load(folder / "run" / "fitted.pt", weights_only=True)
    (folder / "run" / "fitted.pt").unlink()  # as if it had been stopped before
    assert train(folder) == 0
    again = torch.load(folder / "run" / "fitted.pt", weights_only=True)
    assert start.stat().st_mtime_ns == made and all(torch.equal(fitted[name], again[name]) for name in fitted)
    assert losses(folder)[0] == ("fitting", 0, 1)


def test_a_network_that_cannot_be_pre_trained_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = 'options = { width = 24, heads = 3, repeats = [1, 1, 1] }\ninput = "four-regions"'
    text = (
        (TINY + MORE).replace('"ahmsa"', '"htnet"').replace("options = { width = 8, heads = 2, repeats = [1, 1, 1] }", options)
    )
    (folder / "tiny.toml").write_text(text)
    assert train(folder) == 1
    reported = capsys.readouterr().err
    assert (
        "htnet cannot be pre-trained" in reported
        and "Traceback" not in reported
        and not (folder / "run" / "fitted.pt").exists()
    )


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_fitted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.device._refusal", lambda: "PyTorch sees no NVIDIA GPU")
    assert train(folder, "--device", "cuda") == 1 and not (folder / "run").exists()
    assert "no GPU can be used: PyTorch sees no NVIDIA GPU; --device cpu works" in capsys.readouterr().err
    assert train(folder, "--device", "tpu") == 2
    assert train(folder, "--device", "auto") == 0


@pytest.mark.gpu
def test_a_run_is_fitted_on_a_gpu(folder: Path) -> None:
    (folder / "tiny.toml").write_text(TINY + MORE)
    assert train(folder, "--device", "cuda") == 0
    before = [("pre-training", 0, epoch) for epoch in (1, 2, 3)]
    assert losses(folder) == [*before, ("fitting", 0, 1), ("fitting", 1, 1), ("fitting", 1, 2)]
    assert load_run(folder / "run")[2]["made_by"]["device"] == torch.cuda.get_device_name()


def test_a_finished_run_is_not_written_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "fitted.pt").write_bytes(b"precious")
    assert train(folder) == 1
    assert "holds a finished run already" in capsys.readouterr().err
    assert (folder / "run" / "fitted.pt").read_bytes() == b"precious"


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_fitted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "run").write_text("a file")
    (folder / "set").rename(folder / "gone")
    assert train(folder) == 1
    reported = capsys.readouterr().err
    assert "the run cannot be written to" in reported and "gone" not in reported and "unexpected error" not in reported


def losses(folder: Path) -> list[tuple[str, int, int]]:
    """(stage, member, epoch) of each line of a run's losses; every loss is a number above 0."""
    with (folder / "run" / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["loss"]) > 0 for row in rows)
    return [(row["stage"], int(row["member"]), int(row["epoch"])) for row in rows]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("tiny.toml", "tiny.toml cannot be read: No such file"),
        ("set/combined_3_class2_for_optical_flow.csv", "set holds no flow maps: neither the published ones"),
    ],
)
def test_what_is_missing_is_one_sentence(folder: Path, gone: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / gone).unlink()
    assert train(folder) == 1
    reported = capsys.readouterr().err
    assert message in reported and "Traceback" not in reported
