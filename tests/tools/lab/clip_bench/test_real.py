"""The bench of real clips: what a folder says, figures of made-up results, and two rendered clips through the whole way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from apexstream.clips import preset, write_clip
from engine.errors import InputError
from lab.clip_bench.__main__ import app
from lab.clip_bench.real.command import result_line
from lab.clip_bench.real.folder import RealClip, TrueEvent, read_clips
from lab.clip_bench.real.page import write_page
from lab.clip_bench.real.score import RealResult, real_summary
from lab.clip_bench.real.watch import strip


def event(
    onset: float, apex: float, offset: float, label: str = "uncertain", confidence: float = 0.8, **more: Any
) -> dict[str, Any]:
    marks = {name: {"frame": round(30 * t), "t": t} for name, t in (("onset", onset), ("apex", apex), ("offset", offset))}
    fixed = {"face": 0, "kind": "micro", "label": label, "confidence": confidence, "intensity": 1.0, "picture": None}
    return {**fixed, **marks, **more}


def result(*events: dict[str, Any], truths: tuple[TrueEvent, ...] = (), name: str = "a.mp4", **clip: str) -> RealResult:
    record = {"file": name, "seconds": 30.0, "frames": 900, "frames_with_face": 900, "blinks": 2, "events": list(events)}
    record |= {"pipeline_s": 9.0, "model": "net@1", "problem": None}
    return RealResult(RealClip(name, Path(name), truths=truths, **clip), record)


TRUTHS = (
    TrueEvent(1.0, 1.2, 1.6, "positive", "timed"),
    TrueEvent(5.0, 5.5, 6.0, "surprise", "injected"),
    TrueEvent(9.0, 9.2, 9.5, "others", "timed"),
)
POSING = result(
    event(1.1, 1.3, 1.6, "positive"),  # right both ways
    event(5.4, 5.45, 5.5, "negative"),  # its apex is inside, it is too short
    event(5.6, 5.9, 6.4, "surprise"),  # likewise, further from the apex
    event(9.0, 9.6, 9.7, "negative"),  # overlaps by half, its apex is outside
    event(20.0, 20.1, 20.2),  # matches none
    truths=TRUTHS,
    kind="posing",
    person="anna",
)
SPEECH = result(event(2.0, 2.1, 2.4, "negative"), name="b.mp4", kind="speech", person="ben")


def test_an_event_is_right_by_overlap_or_by_its_apex() -> None:
    assert POSING.by_overlap == {0: 0, 3: 2}
    assert POSING.by_apex == {0: 0, 1: 1}
    assert [e.onset for e in POSING.others] == [20.0]


def test_figures_are_by_kind_person_and_source() -> None:
    summary = real_summary([POSING, SPEECH])
    kinds = {g["group"]: g for g in summary["kinds"]}
    assert list(kinds) == ["all", "speech", "posing"]
    assert (kinds["posing"]["events_per_min"], kinds["posing"]["named_per_min"]) == (10.0, 8.0)
    assert (kinds["posing"]["others_per_min"], kinds["posing"]["others_named_per_min"]) == (2.0, 0.0)
    assert (kinds["speech"]["others"], kinds["speech"]["others_named"], kinds["all"]["blinks_per_min"]) == (1, 1, 4.0)
    assert [(g["group"], g["events"]) for g in summary["people"]] == [("anna", 5), ("ben", 1)]
    truths = {g["group"]: g for g in summary["truths"]}
    assert list(truths) == ["all", "posing", "injected", "timed"]
    overlap, apex = truths["all"]["overlap"], truths["all"]["apex"]
    assert (overlap["hits"], overlap["recall"], overlap["precision"], overlap["f1"]) == (2, 0.6667, 0.4, 0.5)
    assert (overlap["judged"], overlap["right"]) == (1, 1)
    assert (apex["judged"], apex["right"], apex["class_accuracy"]) == (2, 1, 0.5)
    assert (truths["injected"]["overlap"]["recall"], truths["injected"]["apex"]["recall"]) == (0.0, 1.0)
    assert truths["injected"]["found"] is truths["injected"]["apex"]["precision"] is None


def test_a_labelled_clip_is_judged_by_its_surest_named_event() -> None:
    clips = [
        result(event(1, 2, 3, "positive", 0.7), event(4, 5, 6, "negative", 0.6), label="positive"),
        result(event(1, 2, 3), label="positive"),
        result(
            event(1, 2, 3, "positive", 0.9, expression_probability=0.3),
            event(4, 5, 6, "surprise", 0.6, expression_probability=0.9),
            label="surprise",
        ),
        result(event(1, 2, 3, "negative"), label="neutral"),
        result(event(1, 2, 3), label="neutral"),
    ]
    labelled = real_summary(clips)["labelled"]
    assert labelled["answers"]["positive"] == {"negative": 0, "positive": 1, "surprise": 0, "nothing": 1}
    assert (labelled["uar"], labelled["neutral"], labelled["neutral_named"]) == (0.75, 2, 1)
    assert real_summary([POSING])["labelled"] is None


def test_a_clip_in_a_line() -> None:
    assert result_line(POSING) == "a.mp4 (posing): 5 events, 4 named, 2 blinks, 2 of 3 known found in 30.0 s; 9 s"


def test_the_page_shows_what_events_say_and_how_they_lie_to_the_truth(tmp_path: Path) -> None:
    name = "a <b> & c.mp4"
    details: dict[str, Any] = {"expression_probability": 0.42, "speaking": True, "why": "large"}
    clip = result(event(1.1, 1.3, 1.6, **details, picture="x #1.jpg"), truths=TRUTHS, name=name, kind="posing")
    page = write_page(tmp_path, [clip, SPEECH], real_summary([clip, SPEECH])).read_text()
    assert "<b>" not in page
    for part in (
        "expression 0.42",
        "speaking",
        "uncertain: large",
        "overlap and apex inside: timed positive",
        'href="#posing"',
    ):
        assert part in page
    assert "pictures/x%20%231.jpg" in page
    assert page.count("missed:") == 2
    assert "stays on this machine" in page


# --- folders ---------------------------------------------------------------------------------------------------------


def folder(place: Path, *names: str, manifest: str = "", labels: str = "") -> Path:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"")
    for name, text in (("manifest.csv", manifest), ("labels.csv", labels)):
        if text:
            (place / name).write_text(text)
    return place


def test_a_folder_without_tables_holds_clips_of_kind_other(tmp_path: Path) -> None:
    clips = read_clips(folder(tmp_path, "b.MP4", "deep/a.webm", "notes.txt"))
    assert [(c.name, c.kind, c.person, c.truths) for c in clips] == [
        ("b.MP4", "other", "", ()),
        ("deep/a.webm", "other", "", ()),
    ]


def test_tables_say_what_clips_are_and_what_is_in_them(tmp_path: Path) -> None:
    place = folder(
        tmp_path,
        "a.mp4",
        "b.mp4",
        "c.mp4",
        manifest="file,person,kind,note,label,split\nb.mp4,ben,speech,he talks,,test\na.mp4, anna ,posing,,positive,tune\n",
        labels="file,onset,apex,offset,label\na.mp4,2,2.5,3,\na.mp4,1,1.2,1.4,surprise\n",
    )
    a, b, c = read_clips(place)
    assert (a.person, a.kind, a.label, b.note, b.split, c.kind) == ("anna", "posing", "positive", "he talks", "test", "other")
    assert a.truths == (TrueEvent(1.0, 1.2, 1.4, "surprise", "timed"), TrueEvent(2.0, 2.5, 3.0, "", "timed"))
    assert [clip.name for clip in read_clips(place, split="tune")] == ["a.mp4"]
    assert [clip.name for clip in read_clips(place, only="b*, c*")] == ["b.mp4", "c.mp4"]


@pytest.mark.parametrize(
    ("manifest", "labels", "shown"),
    [
        ("file,kind\nz.mp4,quiet\n", "", r"line 2: there is no video 'z.mp4'"),
        ("file,kind\na.mp4,loud\n", "", r"kind is one of speech, .*not 'loud'"),
        ("file,label\na.mp4,happy\n", "", r"label is one of nothing, negative.*not 'happy'"),
        ("name\na.mp4\n", "", r"no column file"),
        ("", "file,onset,apex,offset\na.mp4,1,x,2\n", r"onset, apex and offset are seconds"),
        ("", "file,onset,apex,offset\na.mp4,1,3,2\n", r"follow each other, not 1, 3, 2"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, manifest: str, labels: str, shown: str) -> None:
    with pytest.raises(InputError, match=shown):
        read_clips(folder(tmp_path, "a.mp4", manifest=manifest, labels=labels))


def test_nothing_to_watch_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no video in"):
        read_clips(folder(tmp_path))
    with pytest.raises(InputError, match="no video that matches 'x'"):
        read_clips(folder(tmp_path, "a.mp4"), only="x")
    with pytest.raises(InputError, match="is no folder"):
        read_clips(tmp_path / "none")


# --- pictures --------------------------------------------------------------------------------------------------------


def test_a_strip_shows_three_moments_and_the_change() -> None:
    onset, apex = np.full((128, 128), 100, np.uint8), np.full((128, 128), 110, np.uint8)
    panels = np.hsplit(strip(onset, apex, None), 4)
    assert [int(panel.mean()) for panel in panels] == [100, 110, 128, 168]


# --- the whole way ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of four seconds: one with a known expression, one with none; and a file that is no video."""
    place = tmp_path_factory.mktemp("clips")
    write_clip(preset("clean", "hopper", 30, 1, 4.0, n_events=1), place / "smile.mp4")
    write_clip(preset("clean", "astronaut", 30, 2, 4.0, n_events=0), place / "quiet.mp4")
    (place / "broken.mp4").write_bytes(b"no video")
    (place / "manifest.csv").write_text("file,person,kind\nsmile.mp4,hopper,posing\nquiet.mp4,astronaut,quiet\n")
    return place


