"""`python -m apexstream.bench`, as a user of a borrowed machine runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from apexstream.bench import __main__ as command
from apexstream.bench.on_gpu import PARTS
from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[4]


def test_without_a_gpu_one_sentence_and_a_code_of_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": ".:tools", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TRITON_INTERPRET", None)
    arguments = [sys.executable, "-m", "apexstream.bench", "gpu", "--out", str(tmp_path / "gpu.json")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == command.NO_GPU
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: there is nothing to measure: ")
    assert not list(tmp_path.iterdir())


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = command.parser().parse_args(["gpu", "--parts", "timing, correctness", "--seconds", "60"])
    assert chosen.parts == ("correctness", "timing") and chosen.seconds == 60 and chosen.out == Path("gpu.json")
    assert command.parser().parse_args(["gpu"]).parts == PARTS
    with pytest.raises(SystemExit) as wrong:
        command.main(["gpu", "--parts", "speed"])
    assert wrong.value.code == 2
    assert "no part is called speed" in capsys.readouterr().err
    with pytest.raises(SystemExit) as asked:
        command.main(["gpu", "--help"])
    assert asked.value.code == 0
    assert "PYTHONPATH=.:tools python -m apexstream.bench gpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [(True, 0, ""), (False, 1, ""), (InputError("no record"), 1, "error: no record\n"), (KeyboardInterrupt(), 1, "stopped; ")],
)
def test_exit_codes(
    outcome: bool | BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*_: object, **__: object) -> bool:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr("apexstream.bench.on_gpu.run.measure", measure)
    assert command.main(["gpu"]) == code
    assert capsys.readouterr().err.startswith(words)
