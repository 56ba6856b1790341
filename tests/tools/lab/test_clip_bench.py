"""The rendered benchmark: figures of made-up results, exact geometry, resumed runs, and one clip through the whole way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from apexstream.clips import ClipSpec, preset
from apexstream.clips.render import Scene
from apexstream.clips.spec import BlinkTruth, EventTruth, truth_path
from engine.config import PipelineSettings, SpotterSettings
from engine.errors import ApexError, InputError
from lab.clip_bench.__main__ import app, numbers
from lab.clip_bench.jobs import JUDGED, Job, Todo, code_version, recorded, run_jobs
from lab.clip_bench.registration import _unrest, facial_points, measure, project
from lab.clip_bench.score import all_figures, amplitude_bin, compare, figures, spotting_summary, still_summary
from lab.clip_bench.tables import miss_lines
from lab.clip_bench.watch import Found, Watched, rendered

ROOT = Path(__file__).resolve().parents[3]
TRUTHS = (
    EventTruth("positive", "smile", "micro", 1.2, 2.0, 2.2, 2.4),
    EventTruth("negative", "brow_lower", "macro", 3.5, 4.0, 4.8, 6.0),
    EventTruth("surprise", "brow_raise", "micro", 2.0, 8.0, 8.2, 8.4),
)


def found(
    onset: float, apex: float, offset: float, label: str, *, kind: str = "micro", announced_t: float | None = None
) -> Found:
    return Found(onset, apex, offset, kind, label, 0.8, 1.0, False, announced_t, offset + 0.2)


def watched(*events: Found, truths: tuple[EventTruth, ...] = TRUTHS, **changes: Any) -> Watched:
    blinks = (BlinkTruth(9.0, 9.1, 9.2),)
    clip = Watched("hopper", 30.0, 1, "warp-b", 12.0, 360, 360, truths, blinks, events, 1, 0, 4.0, "net@1")
    return replace(clip, **changes)


CLIP = watched(
    found(2.04, 2.23, 2.44, "positive", announced_t=2.35),  # right, 40 ms late
    found(3.9, 4.7, 5.9, "uncertain", kind="macro", announced_t=5.0),  # right, 100 ms early, without a class
    found(8.3, 8.4, 8.9, "surprise"),  # overlaps too little
    found(9.0, 9.1, 9.3, "negative"),  # a blink
)


def test_an_event_counts_when_it_overlaps_by_half() -> None:
    cases, strays = compare([CLIP])
    assert [c.found is not None for c in cases] == [True, True, False]
    assert [event.onset for _, event in strays] == [8.3, 9.0]


def test_figures_count_what_was_found_named_and_timed() -> None:
    line = figures("all", *compare([CLIP]))
    assert (line["truths"], line["found"], line["tp"]) == (3, 4, 2)
    assert (line["precision"], line["recall"], line["f1"]) == (0.5, 0.6667, 0.5714)
    assert (line["named"], line["right"], line["uncertain"]) == (1, 1, 1)
    assert (line["class_accuracy"], line["all_class_accuracy"], line["kind_accuracy"]) == (1.0, 0.5, 1.0)
    assert (line["onset"]["absolute_ms"], line["onset"]["signed_ms"]) == (70.0, -30.0)
    assert line["announced_ms"] == pytest.approx((150 + 200) / 2)
    assert line["final_ms"] == pytest.approx((240 + 100) / 2)


def test_nothing_to_count_is_none_rather_than_zero() -> None:
    line = figures("all", *compare([watched(truths=())]))
    ratios = (
        line["precision"],
        line["recall"],
        line["f1"],
        line["class_accuracy"],
        line["kind_accuracy"],
        line["announced_ms"],
    )
    assert all(value is None for value in ratios)
    assert line["onset"] is None


def test_groups_split_all_cases_and_only_clips_have_false_events() -> None:
    other = watched(found(1.0, 1.1, 1.2, "negative"), photo="astronaut", fps=120.0, renderer="warp-a")
    lines = {line["group"]: line for line in all_figures([CLIP, other])}
    assert (lines["120 fps"]["truths"], lines["120 fps"]["found"], lines["30 fps"]["found"]) == (3, 1, 4)
    assert lines["face astronaut"]["tp"] == lines["warp-a"]["tp"] == 0
    for names in (("micro", "macro"), ("smile", "brow_lower", "brow_raise"), ("0 to 1.5 px", "2 to 3 px", "3 and more px")):
        assert sum(lines[n]["truths"] for n in names) == lines["all"]["truths"] == 6
        assert all(lines[n]["found"] is None for n in names)


@pytest.mark.parametrize(("px", "name"), [(1.0, "0 to 1.5"), (1.5, "1.5 to 2"), (2.999, "2 to 3"), (6.0, "3 and more")])
def test_amplitudes_fall_into_bins(px: float, name: str) -> None:
    assert amplitude_bin(px) == name


def test_counts_are_pooled_before_ratios_are_formed() -> None:
    perfect = watched(*(found(e.onset_t, e.apex_t, e.offset_t, e.label, kind=e.kind) for e in TRUTHS), photo="astronaut")
    line = spotting_summary([CLIP, perfect])["groups"][0]
    assert (line["tp"], line["found"], line["truths"]) == (5, 7, 6)
    assert line["f1"] == pytest.approx(10 / 13, abs=1e-4)
    assert spotting_summary([CLIP, perfect])["confusion"]["negative"] == {
        "negative": 1, "positive": 0, "surprise": 0, "uncertain": 1,
    }  # fmt: skip


def test_a_still_face_is_judged_by_the_minute() -> None:
    noisy = watched(found(1.0, 1.1, 1.2, "negative"), truths=(), seconds=120.0)
    silent = watched(truths=(), seconds=180.0, photo="astronaut")
    groups = {g["group"]: g for g in still_summary([noisy, silent])["groups"]}
    assert groups["all"]["false_per_10_min"] == 2.0
    assert (groups["face hopper"]["false_per_10_min"], groups["face astronaut"]["false_per_10_min"]) == (5.0, 0.0)
    assert (groups["all"]["blinks_true"], groups["all"]["blinks_recognized"]) == (2, 2)


def test_every_miss_and_false_event_is_listed_with_what_lies_near() -> None:
    lines = list(miss_lines(*compare([CLIP])))
    assert len(lines) == 3
    assert "missed brow_raise" in lines[0]
    assert "overlap 0.11 with surprise" in lines[0]
    assert "false surprise" in lines[1]
    assert "a blink at 9.10 s" in lines[2]


def test_a_record_survives_json() -> None:
    assert Watched.of(json.loads(json.dumps(asdict(CLIP)))) == CLIP


# --- runs ------------------------------------------------------------------------------------------------------------


def jobs(folder: Path, *seeds: int) -> list[Job]:
    return [Job(ClipSpec(seed=seed), PipelineSettings(), folder) for seed in seeds]


def run(todo: list[Job], out: Path | None, version: str = "v1") -> tuple[list[Any], list[str]]:
    """Runs jobs whose result is their name; returns results and the names of those that really ran."""
    ran: list[str] = []

    def failed(job: Todo, error: ApexError) -> None:
        raise AssertionError(f"{job.name}: {error}")

    def done(job: Todo, _: Any) -> None:
        ran.append(job.name)

    return run_jobs(todo, attrgetter("name"), version=version, out=out, workers=1, done=done, failed=failed), ran


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run.jsonl"
    first, ran = run(jobs(tmp_path, 1, 2), out)
    assert ran == first == ["hopper 30 fps seed 1", "hopper 30 fps seed 2"]
    with out.open("a") as file:
        file.write('{"key": "half a li')
    again, ran = run(jobs(tmp_path, 2, 3, 1), out)
    assert again == ["hopper 30 fps seed 2", "hopper 30 fps seed 3", "hopper 30 fps seed 1"]
    assert ran == ["hopper 30 fps seed 3"]
    known, others = recorded(out, "v1")
    assert (len(known), others) == (3, 1)


def test_results_of_other_code_are_not_used(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    run(jobs(tmp_path, 1), out, version="v1")
    _, ran = run(jobs(tmp_path, 1), out, version="v2")
    assert ran == ["hopper 30 fps seed 1"]
    assert len(out.read_text().splitlines()) == 2


def test_jobs_differ_by_clip_and_settings_not_by_folder(tmp_path: Path) -> None:
    job = jobs(tmp_path, 1)[0]
    assert replace(job, folder=tmp_path / "other", keep=True).key == job.key
    assert replace(job, settings=PipelineSettings(spotter=SpotterSettings(floor_px=0.3))).key != job.key
    assert replace(job, spec=ClipSpec(seed=1, noise_sigma=3)).key != job.key
    assert replace(job, renderer="new").path != job.path


def test_the_version_depends_on_the_code_that_is_judged() -> None:
    assert code_version(("engine/types.py",)) != code_version(("engine/errors.py",))
    assert code_version() == code_version()
    assert all((ROOT / place).exists() for place in JUDGED)


def test_an_out_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ApexError, match=r"cannot be written.*another --out"):
        run(jobs(tmp_path, 1), tmp_path / "file" / "run.jsonl")


def test_a_kept_clip_is_rendered_once_and_another_is_deleted(tmp_path: Path) -> None:
    job = Job(ClipSpec(duration_s=0.2, n_events=0, size=(320, 240)), PipelineSettings(), tmp_path, keep=True)
    with rendered(job) as (path, truth):
        written = path.stat().st_mtime_ns
    with rendered(job) as (path, again):
        assert path.stat().st_mtime_ns == written
        assert again == truth
    with rendered(replace(job, keep=False)):
        pass
    assert not path.exists()
    assert not truth_path(path).exists()


# --- geometry --------------------------------------------------------------------------------------------------------


def test_projected_points_are_where_the_renderer_puts_them() -> None:
    spec = preset("still_noisy", "astronaut", 30, 3, 2.0, blinks_per_minute=0.0, yaw_deg=5.0, pitch_deg=4.0)
    scene = Scene(spec)
    points = facial_points(scene)
    frame = int(np.abs(scene.motion.yaw).argmax())
    seen = project(scene, frame, points)
    map_x, map_y = scene._maps(frame)
    for (x, y), point in zip(seen, points, strict=True):
        j, i = int(x), int(y)
        corner = np.array([map_x[i, j], map_y[i, j]])
        across = np.array([map_x[i, j + 1], map_y[i, j + 1]]) - corner
        down = np.array([map_x[i + 1, j], map_y[i + 1, j]]) - corner
        assert np.abs(corner + (x - j) * across + (y - i) * down - point).max() < 0.08  # texture px; 0.034 measured


def test_unrest_of_points_that_jump_to_and_fro() -> None:
    tracks = np.zeros((40, 3, 2))
    tracks[1::2, :, 0] = 1.0
    assert _unrest(tracks, 1) == {"spread_px": 0.5, "change_px": 1.0}
    assert _unrest(tracks, 2) == {"spread_px": 0.5, "change_px": 0.0}


# --- the whole way ---------------------------------------------------------------------------------------------------


def test_no_crop_is_stiller_than_the_best_similarity(tmp_path: Path) -> None:
    spec = preset("still_noisy", "hopper", 30, 1, 1.0, blinks_per_minute=0.0)
    result = measure(Job(spec, PipelineSettings(), tmp_path))
    assert result["followed"] == result["frames"] == 30
    least = result["ways"]["best"]["spread_px"]
    assert all(0 < least <= way["spread_px"] for way in result["ways"].values())
    assert result["ways"]["registrar"]["change_px"] < result["ways"]["first"]["change_px"]
    assert not list(tmp_path.iterdir())


def test_a_clip_without_a_face_is_refused(tmp_path: Path) -> None:
    spec = preset("still_noisy", "hopper", 30, 1, 0.3, blinks_per_minute=0.0, eye_px=3.0)
    with pytest.raises(InputError, match="a face is expected"):
        measure(Job(spec, PipelineSettings(), tmp_path))


def test_spotting_end_to_end_and_resumed(tmp_path: Path) -> None:
    out, summary = tmp_path / "run.jsonl", tmp_path / "run.json"
    args = ["spotting", "--faces", "hopper", "--fps", "30", "--seeds", "1", "--seconds", "5", "--workers", "1", "--verbose"]
    args += ["--preset", "clean", "--out", str(out), "--summary", str(summary), "--keep", str(tmp_path / "clips")]
    first = CliRunner().invoke(app, args)
    assert first.exit_code == 0, first.output
    assert "clips: 1" in first.output
    assert "1 to do" in first.output
    record = json.loads(summary.read_text())
    assert record["benchmark"] == "spotting"
    assert (record["frames"], record["failures"]) == (150, [])
    assert record["groups"][0]["truths"] == record["groups"][0]["found"] == record["groups"][0]["tp"] > 0
    again = CliRunner().invoke(app, args)
    assert "1 are in" in again.output
    assert "0 to do" in again.output
    assert len(out.read_text().splitlines()) == 1
    assert len(list((tmp_path / "clips").glob("*.mp4"))) == 1


def test_a_stopped_run_leaves_its_records_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    args = ["spotting", "--faces", "hopper", "--fps", "30", "--seeds", "1-9", "--seconds", "4", "--workers", "1"]
    command = [sys.executable, "-m", "lab.clip_bench", *args, "--out", str(out)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tools")))}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("[1/9]") for line in process.stderr)
        os.killpg(process.pid, signal.SIGTERM)
        process.stderr.read()
    assert process.returncode == 130
    assert 1 <= len(out.read_text().splitlines()) < 9
    assert not list(tmp_path.glob("bench-clips-*"))


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["spotting", "--faces", "nobody"], "there is no face nobody"),
        (["spotting", "--fps", "fast"], "no list of frame rates"),
        (["registration", "--seeds", "x"], "no list of whole numbers"),
    ],
)
def test_wrong_usage_is_one_sentence(args: list[str], shown: str) -> None:
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 2
    assert shown in " ".join(result.output.replace("│", " ").split())


def test_lists_of_numbers_have_ranges() -> None:
    assert numbers("1,4-6,5") == [1, 4, 5, 6]
    with pytest.raises(typer.BadParameter):
        numbers("6-4")
