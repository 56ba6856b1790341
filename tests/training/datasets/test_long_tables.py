"""The real tables of long videos, counted and set beside the published region flow; each reader on small tables of its form."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from engine.errors import InputError
from tests.databases import casme2_squared_table, casme3_long_table, casme3_table, samm_lv_table, samm_table
from training.datasets.long_tables import CASME2_SQUARED, CASME3, LONG_DATABASES, SAMM_LV, Annotation, LongDatabase, LongTable
from training.datasets.long_video import load

REAL = {"casme2-squared": "CASME_sq_gt.xlsx", "samm-lv": "SAMMLV_gt.xlsx", "casme3": "CAS(ME)3_part_A_v2.xls"}


def real(name: str, data_dir: Path) -> LongTable:
    return LONG_DATABASES[name].read(data_dir / "annotations" / REAL[name])


def per_kind(table: LongTable) -> dict[str, int]:
    return dict(Counter(one.kind for held in table.truth.values() for one in held))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts", "subjects"),
    [
        ("casme2-squared", {"micro": 57, "macro": 300}, 22),
        ("samm-lv", {"micro": 159, "macro": 343}, 30),
        ("casme3", {"micro": 860, "macro": 3346}, 98),
    ],
)
def test_real_tables_have_the_published_counts(name: str, counts: dict[str, int], subjects: int, data_dir: Path) -> None:
    table = real(name, data_dir)
    assert per_kind(table) == counts and not table.left_out
    assert len({subject for subject, _ in table.truth}) == subjects


@pytest.mark.data
@pytest.mark.parametrize(("name", "shared"), [("casme2-squared", 341), ("samm-lv", 449)])
def test_the_published_region_flow_calls_videos_alike_and_has_most_intervals(name: str, shared: int, data_dir: Path) -> None:
    """The published intervals differ where annotations overlap or lack an offset, and are every 8th frame for SAMM-LV."""
    table, flow = real(name, data_dir), load(name, data_dir / "roi-flow")
    database = LONG_DATABASES[name]
    assert database.flow_fps is not None
    step = database.fps / database.flow_fps
    ours = {video.name: [(one.onset, one.offset) for one in video.truth] for video in flow.videos}
    subjects = {video.name: video.subject for video in flow.videos}
    found = 0
    for (subject, video), held in table.truth.items():
        assert subjects[video] == subject
        for one in held:
            found += any(abs(a - one.onset / step) <= 1 and abs(b - one.offset / step) <= 1 for a, b in ours[video])
    assert found == shared


@pytest.mark.data
def test_real_emotions_come_from_the_tables_of_the_clips(data_dir: Path) -> None:
    labels = {name: Counter(one.label for held in real(name, data_dir).truth.values() for one in held) for name in REAL}
    assert labels["casme2-squared"] == {"negative": 126, "positive": 124, "surprise": 25, None: 82}
    assert labels["samm-lv"] == {"negative": 92, "positive": 26, "surprise": 15, None: 369}
    assert sum(labels["casme3"].values()) == 4206 and labels["casme3"]["surprise"] > 150


@pytest.mark.parametrize("name", list(LONG_DATABASES))
def test_the_example_names_a_video(name: str) -> None:
    database = LONG_DATABASES[name]
    assert database.identify(Path(database.example).parent.as_posix()) is not None


@pytest.mark.parametrize(
    ("database", "path", "place"),
    [
        (CASME2_SQUARED, "rawpic/s15/15_0101disgustingteeth", ("s15", "15_0101")),
        (CASME2_SQUARED, "015_0101", ("s15", "15_0101")),
        (CASME2_SQUARED, "rawpic/s15/15_01012", None),
        (SAMM_LV, "SAMM_longvideos/006_1", ("006", "006_1")),
        (SAMM_LV, "006/006_1_2", None),
        (CASME3, "part_A/spno.1/B/Color", ("spNO.1", "spNO.1_b")),
        (CASME3, "part_A/spNO.1/b/depth", None),
    ],
)
def test_a_folder_name_gives_subject_and_video(database: LongDatabase, path: str, place: tuple[str, str] | None) -> None:
    assert database.identify(path) == place


def test_casme2_squared_translates_names_and_fills_missing_offsets(tmp_path: Path) -> None:
    path = casme2_squared_table(
        tmp_path / "t.xlsx",
        (1, "anger1_2", 40, 48, 0, "negative", "macro-expression"),
        (1, "anger1_1", 10, 14, 20, "positive", "micro-expression"),
        (2, "happy1_1", 5, 0, 9, "others", "macro-expression"),
        (2, "happy1_2", 5, 12, 9, "surprise", "macro-expression"),
        (2, "happy1_3", 5, 0, 0, "surprise", "macro-expression"),
    )
    table = CASME2_SQUARED.read(path)
    assert table.truth == {
        ("s15", "15_0401"): (
            Annotation(10, 14, 20, "micro", "positive", "positive"),
            Annotation(40, 48, 56, "macro", "negative", "negative"),
        ),
        ("s16", "16_0502"): (
            Annotation(5, None, 9, "macro", None, "others"),
            Annotation(5, None, 9, "macro", "surprise", "surprise"),
        ),
    }
    assert table.left_out == (f"{path}, row 5: an expression from 5 to None is impossible",)


def test_samm_lv_rounds_frames_and_takes_emotions_from_samm(tmp_path: Path) -> None:
    path = samm_lv_table(
        tmp_path / SAMM_LV.table,
        ("006", "006_1_2", 562.0, 588, 632, "Micro - 1/2"),
        ("006", "006_1_1", 566.4, -1, 743.2, "Macro"),
    )
    macro = Annotation(566, None, 743, "macro")
    assert SAMM_LV.read(path).truth["006", "006_1"] == (Annotation(562, 588, 632, "micro"), macro)
    samm_table(tmp_path / "SAMM_Micro_FACS_Codes_v2.xlsx", ("006", "006_1_2", 1, 5, 9, "Fear"))
    assert SAMM_LV.read(path).truth["006", "006_1"] == (Annotation(562, 588, 632, "micro", "negative", "fear"), macro)


def test_casme3_takes_emotions_from_its_micro_expressions(tmp_path: Path) -> None:
    path = casme3_long_table(
        tmp_path / "t.xlsx",
        ("spNO.1", "a", 3, 7, 10, "Micro-expression"),
        ("spNO.1", "a", 37, 63, 65, "Macro-expression"),
    )
    casme3_table(tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", ("spNO.1", "a", 3, 7, 10, "happy"))
    first, second = CASME3.read(path).truth["spNO.1", "spNO.1_a"]
    assert first == Annotation(3, 7, 10, "micro", "positive", "happy") and second == Annotation(37, 63, 65, "macro")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((1, "anger1_1", 1, 2, 3, "negative", "big"), "row 1: an expression is micro or macro, not 'big'"),
        ((1, "anger1_1", 1, 2, 3, "joy", "macro-expression"), "row 1: the emotion 'joy' is not known"),
        ((9, "anger1_1", 1, 2, 3, "negative", "macro-expression"), "the sheets of naming rules lack 9 or anger1"),
        (
            (1, "anger1_1", "x", 2, 3, "negative", "macro-expression"),
            "row 1: a number is expected in the column onset, not 'x'",
        ),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_row(
    row: tuple[int, str, object, object, object, str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        CASME2_SQUARED.read(casme2_squared_table(tmp_path / "t.xlsx", row))


def test_a_name_that_is_no_expression_of_samm_is_an_error(tmp_path: Path) -> None:
    path = samm_lv_table(tmp_path / "t.xlsx", ("006", "first", 1, 2, 3, "Macro"))
    with pytest.raises(InputError, match="row 11: a name such as 006_1_2 is expected, not 'first'"):
        SAMM_LV.read(path)


@pytest.mark.data
def test_emotions_are_not_needed(data_dir: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(data_dir / "annotations" / REAL["casme3"], tmp_path))
    assert {one.label for held in CASME3.read(path).truth.values() for one in held} == {None}
