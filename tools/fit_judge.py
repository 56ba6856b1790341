"""Fit the judge of expressions (`engine.judge`) that is shipped: to videos of people, rendered clips and region flow.

    python -m tools.fit_judge --clips DIR --tapes runs/tapes --flow DIR --out engine/weights/judge.onnx

Each video becomes tapes once: faces are located and registered as in live analysis, what their regions and eyes do is kept. A
later call goes on with the tapes that are there. People of the split "test" are held out: nothing is fitted to them, and what
is printed and written on the card is measured on them. People without a split are divided by a hash of their name.

What is known of a clip comes from its truth file or labels.csv. Clips without either are taken as free of expressions where
manifest.csv says speech, quiet, blinks or gestures, and left out otherwise.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from engine.errors import ApexError, ConfigError, InputError
from engine.signals import HZ
from engine.types import F64
from tools.commands import check_target, say_error

if TYPE_CHECKING:
    from engine.judge import JudgeCard, Thresholds
    from tools.bench_clips.real.folder import RealClip
    from training.judge import JudgeNet
    from training.tapes import Mixed, Tape

FREE_OF_EXPRESSIONS = {"speech": "speech", "quiet": "quiet", "blinks": "quiet", "gestures": "quiet"}
"""Kinds of clips that count as showing no expression, and what their tapes are called."""

HELD_OUT = 4  # of so many people without a split one is held out
SHORTEST_S = 1.0
ADDED, SEED_ADDED = 0.6, 7  # how often a place of a held-out tape gets an expression, and the draw of it
SHARES = {"flow": 5.0, "people": 7.0, "rendered": 4.0}
"""How often a window is drawn from each."""

LICENCE = "research only: fitted to CAS(ME)^2 and SAMM Long Videos, released for non-commercial research (LICENSE-WEIGHTS)"


@dataclass(eq=False)
class _Run:
    """One face as long as it is seen without a break."""

    t: list[float] = field(default_factory=list)
    moved: list[F64] = field(default_factory=list)
    seen: list[F64] = field(default_factory=list)


def split_of(clip: RealClip) -> str:
    """tune or test: as the manifest says, else by the person's name, or the clip's where no person is named."""
    return clip.split or ("tune" if zlib.crc32((clip.person or clip.name).encode()) % HELD_OUT else "test")


def tapes_of(clip: RealClip, longest_s: float) -> list[Tape]:
    """A clip's tapes, one for each face and stretch of time without a break; none where nothing is known of its expressions.

    Raises SourceError where the video cannot be read.
    """
    from training.judge import Known, is_micro
    from training.tapes import Tape

    kind = "rendered" if clip.truths else FREE_OF_EXPRESSIONS.get(clip.kind)
    tapes = []
    for run in _runs(clip.path, longest_s) if kind else ():
        at = np.arange(run.t[0], run.t[-1] + 1e-9, 1 / HZ)
        displacement, mesh = (
            np.stack([np.interp(at, run.t, column) for column in np.array(values).T], 1).astype(np.float32)
            for values in (run.moved, run.seen)
        )
        known = tuple(
            Known((one.onset - at[0]) * HZ, (one.offset - at[0]) * HZ, is_micro(one.onset, one.offset))
            for one in clip.truths
            if one.offset > at[0] and one.onset < at[-1]
        )
        tapes.append(Tape(clip.name.replace("|", "_"), clip.person or clip.name, str(kind), displacement, mesh, known))
    return tapes


def _runs(path: Path, longest_s: float) -> Iterator[_Run]:
    from engine.align import Registrar
    from engine.config import PipelineSettings
    from engine.landmarks import FaceLocator
    from engine.signals import moved, seen
    from engine.spotter import BREAK_S
    from stream.source import open_video

    locator, ended = FaceLocator(PipelineSettings().landmarks), []
    watched: dict[int, tuple[Registrar, _Run]] = {}
    try:
        with open_video(path) as video:
            for frame in video:
                if frame.t > longest_s:
                    break
                for face in locator.locate(frame):
                    known = watched.get(face.id)
                    if known is None or frame.gap or (known[1].t and not 0 < frame.t - known[1].t[-1] <= BREAK_S):
                        known = watched[face.id] = Registrar(), _Run()
                        ended.append(known[1])
                    registrar, run = known
                    crop = registrar.register(frame, face)
                    if crop is not None:
                        run.t.append(frame.t)
                        run.moved.append(moved(crop))
                        run.seen.append(seen(crop))
    finally:
        locator.close()
    yield from (run for run in ended if run.t and run.t[-1] - run.t[0] >= SHORTEST_S)


def collect(folders: Sequence[Path], into: Path, longest_s: float) -> None:
    """Tapes of all clips of folders, one file a clip below into/tune and into/test; those that are there are kept.

    Raises InputError where one person is in both splits, or a folder or clip cannot be read.
    """
    from tools.bench_clips.real.folder import read_clips
    from tools.commands.fetch import have_face_model
    from tools.quiet import native_noise_hidden
    from training.tapes import write_tapes

    clips = [(clip, split_of(clip)) for folder in folders for clip in read_clips(folder)]
    test = {clip.person or clip.name for clip, split in clips if split == "test"}
    both = sorted(test & {clip.person or clip.name for clip, split in clips if split == "tune"})
    if both:
        raise InputError(f"in both splits: {', '.join(both)}; give all clips of a person the same split")
    have_face_model()
    for number, (clip, split) in enumerate(clips, start=1):
        path = into / split / f"{clip.path.parent.name}-{clip.name.replace('/', '-')}.npz"
        if path.is_file():
            continue
        with native_noise_hidden():
            tapes = tapes_of(clip, longest_s)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tapes(path, tapes)
        typer.echo(f"{number}/{len(clips)} {clip.name}: {len(tapes)} tapes, {_minutes(tapes):.1f} min, {split}", err=True)


def _minutes(tapes: Sequence[Tape]) -> float:
    return sum(len(tape.displacement) for tape in tapes) / HZ / 60


def read_split(folder: Path, split: str) -> list[Tape]:
    """The tapes below folder/split. Raises InputError where there are none."""
    from training.tapes import read_tapes

    tapes = [tape for path in sorted((folder / split).glob("*.npz")) for tape in read_tapes(path)]
    if not tapes:
        raise InputError(f"there are no tapes in {folder / split}; make them with --clips")
    return tapes


def draw_from(tapes: Sequence[Tape], flow: Sequence[Tape]) -> Mixed:
    """Windows of people with expressions added, of rendered clips, and of region flow, as often as SHARES says."""
    from training.tapes import LiveTapes, LongVideos, Mixed, expressions

    real = expressions(flow)
    groups: dict[str, list[Tape]] = {"people": [], "rendered": []}
    for tape in tapes:
        groups["rendered" if tape.kind == "rendered" else "people"].append(tape)
    parts: list[tuple[LongVideos | LiveTapes, float]] = [(LongVideos(flow), SHARES["flow"])] if flow else []
    return Mixed(parts + [(LiveTapes(some, real), SHARES[name]) for name, some in groups.items() if some])


def measure(net: JudgeNet, tapes: Sequence[Tape], thresholds: Thresholds) -> dict[str, float]:
    """What a network finds in held-out tapes: false stretches a minute by kind, F1 (overlap of at least half) of expressions
    that are added to them, and of those known in rendered clips."""
    from engine.judge import stretches_of
    from training.judge import answers_to
    from training.spotting import Interval, score
    from training.tapes import added, rows_of

    def found(tape: Tape) -> list[Interval]:
        answers = answers_to(net, rows_of(tape.displacement, tape.mesh))
        return [Interval(one.start * HZ, one.end * HZ + 1) for one in stretches_of(answers, thresholds)]

    def f1(those: Sequence[Tape]) -> float:
        return score((found(tape), [Interval(one.onset, one.offset + 1) for one in tape.known]) for tape in those).f1

    out, rng = {}, np.random.default_rng(SEED_ADDED)
    for kind in ("speech", "quiet"):
        mine = [tape for tape in tapes if tape.kind == kind]
        if mine:
            out[f"{kind}_minutes"] = _minutes(mine)
            out[f"{kind}_false_a_minute"] = sum(len(found(tape)) for tape in mine) / _minutes(mine)
            out[f"{kind}_added_f1"] = f1([added(tape, ADDED, rng) for tape in mine])
    rendered = [tape for tape in tapes if tape.kind == "rendered"]
    return out | ({"rendered_f1": f1(rendered)} if rendered else {})


def ship(net: JudgeNet, out: Path, thresholds: Thresholds, scores: Mapping[str, float | str], data: str) -> JudgeCard:
    """Write the network and its card beside it. Raises OutputError where that fails."""
    from engine.judge import JudgeCard
    from engine.weights import sha256_of
    from training.judge import write_onnx

    write_onnx(net, out)
    card = JudgeCard(
        name=out.stem, thresholds=thresholds, data=data, licence=LICENCE, sha256=sha256_of(out), scores=dict(scores)
    )
    out.with_suffix(".json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return card


def main(
    *,
    tapes: Annotated[Path, typer.Option(help="Folder of the tapes, in tune/ and test/; filled by --clips.")],
    out: Annotated[Path, typer.Option(help="The network to write (.onnx), its card (.json) beside it.")],
    clips: Annotated[
        list[Path] | None, typer.Option(help="Folder of videos with manifest.csv or truth files; repeatable.")
    ] = None,
    flow: Annotated[
        Path | None, typer.Option(help="Folder of published region flow (casme2-squared.npz, samm-lv.npz).")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the fit.")] = 1200,
    seed: Annotated[int, typer.Option(min=0, help="Of the first parameters and all draws.")] = 0,
    thresholds: Annotated[str, typer.Option(help="high, low, micro_high, micro_low.")] = "0.8,0.6,0.6,0.4",
    longest: Annotated[float, typer.Option(min=1, help="Seconds of each video that are used.")] = 90.0,
) -> None:
    """Collect tapes, fit the judge, measure it on people held out, write network and card."""
    from engine.judge import Thresholds
    from training.judge import fit
    from training.spot_flow import other_videos
    from training.tapes import of_flow

    try:
        chosen = Thresholds(**dict(zip(Thresholds.model_fields, map(float, thresholds.split(",")), strict=True)))
    except ValueError as wrong:
        raise ConfigError(f"thresholds are four numbers between 0 and 1 with commas between, not {thresholds!r}") from wrong
    check_target(out, "--out")
    if clips:
        collect(clips, tapes, longest)
    tune, test = read_split(tapes, "tune"), read_split(tapes, "test")
    videos = [of_flow(video) for video in other_videos("", flow)] if flow is not None else []
    people = [len({tape.person for tape in those}) for those in (tune, test)]
    data = f"{_minutes(tune):.1f} min of {people[0]} people and clips, {_minutes(videos):.1f} min of region flow"
    typer.echo(f"fitted to {data}; held out {_minutes(test):.1f} min of {people[1]}", err=True)

    def say(step: int, loss: float) -> None:
        if step % max(steps // 20, 1) == 0:
            typer.echo(f"step {step} of {steps}, loss {loss:.4f}", err=True)

    net = fit(draw_from(tune, videos), steps, seed, progress=say)
    scores = measure(net, test, chosen)
    for name, value in scores.items():
        typer.echo(f"{name} {value:.3f}")
    card = ship(net, out, chosen, {"protocol": f"{people[1]} people and clips held out", "seed": float(seed), **scores}, data)
    typer.echo(f"{out}: {card.name}@sha256:{card.sha256[:12]}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except ApexError as wrong:
        say_error(wrong)
        sys.exit(1)
    except KeyboardInterrupt:
        say_error("stopped; tapes that were written are kept, the same command goes on")
        sys.exit(1)
