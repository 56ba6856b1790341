from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from apexstream.clips.plan import plan
from apexstream.clips.spec import PHOTOS, PRESETS, ClipSpec, preset, read_truth, truth_path
from engine.errors import InputError, OutputError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"photo": "mona-lisa"}, "no face called 'mona-lisa'"),
        ({"actions": ()}, "actions must be some of"),
        ({"actions": ("wink",)}, "not wink"),
        ({"renderer": "warp-z"}, "warp-a or warp-b"),
        ({"fps": 0.0}, "1 to 1000 frames/s"),
        ({"duration_s": 0.0}, "lasts up to a day"),
        ({"size": (641, 360)}, "must be even"),
        ({"micro_px": (3.0, 1.0)}, "an amplitude range goes up"),
        ({"macro_px": (1.0, 40.0)}, "at most 6 px"),
        ({"macro_fraction": 1.5}, "macro_fraction lies in 0..1"),
        ({"vfr": 0.9}, "vfr in 0..0.5"),
        ({"crf": 90}, "crf lies in 0..51"),
        ({"noise_sigma": -1.0}, "noise_sigma cannot be -1.0"),
        ({"eye_px": 0.0}, "eye_px cannot be 0.0"),
        ({"n_events": -1}, "n_events cannot be -1"),
    ],
)
def test_what_cannot_be_rendered_is_refused_in_a_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClipSpec(**changes)


def test_there_are_both_photographs_and_at_least_four_reshaped_faces() -> None:
    assert {"hopper", "astronaut"} < set(PHOTOS)
    assert sum("-" in name for name in PHOTOS) >= 4


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_takes_changes(name: str) -> None:
    spec = preset(name, "astronaut", 60.0, 4, 12.0, noise_sigma=1.25, renderer="warp-b", n_events=2)
    assert (spec.photo, spec.fps, spec.seed, spec.duration_s) == ("astronaut", 60.0, 4, 12.0)
    assert (spec.noise_sigma, spec.renderer, spec.n_events) == (1.25, "warp-b", 2)


def test_a_preset_or_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(InputError, match="no preset 'nicest'"):
        preset("nicest")
    with pytest.raises(InputError, match="no setting noise_level"):
        preset("clean", noise_level=3)


def test_the_benchmark_meets_both_renderers_and_has_head_motion_blinks_and_noise() -> None:
    specs = [preset("benchmark", seed=s) for s in range(3)]
    assert {s.renderer for s in specs} == {"warp-a", "warp-b"}
    assert all(min(s.sway_px, s.roll_deg, s.zoom, s.yaw_deg, s.blinks_per_minute, s.noise_sigma) > 0 for s in specs)
    assert all(s.micro_px[0] >= 1 for s in specs)


def test_still_noisy_shows_no_expression_but_blinks() -> None:
    truth = plan(preset("still_noisy", seed=3))
    assert truth.events == ()
    assert truth.blinks


def test_truth_survives_its_file(tmp_path: Path) -> None:
    truth = plan(preset("benchmark", seed=1))
    path = truth_path(tmp_path / "clip.mp4")
    truth.write(path)
    assert path.name == "clip.truth.json"
    assert read_truth(path) == truth
    assert json.loads(path.read_text())["events"][0] == asdict(truth.events[0])


def test_a_truth_that_cannot_be_written_or_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another place"):
        plan(ClipSpec()).write(tmp_path / "no" / "such" / "folder.json")
    other = tmp_path / "other.json"
    other.write_text('{"spec": []}')
    with pytest.raises(InputError, match="not the truth of a rendered clip"):
        read_truth(other)
