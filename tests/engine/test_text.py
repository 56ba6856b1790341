from __future__ import annotations

import csv
import json
from xml.etree.ElementTree import Element, fromstring, tostring

import pytest

from engine.text import cell_text, csv_line, cue, json_line, plain, plain_lines, xml_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zürich 東京 café.mp4", "Zürich 東京 café.mp4"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("csi \x9b31m", "csi \\x9b31m"),
        ("abc\u202e4pm.exe", "abc\\u202e4pm.exe"),
        ("not utf-8 \udcff", "not utf-8 \\udcff"),
        (KeyError("x"), "'x'"),
    ],
)
def test_a_line_steers_no_terminal(text: object, shown: str) -> None:
    assert plain(text) == shown
    assert plain(text).encode()


def test_lines_stay_lines() -> None:
    assert plain_lines("a\x07\nb") == "a\\x07\nb"


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1+cmd", "-cmd", "@SUM(1)", " =1+1", "\t=1+1", "＝1+1", "=1+1\n=2"])
def test_no_cell_is_a_formula(text: str) -> None:
    (row,) = csv.reader([csv_line([text, "b"])])
    assert row[0][0] in "'\\", row
    assert cell_text(row[0]) == plain(text)


@pytest.mark.parametrize("value", ["-3.770000", "+4", "-inf", -2.5, 7, "4+12", "plain, with a comma", "it's", "'quoted'", ""])
def test_numbers_and_words_stay_as_they_are(value: object) -> None:
    (row,) = csv.reader([csv_line([value, "b"])])
    assert row == [str(value), "b"]
    assert cell_text(row[0]) == str(value)


def test_json_is_the_same_text() -> None:
    value = {"a": "Zürich\x1b[2J\x9b\u202e\udcff", "b": [1, None]}
    line = json_line(value)
    assert line == '{"a": "Zürich\\u001b[2J\\u009b\\u202e\\udcff", "b": [1, null]}'
    assert json.loads(line) == value and line.encode()


def test_a_cue_has_no_markup_and_no_second_line() -> None:
    assert cue("<v Eve>a --> b\n\n00:00") == "&lt;v Eve&gt;a --&gt; b\\n\\n00:00"


def test_xml_has_no_character_that_it_cannot_hold() -> None:
    text = xml_text("<b>&\x00\ufffe\uffff\ud800 é")
    assert text == "<b>&\\x00\\ufffe\\uffff\\ud800 é"
    element = Element("note")
    element.text = text
    assert fromstring(tostring(element)).text == text
