"""Clips and their tapes, for the recipes' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from apexstream.clips import preset, write_clip
from lab.recipes.collect_tapes import collect


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rendered clips with a smile each and one still face, of three people; one of each is held out."""
    folder = tmp_path_factory.mktemp("clips")
    few = {"size": (300, 260), "eye_px": 70.0, "duration_s": 4, "blinks_per_minute": 0.0, "actions": ("smile",)}
    for name, photo, events in (("a", "hopper", 1), ("b", "astronaut", 1), ("still", "hopper", 0), ("calm", "astronaut", 0)):
        write_clip(preset("clean", photo, seed=2, n_events=events, **few), folder / f"{name}.mp4")
    for name in ("still", "calm"):
        (folder / f"{name}.truth.json").unlink()
    rows = ("a.mp4,grace,other,tune", "b.mp4,eileen,other,test", "still.mp4,grace,quiet,tune", "calm.mp4,eileen,speech,test")
    (folder / "manifest.csv").write_text("\n".join(("file,person,kind,split", *rows)))
    return folder


@pytest.fixture(scope="session")
def tapes(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tapes")
    collect([clips], folder, longest_s=10.0)
    return folder
