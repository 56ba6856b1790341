"""Videos to tapes, which the judge of expressions is fitted to: what the regions and eyes of each face do, frame by frame.

Faces are located and registered as in live analysis. A clip's expressions come from its truth file or labels.csv; without
either it is taken as free of them where manifest.csv has the kind speech, quiet, blinks or gestures, and left out otherwise.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import typer

from apexstream.commands.fetch import have_face_model
from apexstream.native_output import native_output_hidden
from engine.config import PipelineSettings
from engine.errors import InputError
from engine.faces.landmarks import FaceLocator
from engine.registration.align import Registrar
from engine.spotting.features import HZ, mesh_features, region_displacement
from engine.spotting.spotter import BREAK_S
from engine.types import F64
from lab.clip_bench.real.folder import RealClip, read_clips
from stream.sources.file import open_video
from training.tapes import Tape, read_tapes, write_tapes

FREE_OF_EXPRESSIONS = {"speech": "speech", "quiet": "quiet", "blinks": "quiet", "gestures": "quiet"}
"""Kind of a clip without expressions -> kind of its tapes."""
HELD_OUT = 4
"""Of so many people without a split one is held out."""
SHORTEST_S = 1.0

_Run = list[tuple[float, F64, F64]]  # time, displacement and mesh of one face as long as it is seen without a break


def split_of(clip: RealClip) -> str:
    """tune or test: as in the manifest, else by the person's name, or the clip's where no person is named."""
    return clip.split or ("tune" if zlib.crc32((clip.person or clip.name).encode()) % HELD_OUT else "test")


def tapes_of(clip: RealClip, longest_s: float) -> list[Tape]:
    """A clip's tapes, one for each face and stretch of time without a break; none where its expressions are unknown.

    Raises SourceError where the video cannot be read.
    """
    from training.judge import Known, is_micro

    free = FREE_OF_EXPRESSIONS.get(clip.kind)
    kind = free if not clip.truths else "injected" if free else "rendered"
    tapes = []
    for run in _runs(clip.path, longest_s) if kind else ():
        t, *parts = (np.array(part) for part in zip(*run, strict=True))
        at = np.arange(t[0], t[-1] + 1e-9, 1 / HZ)
        displacement, mesh = (np.stack([np.interp(at, t, column) for column in part.T], 1).astype(np.float32) for part in parts)
        known = tuple(
            Known((one.onset - at[0]) * HZ, (one.offset - at[0]) * HZ, is_micro(one.onset, one.offset))
            for one in clip.truths
            if one.offset > at[0] and one.onset < at[-1]
        )
        name, person = clip.name.replace("|", "_"), (clip.person or clip.name).replace("|", "_")
        tapes.append(Tape(name, person, str(kind), displacement, mesh, known))
    return tapes


def _runs(path: Path, longest_s: float) -> Iterator[_Run]:
    locator = FaceLocator(PipelineSettings().landmarks)
    ended: list[_Run] = []
    watched: dict[int, tuple[Registrar, _Run]] = {}
    try:
        with open_video(path) as video:
            for frame in video:
                if frame.t > longest_s:
                    break
                for face in locator.locate(frame):
                    known = watched.get(face.id)
                    if known is None or frame.gap or (known[1] and not 0 < frame.t - known[1][-1][0] <= BREAK_S):
                        known = watched[face.id] = Registrar(), []
                        ended.append(known[1])
                    registrar, run = known
                    crop = registrar.register(frame, face)
                    if crop is not None:
                        run.append((frame.t, region_displacement(crop), mesh_features(crop)))
    finally:
        locator.close()
    yield from (run for run in ended if run and run[-1][0] - run[0][0] >= SHORTEST_S)


def collect(folders: Sequence[Path], into: Path, longest_s: float) -> None:
    """Tapes of all clips of folders, one file a clip below into/tune and into/test; those that are there are kept.

    Raises InputError where one person is in both splits, or a folder or clip cannot be read.
    """
    clips = [(clip, split_of(clip)) for folder in folders for clip in read_clips(folder)]
    test = {clip.person or clip.name for clip, split in clips if split == "test"}
    both = sorted(test & {clip.person or clip.name for clip, split in clips if split == "tune"})
    if both:
        raise InputError(f"in both splits: {', '.join(both)}; give all clips of a person the same split")
    have_face_model()
    for number, (clip, split) in enumerate(clips, start=1):
        name = f"{clip.path.parent.name}-{clip.name.replace('/', '-')}.npz"
        path, other = into / split / name, into / {"tune": "test", "test": "tune"}[split] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if other.is_file():  # the manifest has changed since
            other.replace(path)
        if path.is_file():
            continue
        with native_output_hidden():
            tapes = tapes_of(clip, longest_s)
        write_tapes(path, tapes)
        typer.echo(f"{number}/{len(clips)} {clip.name}: {len(tapes)} tapes, {minutes(tapes):.1f} min, {split}", err=True)


def minutes(tapes: Sequence[Tape]) -> float:
    """Length of tapes in minutes."""
    return sum(len(tape.displacement) for tape in tapes) / HZ / 60


def read_split(folder: Path, split: str) -> list[Tape]:
    """The tapes below folder/split. Raises InputError where there are none."""
    tapes = [tape for path in sorted((folder / split).glob("*.npz")) for tape in read_tapes(path)]
    if not tapes:
        raise InputError(f"there are no tapes in {folder / split}; make them with --clips")
    return tapes
