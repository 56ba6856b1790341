from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from apexstream.clips.plan import frame_times, plan
from apexstream.clips.render import render_frames
from apexstream.clips.spec import ClipSpec, read_truth, truth_path
from apexstream.clips.write import contact_sheet, write_clip
from engine.errors import OutputError

SPEC = ClipSpec(size=(320, 180), eye_px=45.0, duration_s=4.0, fps=30.0, n_events=1, seed=3)


def decoded(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [float(f.pts * f.time_base) for f in frames], [f.to_ndarray(format="rgb24") for f in frames]


@pytest.mark.parametrize("vfr", [0.0, 0.3])
def test_a_clip_decodes_to_its_frames_at_their_times(tmp_path: Path, vfr: float) -> None:
    spec = replace(SPEC, vfr=vfr, crf=18)
    seen: list[int] = []
    truth = write_clip(spec, tmp_path / "clip.mp4", seen.append)
    times, pictures = decoded(tmp_path / "clip.mp4")
    assert truth == plan(spec) == read_truth(truth_path(tmp_path / "clip.mp4"))
    assert seen == list(range(truth.frames))
    assert np.allclose(times, frame_times(spec), atol=1e-4)
    rendered = [p for _, p in render_frames(spec)]
    error = np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(rendered, pictures, strict=True)])
    assert error < 4


def test_without_crf_every_pixel_is_stored_exactly(tmp_path: Path) -> None:
    spec = replace(SPEC, crf=None, duration_s=0.5, n_events=0)
    write_clip(spec, tmp_path / "clip.mp4")
    _, pictures = decoded(tmp_path / "clip.mp4")
    assert all(np.array_equal(a, b) for a, (_, b) in zip(pictures, render_frames(spec), strict=True))


@pytest.mark.parametrize("name", ["no/such/folder/clip.mp4", "clip.txt.unknown"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"cannot be written to .*choose a writable place"):
        write_clip(SPEC, tmp_path / name)


def test_the_contact_sheet_has_a_row_for_each_event_and_one_blink(tmp_path: Path) -> None:
    spec = replace(SPEC, duration_s=8.0, n_events=3, blinks_per_minute=20.0)
    contact_sheet(spec, tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    cell = 2 * round(1.6 * spec.eye_px)
    assert sheet.shape == (4 * cell, 4 * cell, 3)
    with pytest.raises(OutputError, match="contact sheet"):
        contact_sheet(spec, tmp_path / "no" / "sheet.png")