def test_clips_with_known_truth_end_to_end_and_resumed(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ["real", "--clips", str(clips), "--out", str(out), "--jobs", "1"]
    first = CliRunner().invoke(app, args)
    assert first.exit_code == 1, first.output  # for the broken one
    assert "error: broken.mp4:" in first.output
    figures = json.loads((out / "figures.json").read_text())
    kinds = {g["group"]: g for g in figures["kinds"]}
    assert (kinds["quiet"]["events"], kinds["posing"]["events"], kinds["posing"]["others"]) == (0, 1, 0)
    assert len(figures["failures"]) == 1
    known = figures["truths"][0]
    assert (known["truths"], known["overlap"]["hits"], known["apex"]["hits"]) == (1, 1, 1)
    page = (out / "index.html").read_text()
    pictures = list((out / "pictures").iterdir())
    assert len(pictures) == page.count("<img") == 1
    shown = cv2.imread(str(pictures[0]), cv2.IMREAD_GRAYSCALE)
    assert shown is not None
    assert shown.shape == (128, 512)
    onset, apex, offset, _ = np.hsplit(shown.astype(int), 4)
    assert np.abs(apex - onset).mean() > 2 * np.abs(offset - onset).mean()  # the face is neutral again
    again = CliRunner().invoke(app, [*args, "--only", "smile*"])
    assert again.exit_code == 0, again.output
    assert "0 to do" in again.output
    assert list((out / "pictures").iterdir()) == pictures


def test_another_name_or_content_is_another_job(clips: Path, tmp_path: Path) -> None:
    from engine.config import PipelineSettings
    from lab.clip_bench.real.watch import RealJob

    copy = tmp_path / "smile.mp4"
    shutil.copy(clips / "smile.mp4", copy)
    job = RealJob.of(RealClip("smile.mp4", clips / "smile.mp4"), PipelineSettings(), None)
    assert RealJob.of(RealClip("smile.mp4", copy), PipelineSettings(), None).key == job.key
    assert RealJob.of(RealClip("other.mp4", copy), PipelineSettings(), None).key != job.key
    assert RealJob.of(RealClip("smile.mp4", copy), PipelineSettings(), tmp_path).key != job.key
    with pytest.raises(InputError, match="cannot be read"):
        RealJob.of(RealClip("gone.mp4", tmp_path / "gone.mp4"), PipelineSettings(), None)
