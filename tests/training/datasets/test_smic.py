from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InputError
from tests.databases import smic_table
from training.datasets import CLASSES
from training.datasets.smic import WITHOUT_FRAMES, read

LONG = (100, 900)


def test_the_middle_frame_stands_for_the_apex(tmp_path: Path) -> None:
    clip = read(smic_table(tmp_path / "t.xlsx", (3, "s3_po_01", (200, 231), LONG, "positive"))).clips[0]
    assert (clip.onset, clip.apex, clip.offset) == (200, 215, 231)
    assert (clip.subject, clip.name, clip.key, clip.fps) == ("smic/s03", "s03_po_01", "s03_s03_po_01", 100)


def test_a_further_expression_is_taken_where_its_number_is_free(tmp_path: Path) -> None:
    rows = [(4, "s4_ne_04", (200, 230, 300, 320, 400, 420), LONG, "negative"), (4, "s4_ne_07", (150, 170), LONG, "negative")]
    found = read(smic_table(tmp_path / "t.xlsx", *rows))
    assert [(clip.name, clip.onset, clip.offset) for clip in found.clips[:4]] == [
        ("s04_ne_04", 200, 230),
        ("s04_ne_05", 300, 320),
        ("s04_ne_06", 400, 420),
        ("s04_ne_07", 150, 170),
    ]
    assert found.clips[1].folders == ("s4_ne_05", "s4_ne_04") and not found.left_out
    assert found.notes[0] == "s04_ne_05 is a further expression of the clip s04_ne_04"


def test_further_expressions_that_are_none_are_left_out_with_the_reason(tmp_path: Path) -> None:
    rows = [
        (20, "s20_ne_06", (200, 230, 300, 320, 50, 100), LONG, "negative"),
        (20, "s20_ne_07", (400, 420), LONG, "negative"),
        (9, "s9_sur_01", (200, 230, 300, 320, 300, 320), LONG, "surprise"),
    ]
    found = read(smic_table(tmp_path / "t.xlsx", *rows))
    assert [clip.name for clip in found.clips[:4]] == ["s20_ne_06", "s20_ne_07", "s09_sur_01", "s09_sur_02"]
    assert [(each.name, each.reason) for each in found.left_out] == [
        ("s20_s20_ne_06, second expression", "it is none of the composite's: s20_ne_07 is another clip"),
        ("s20_s20_ne_06, third expression", "its frames, 50 to 100, lie outside the clip, 100 to 900"),
        ("s09_s09_sur_01, third expression", "its frames, 300 to 320, are those of the one before"),
    ]


def test_where_name_and_table_disagree_the_name_is_used_and_noted(tmp_path: Path) -> None:
    found = read(smic_table(tmp_path / "t.xlsx", (18, "s18_sur_03", (200, 230), LONG, "negative")))
    assert CLASSES[found.clips[0].label] == "surprise"
    assert found.notes == ("s18_sur_03: the table says negative, its name surprise; the name is used, as in the composite",)


def test_clips_without_frames_in_the_table_are_looked_for_as_folders_of_their_own(tmp_path: Path) -> None:
    clips = read(smic_table(tmp_path / "t.xlsx", (3, "s3_po_01", (200, 231), LONG, "positive"))).clips[1:]
    assert tuple(clip.name for clip in clips) == WITHOUT_FRAMES
    assert all(clip.onset is None and clip.apex is None and clip.offset is None for clip in clips)
    assert [clip.folders for clip in clips] == [("s1_ne_02",), ("s2_sur_05",), ("s3_ne_20",)]


def test_a_clip_with_two_rows_is_an_error(tmp_path: Path) -> None:
    rows = [(3, "s3_po_01", (200, 231), LONG, "positive"), (3, "s03_po_1", (300, 331), LONG, "positive")]
    with pytest.raises(InputError, match=r"row 3: the clip s03_po_01 has a row already, .*row 2"):
        read(smic_table(tmp_path / "t.xlsx", *rows))


def test_a_subject_that_is_not_the_names_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 2: the subject is 4, the clip's name s3_po_01 says 3"):
        read(smic_table(tmp_path / "t.xlsx", (4, "s3_po_01", (200, 231), LONG, "positive")))


def test_frames_without_motion_are_left_out_when_the_table_is_read(tmp_path: Path) -> None:
    rows = [(3, "s3_po_01", (231, 200), LONG, "positive"), (3, "s3_po_02", (200, 201, 300, 301), LONG, "positive")]
    found = read(smic_table(tmp_path / "t.xlsx", *rows))
    assert [(each.name, each.why, each.reason) for each in found.left_out] == [
        ("s03_s03_po_01", "table", "the apex 215 lies outside the clip, 231 to 200"),
        ("s03_s03_po_02", "table", "the apex is the onset itself (200), so there is no motion to measure"),
        ("s03_s03_po_03", "table", "the apex is the onset itself (300), so there is no motion to measure"),
    ]
    assert [clip.name for clip in found.clips] == list(WITHOUT_FRAMES)


@pytest.mark.parametrize(
    ("name", "emotion", "message"),
    [("s3_xx_01", "positive", "s1_ne_01 is expected, not 's3_xx_01'"), ("s3_po_01", "joy", "'joy' is not known")],
)
def test_names_and_emotions_that_are_not_known_are_errors(name: str, emotion: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"row 2: .*{message}"):
        read(smic_table(tmp_path / "t.xlsx", (3, name, (200, 231), LONG, emotion)))


@pytest.mark.data
def test_of_the_real_tables_further_expressions_four_are_taken(data_dir: Path) -> None:
    found = read(data_dir / "annotations" / "SMIC-HS-E_annotation.xlsx")
    taken = [note.split()[0] for note in found.notes if "further" in note]
    assert taken == ["s03_ne_03", "s04_ne_05", "s04_ne_06", "s09_sur_02"]
    assert sum("is another clip" in each.reason for each in found.left_out) == 5
    assert sum("outside the clip" in each.reason for each in found.left_out) == 5
    assert sum("the one before" in each.reason for each in found.left_out) == 1
    assert [clip.name for clip in found.clips if clip.onset is None] == list(WITHOUT_FRAMES)
