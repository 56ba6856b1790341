"""`apexstream fetch`, and what other commands do where the face model is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from apexstream.cli import main
from apexstream.commands.fetch import have_face_model
from engine.errors import SourceError
from engine.mesh import bundle
from stream import face_model

MODEL = bundle.place().path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model is looked for, and is not yet."""
    path = tmp_path / "models" / "face.task"
    monkeypatch.setenv(bundle.VARIABLE, str(path))
    return path


def exits(*args: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


def test_it_is_taken_from_a_file_and_is_there_then(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits("fetch", "--from", str(MODEL)) == 0
    assert place.read_bytes() == MODEL.read_bytes()
    assert exits("fetch") == 0
    output = capsys.readouterr()
    assert output.out == f"the face model is there: {place}\n" * 2
    assert output.err == "reading the face model (3.8 MB)\n", "nothing is fetched the second time"


def test_a_wrong_file_in_its_place_is_reported(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.parent.mkdir()
    place.write_bytes(b"something else")
    assert exits("fetch") == 1
    assert "remove it, and `apexstream fetch` fetches it" in capsys.readouterr().err


def test_an_analysis_without_it_and_without_a_network_is_one_sentence(
    place: Path, rendered_clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    assert exits("analyze", str(rendered_clip), "--out", str(place.parent / "out")) == 1
    output = capsys.readouterr().err
    assert output.count("\n") == 1 and "Network is unreachable" in output and face_model.CLOSED_NETWORK in output


def test_a_model_of_ones_own_is_not_fetched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "ADDRESS", "http://127.0.0.1:9/none")
    have_face_model(place.parent / "own.task")
    assert not place.exists()
    with pytest.raises(SourceError):
        have_face_model()
