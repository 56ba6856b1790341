"""The real tables against the composite database's own, row by row, and each loader on small tables of the same form."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import InputError
from tests.databases import casme2_table, casme3_table, samm_table
from training.datasets.clips import Annotation, Clip
from training.datasets.databases import DATABASES
from training.datasets.htnet_3db import TABLE


def read(name: str, data_dir: Path) -> Annotation:
    return DATABASES[name].read(data_dir / "annotations" / DATABASES[name].table)


def per_class(clips: tuple[Clip, ...]) -> list[int]:
    counts = Counter(clip.label for clip in clips)
    return [counts[label] for label in range(3)]


@pytest.mark.data
@pytest.mark.parametrize(("name", "counts"), [("casme2", [88, 32, 25]), ("samm", [92, 26, 15]), ("smic", [70, 51, 43])])
def test_clips_and_labels_are_those_of_the_composite(name: str, counts: list[int], data_dir: Path) -> None:
    with (data_dir / "htnet-3db" / TABLE).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == name]
    clips = read(name, data_dir).clips
    ours = {(clip.subject, clip.name): clip.label for clip in clips}
    assert ours == {(f"{name}/{row['sub']}", row["filename_o"]): int(row["label"]) for row in rows}
    assert len(clips) == len(rows) == sum(counts) and per_class(clips) == counts
    assert {clip.key for clip in clips} == {f"{row['sub']}_{row['filename_o']}" for row in rows}


@pytest.mark.data
def test_casme3_has_the_documented_counts(data_dir: Path) -> None:
    found = read("casme3", data_dir)
    assert per_class(found.clips) == [438, 49, 183] and len({clip.subject for clip in found.clips}) == 87
    emotions = Counter(clip.emotion for clip in found.clips)
    assert emotions == {"disgust": 245, "surprise": 183, "fear": 82, "sad": 56, "anger": 55, "happy": 49}
    assert Counter(each.why for each in found.left_out) == {"class": 161, "table": 29}
    outside = [each.name for each in found.left_out if "outside" in each.reason]
    assert outside == ["spNO.149_d_83"]


@pytest.mark.data
@pytest.mark.parametrize(("name", "rows"), [("casme2", 255), ("samm", 159), ("smic", 157 + 15 + 3), ("casme3", 860)])
def test_every_row_is_a_clip_or_left_out_with_a_reason(name: str, rows: int, data_dir: Path) -> None:
    found = read(name, data_dir)
    assert len(found.clips) + len(found.left_out) == rows
    assert all(each.reason for each in found.left_out)


@pytest.mark.data
@pytest.mark.parametrize("name", list(DATABASES))
def test_frames_of_real_clips_can_be_measured(name: str, data_dir: Path) -> None:
    for clip in read(name, data_dir).clips:
        if clip.onset is None:
            assert clip.apex is None and clip.offset is None
        else:
            assert clip.apex is not None and clip.offset is not None and clip.onset < clip.apex <= clip.offset


@pytest.mark.data
def test_the_two_of_disgust_that_the_composite_lacks_have_no_motion_to_measure(data_dir: Path) -> None:
    lost = {each.name: each.reason for each in read("casme2", data_dir).left_out if each.why == "table"}
    assert lost["sub04_EP12_01f"] == "the table has no apex"
    assert lost["sub05_EP09_05f"].startswith("the apex is the onset itself (69)") and len(lost) == 2


@pytest.mark.parametrize(
    ("name", "write", "row", "found"),
    [
        ("casme2", casme2_table, ("01", "EP02_01f", 46, 59, 86, "happiness"), ("sub01", "sub01/EP02_01f", 1, 200)),
        ("samm", samm_table, ("006", "006_1_2", 46, 59, 86, "Surprise"), ("006", "006/006_1_2", 2, 200)),
        ("casme3", casme3_table, ("spNO.1", "b", 46, 59, 86, "sad"), ("spNO.1", "spNO.1/b/color", 0, 30)),
    ],
)
def test_a_row_becomes_a_clip(
    name: str, write: Callable[..., Path], row: tuple[str, ...], found: tuple[str, str, int, float], tmp_path: Path
) -> None:
    (clip,) = DATABASES[name].read(write(tmp_path / "table.xlsx", row)).clips
    subject, folder, label, fps = found
    assert (clip.subject, clip.folders, clip.label, clip.fps) == (f"{name}/{subject}", (folder,), label, fps)
    assert (clip.onset, clip.apex, clip.offset, clip.emotion) == (46, 59, 86, row[-1].casefold())


@pytest.mark.parametrize(
    ("name", "write", "subject"),
    [("casme2", casme2_table, "01"), ("samm", samm_table, "006"), ("casme3", casme3_table, "spNO.1")],
)
def test_unknown_emotions_and_missing_onsets_are_errors_with_their_place(
    name: str, write: Callable[..., Path], subject: str, tmp_path: Path
) -> None:
    happy = "happy" if name == "casme3" else "happiness"
    table = write(tmp_path / "table.xlsx", (subject, "a", 46, 59, 86, "bliss"))
    with pytest.raises(InputError, match=r"row \d+: the emotion 'bliss' is not known; .*surprise"):
        DATABASES[name].read(table)
    table = write(tmp_path / "table.xlsx", (subject, "a", "", 59, 86, happy))
    with pytest.raises(InputError, match=r"row \d+: the column Onset ?(Frame)? has no frame number"):
        DATABASES[name].read(table)


def test_frames_without_motion_are_left_out_with_the_reason(tmp_path: Path) -> None:
    rows = [("01", f"EP{k}", 46, apex, 86, "disgust") for k, apex in enumerate(("/", 46, 40, 90, 86))]
    found = DATABASES["casme2"].read(casme2_table(tmp_path / "table.xlsx", *rows, ("02", "EP1", 1, 2, 3, "others")))
    assert [clip.name for clip in found.clips] == ["EP4"]
    assert [(each.name, each.why, each.reason) for each in found.left_out] == [
        ("sub01_EP0", "table", "the table has no apex"),
        ("sub01_EP1", "table", "the apex is the onset itself (46), so there is no motion to measure"),
        ("sub01_EP2", "table", "the apex 40 lies outside the clip, 46 to 86"),
        ("sub01_EP3", "table", "the apex 90 lies outside the clip, 46 to 86"),
        ("sub02_EP1", "class", "others belongs to none of the three classes"),
    ]


def test_a_clip_named_twice_is_an_error(tmp_path: Path) -> None:
    row = ("01", "EP02_01f", 46, 59, 86, "happiness")
    with pytest.raises(InputError, match="the clip sub01_EP02_01f twice"):
        DATABASES["casme2"].read(casme2_table(tmp_path / "table.xlsx", row, row))


def test_a_subject_spelled_in_two_ways_is_an_error(tmp_path: Path) -> None:
    rows = [(subject, "a", 46, 59, 86, "happy") for subject in ("spNO.1", "spno.1")]
    with pytest.raises(InputError, match=r"table\.xlsx spells one subject in two ways, 'casme3/spNO.1' and 'casme3/spno.1'"):
        DATABASES["casme3"].read(casme3_table(tmp_path / "table.xlsx", *rows))


def test_where_the_apex_is_part_of_the_name_it_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 2: the column Apex has no frame number"):
        DATABASES["casme3"].read(casme3_table(tmp_path / "table.xlsx", ("spNO.1", "a", 46, "/", 86, "happy")))
