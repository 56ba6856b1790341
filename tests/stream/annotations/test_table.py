from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InputError
from stream.annotations.table import read_table
from stream.annotations.timed_label import TimedLabel, Wanted
from tests.exports import exported
from tests.stream.annotations.test_boris import EXPORTED

HERE = Path(__file__).parent
"""Holds the tables that BORIS 9.12.3 itself exported from the project of `tests.exports`."""


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "codes.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("name", ["boris_tabular.tsv", "boris_aggregated.tsv"])
def test_tables_that_boris_exports_are_read(name: str) -> None:
    assert read_table(HERE / name, Wanted()) == EXPORTED
    assert [one.label for one in read_table(HERE / name, Wanted(("activity",)))] == ["blink", "speech"]


def test_older_tables_of_boris_are_read(tmp_path: Path) -> None:
    """They begin with lines about the observation, and call the column of starts and stops Status."""
    text = (
        "Observation id\tone\t\t\t\n\nMedia file(s)\n\n"
        "Time\tMedia file path\tSubject\tBehavior\tModifiers\tComment\tStatus\n"
        "1.5\tx.mp4\tanna\thappiness\tmicro\t\tSTART\n1.75\tx.mp4\tanna\thappiness\tmicro\t\tSTOP\n"
    )
    assert read_table(table(tmp_path, text), Wanted()) == [TimedLabel(1.5, 1.75, "happiness")]


def test_our_own_table_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(exported("csv"))
    found = read_table(path, Wanted())
    assert [(one.label, one.face, round(one.start, 2), round(one.apex or 0, 2), round(one.end, 2)) for one in found] == [
        ("surprise", 0, 1.0, 1.2, 1.4),
        ("positive", 0, 6.83, 7.07, 7.33),
        ("negative", 0, 7.0, 7.5, 8.0),
        ("uncertain", 1, 7.07, 7.2, 7.37),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("onset,offset,emotion\n1,1.5,happiness\n", TimedLabel(1, 1.5, "happiness")),
        ("Start;End;Label;Apex\n1,25;1,5;AU12;1,3\n", TimedLabel(1.25, 1.5, "AU12", 1.3)),
        ("start\tend\tlabel\n00:01:02.5\t1:03\tfear\n", TimedLabel(62.5, 63, "fear")),
        ("onset_frame,apex_frame,offset_frame,code\n30,36,45,fear\n", TimedLabel(1, 1.5, "fear", 1.2)),
        ('start,end,label,note\n1,2,fear,"two\nlines"\n\n', TimedLabel(1, 2, "fear")),
        ("start,end,label\n1,1,'=cmd\n", TimedLabel(1, 1, "=cmd")),
    ],
)
def test_any_table_with_start_end_and_label_is_read(tmp_path: Path, text: str, expected: TimedLabel) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert read_table(table(tmp_path, text, encoding), Wanted(fps=30.0)) == [expected]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no header with names of columns"),
        ("1,2,fear\n", "no header with names of columns"),
        ("start,label\n1,fear\n", "its header lacks end; it has the columns start, label"),
        ("onset_frame,offset_frame,label\n30,45,fear\n", "its header lacks start, end"),
        ("start,end,label\n1,2,a\n1,x,fear\n", "line 3: 'x' is no time"),
        ("start,end,label\n1\n", "line 2: '' is no time"),
        ("start,end,label\n2,1,fear\n", "line 2: the annotation 'fear' ends at 1.000 s, before it starts"),
        ("start,end,label\nnan,1,fear\n", "line 2: the annotation 'fear' has no times"),
        ("Time,Behavior,Behavior type\n1,fear,BEGIN\n", "line 2: 'BEGIN' is none of START, STOP and POINT"),
        ("Time,Behavior,Behavior type\n1,fear,START\n", "the state 'fear' of 'no subject' at 1.000 s has no stop"),
        ("Subject,Time,Comment\n\t\n", "its header lacks start, end, label; it has the columns subject, time, comment"),
    ],
)
def test_what_is_missing_or_wrong_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read_table(table(tmp_path, text), Wanted())
    assert sentence in str(caught.value)


def test_other_encodings_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text in UTF-8"):
        read_table(table(tmp_path, "start,end,label\n1,2,müde\n", "latin-1"), Wanted())
    (tmp_path / "x.csv").write_bytes(b"start,end,label\n1,2,\x00\n")
    with pytest.raises(InputError, match="no text"):
        read_table(tmp_path / "x.csv", Wanted())


def test_a_table_without_rows_has_no_labels(tmp_path: Path) -> None:
    assert read_table(table(tmp_path, "start,end,label\n"), Wanted()) == []
