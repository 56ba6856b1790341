from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.config import PipelineSettings, RecognizerSettings, load_settings, parse_settings, read_toml
from engine.errors import ConfigError
from engine.models import ARCHITECTURES


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.touch()
    assert load_settings(path) == PipelineSettings() == parse_settings({})


def test_values_come_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[landmarks]\nmax_faces = 2\n[recognizer]\nuncertain_below = 0.5\n")
    settings = load_settings(path)
    assert (settings.landmarks.max_faces, settings.recognizer.uncertain_below) == (2, 0.5)
    assert settings.spotter == PipelineSettings().spotter


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"spoter": {}}, "here: spoter: extra inputs"),
        ({"landmarks": {"faces": 1}}, r"here: landmarks\.faces: extra inputs"),
        ({"landmarks": {"max_faces": 0}}, r"here: landmarks\.max_faces: .*greater than or equal to 1"),
        ({"recognizer": {"network": "resnet"}}, r"here: recognizer\.network: .*'resnet'; there are ahmsa, htnet, hfa"),
        ({"recognizer": {"uncertain_below": 2}}, r"here: recognizer\.uncertain_below: .*less than or equal to 1"),
    ],
)
def test_mistakes_are_reported_with_their_place(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings(content, "here")


def test_a_file_that_is_no_toml_or_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match="no valid TOML"):
        read_toml(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no valid TOML"):
        read_toml(tmp_path / "a.toml")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PipelineSettings().landmarks.max_faces = 3  # type: ignore[misc]


def test_every_architecture_can_be_configured() -> None:
    assert [RecognizerSettings.model_validate({"network": name}).network for name in ARCHITECTURES] == list(ARCHITECTURES)


def test_settings_nested_without_end_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    for text in ("a = " + "[" * 5000 + "]" * 5000, "a = " + "{a = " * 5000 + "1" + "}" * 5000):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"deep\.toml is nested deeper"):
            read_toml(path)


def test_a_path_that_no_system_has_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model is no possible path"):
        parse_settings({"landmarks": {"model": "a\0b"}})
