from __future__ import annotations

from pathlib import Path

import pytest
import typer

from apexstream.commands.options import (
    all_of,
    number_of_jobs,
    number_of_processes,
    one_of,
    valid_seq,
    with_engines,
    with_network,
    with_sensitivity,
)
from engine.config import PipelineSettings, RecognizerSettings
from stream.schema import LAST_SEQ


def test_one_of_takes_its_words_and_nothing() -> None:
    check = one_of(("low", "high"))
    assert (check("low"), check(None)) == ("low", None)
    with pytest.raises(typer.BadParameter, match="'lo' is none of low, high"):
        check("lo")


def test_all_of_takes_several_in_small_letters_or_not() -> None:
    check = all_of(("eaf", "textgrid"))
    assert (check(["EAF", "TextGrid"]), check([]), check(None)) == (["eaf", "textgrid"], [], [])
    with pytest.raises(typer.BadParameter, match="'xlsx' is none of eaf, textgrid"):
        check(["eaf", "xlsx"])


def test_a_number_beyond_every_event_is_wrong_usage() -> None:
    assert (valid_seq(None), valid_seq(0), valid_seq(LAST_SEQ)) == (None, 0, LAST_SEQ)
    with pytest.raises(typer.BadParameter, match="more than any event's number"):
        valid_seq(LAST_SEQ + 1)


@pytest.mark.parametrize(("given", "expected"), [("auto", "auto"), ("0", 0), ("4", 4)])
def test_the_number_of_processes(given: str, expected: int | str) -> None:
    assert number_of_processes(given) == expected


@pytest.mark.parametrize("given", ["", "-1", "four", "100000", "²"])
def test_no_number_of_processes(given: str) -> None:
    with pytest.raises(typer.BadParameter, match="neither auto nor a number"):
        number_of_processes(given)


def test_options_replace_settings_where_they_are_given(tmp_path: Path) -> None:
    settings = PipelineSettings(recognizer=RecognizerSettings(weights=tmp_path / "own.onnx"))
    assert with_network(settings, None, None) == with_sensitivity(settings, None) == settings
    named = with_network(settings, "htnet", None).recognizer
    assert (named.network, named.weights) == ("htnet", None)
    assert with_network(settings, None, tmp_path / "given.onnx").recognizer.weights == tmp_path / "given.onnx"
    assert with_sensitivity(settings, "high").spotter.sensitivity == "high"


def test_compiled_networks_lie_in_the_users_data_folder_unless_set_otherwise(tmp_path: Path) -> None:
    place = with_engines(PipelineSettings()).recognizer.engine_cache
    assert place is not None and place.parts[-2:] == ("apexstream", "engines")
    assert with_engines(PipelineSettings(), tmp_path).recognizer.engine_cache == tmp_path / "engines"
    reported = PipelineSettings(recognizer=RecognizerSettings(engine_cache=tmp_path))
    assert with_engines(reported) == reported


@pytest.mark.parametrize("given", ["auto", "1", "64"])
def test_jobs_that_can_be_meant(given: str) -> None:
    assert number_of_jobs(given) == given


@pytest.mark.parametrize("given", ["0", "65", "-1", "two", "1.5", "²"])
def test_jobs_that_cannot_be_meant(given: str) -> None:
    with pytest.raises(typer.BadParameter, match="neither auto nor a number from 1 to 64"):
        number_of_jobs(given)
