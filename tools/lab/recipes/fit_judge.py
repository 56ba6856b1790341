"""Fit the judge of expressions (`engine.spotting.judge`) that is shipped: to videos of people, rendered clips and region flow.

    python -m lab.recipes.fit_judge --clips DIR --tapes runs/tapes --flow DIR --out engine/weights/judge.onnx

Each video becomes tapes once: faces are located and registered as in live analysis, what their regions and eyes do is kept. A
later call goes on with the tapes that are there. People of the split "test" are held out: nothing is fitted to them, and what
is printed and written on the card is measured on them. People without a split are divided by a hash of their name.

A clip's expressions come from its truth file or labels.csv. Without either it is taken as free of them where manifest.csv says
speech, quiet, blinks or gestures, and left out otherwise.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from apexstream.commands import check_target, say_error
from engine.errors import ApexError, InputError
from engine.spotting.features import HZ
from engine.types import F32, F64

if TYPE_CHECKING:
    from engine.spotting.detections import Thresholds
    from engine.spotting.judge import JudgeCard, Sensitivity
    from lab.clip_bench.real.folder import RealClip
    from training.judge import JudgeNet
    from training.spotting import Interval
    from training.tapes import Tape
    from training.windows import MixedWindows

FREE_OF_EXPRESSIONS = {"speech": "speech", "quiet": "quiet", "blinks": "quiet", "gestures": "quiet"}  # kinds of clips, of tapes
HELD_OUT = 4  # of so many people without a split one is held out
SHORTEST_S = 1.0
FEW = 20  # stretches fewer than these cannot be calibrated
SENSITIVITIES: dict[Sensitivity, tuple[float, ...]] = {
    "low": (0.9, 0.7, 0.7, 0.5, 0.65),
    "normal": (0.75, 0.4, 0.6, 0.3, 0.45),
    "high": (0.6, 0.35, 0.5, 0.3, 0.4),
}
"""Thresholds (high, low, micro_high, micro_low, agreed), chosen on people held out from the fit (training/LEDGER.md)."""

ADDED, SEED_ADDED = 0.6, 7  # how often a place of a held-out tape gets an expression, and the draw of it
SHARES = {"flow": 4.0, "people": 8.0, "injected": 1.5, "rendered": 3.0}  # how often a window is drawn from each

LICENCE = "research only: fitted to CAS(ME)^2 and SAMM Long Videos, released for non-commercial research (LICENSE-WEIGHTS)"


_Run = list[tuple[float, F64, F64]]  # time, displacement and mesh of one face as long as it is seen without a break


def split_of(clip: RealClip) -> str:
    """tune or test: as the manifest says, else by the person's name, or the clip's where no person is named."""
    return clip.split or ("tune" if zlib.crc32((clip.person or clip.name).encode()) % HELD_OUT else "test")


def tapes_of(clip: RealClip, longest_s: float) -> list[Tape]:
    """A clip's tapes, one for each face and stretch of time without a break; none where nothing is known of its expressions.

    Raises SourceError where the video cannot be read.
    """
    from training.judge import Known, is_micro
    from training.tapes import Tape

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
        tapes.append(
            Tape(
                clip.name.replace("|", "_"), (clip.person or clip.name).replace("|", "_"), str(kind), displacement, mesh, known
            )
        )
    return tapes


def _runs(path: Path, longest_s: float) -> Iterator[_Run]:
    from engine.config import PipelineSettings
    from engine.faces.landmarks import FaceLocator
    from engine.registration.align import Registrar
    from engine.spotting.features import mesh_features, region_displacement
    from engine.spotting.spotter import BREAK_S
    from stream.sources.file import open_video

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
    from apexstream.commands.fetch import have_face_model
    from apexstream.native_output import native_output_hidden
    from lab.clip_bench.real.folder import read_clips
    from training.tapes import write_tapes

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


def draw_from(tapes: Sequence[Tape], flow: Sequence[Tape]) -> MixedWindows:
    """Windows of people with expressions added, of rendered clips, and of region flow, as often as SHARES says."""
    from training.synthetic_expressions import cut_expressions
    from training.windows import FlowWindows, LiveWindows, MixedWindows

    real = cut_expressions(flow)
    groups: dict[str, list[Tape]] = {name: [] for name in SHARES}
    for tape in tapes:
        groups[tape.kind if tape.kind in groups else "people"].append(tape)
    parts: list[tuple[FlowWindows | LiveWindows, float]] = [(FlowWindows(flow), SHARES["flow"])] if flow else []
    return MixedWindows(parts + [(LiveWindows(some, real), SHARES[name]) for name, some in groups.items() if some])


def measure(answered: Sequence[tuple[Tape, F32]], thresholds: Thresholds) -> dict[str, float]:
    """On held-out tapes with their answers, by kind: false stretches a minute, or F1 of known expressions (IoU >= .5)."""
    from training.spotting import score

    out = {}
    for kind in dict.fromkeys(tape.kind for tape, _ in answered):
        mine = [(tape, answers) for tape, answers in answered if tape.kind == kind]
        if kind not in FREE_OF_EXPRESSIONS.values():
            pairs = ((_intervals(answers, thresholds), _truth(tape)) for tape, answers in mine)
            out[f"{kind}_f1"] = score(pairs).f1
        else:
            found = sum(len(_intervals(answers, thresholds)) for _, answers in mine)
            out[f"{kind}_false_a_minute"] = found / max(_minutes([tape for tape, _ in mine]), 1e-9)
    return out


def _truth(tape: Tape) -> list[Interval]:
    from training.spotting import Interval

    return [Interval(one.onset, one.offset + 1) for one in tape.known]


def _intervals(answers: F32, thresholds: Thresholds) -> list[Interval]:
    from engine.spotting.detections import detect
    from training.spotting import Interval

    return [Interval(one.start * HZ, one.end * HZ + 1) for one in detect(answers, thresholds)]


def calibrate(answered: Sequence[tuple[Tape, F32]], thresholds: Thresholds) -> tuple[float, float]:
    """Slope and shift from the logit of a stretch's answer to that of the chance that it overlaps a known expression, by the
    likeliest fit (Platt 1999) over held-out tapes; (1, 0) where there are too few stretches."""
    from engine.spotting.detections import detect
    from training.spotting import overlap

    logits, right = [], []
    for tape, answers in answered:
        found = detect(answers, thresholds)
        known = overlap(_intervals(answers, thresholds), _truth(tape)) if found and tape.known else np.zeros((len(found), 1))
        for one, shared in zip(found, known.max(axis=1), strict=True):
            answer = min(max(one.answer, 1e-6), 1 - 1e-6)
            logits.append(np.log(answer / (1 - answer)))
            right.append(float(shared > 0))
    if len(right) < FEW or len(set(right)) < 2:
        return 1.0, 0.0
    x, y, w = np.column_stack([logits, np.ones(len(logits))]), np.array(right), np.array([1.0, 0.0])
    for _ in range(200):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        curvature = (x * (p * (1 - p))[:, None]).T @ x + 0.1 * np.eye(2)
        step = np.linalg.solve(curvature, x.T @ (y - p) - 0.1 * (w - [1, 0]))
        w = w + step * min(1.0, 0.5 / max(float(np.abs(step).max()), 1e-12))  # short steps: far from the end Newton's overshoot
    return round(float(w[0]), 4), round(float(w[1]), 4)


def ship(net: Sequence[JudgeNet], out: Path, **known: Any) -> JudgeCard:
    """Write the network and its card, known fields and its name, licence and hash, beside it."""
    from engine.spotting.judge import JudgeCard
    from engine.weights import sha256_of
    from training.judge import write_onnx

    write_onnx(net, out)
    card = JudgeCard(name=out.stem, licence=LICENCE, sha256=sha256_of(out), **known)
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
    steps: Annotated[int, typer.Option(min=1, help="Steps of the fit.")] = 1600,
    seed: Annotated[int, typer.Option(min=0, help="Of the first parameters and all draws.")] = 0,
    networks: Annotated[int, typer.Option(min=1, help="Networks whose answers are averaged.")] = 3,
    everyone: Annotated[bool, typer.Option(help="Once measured, fit what is shipped to the people held out too.")] = True,
    longest: Annotated[float, typer.Option(min=1, help="Seconds of each video that are used.")] = 90.0,
) -> None:
    """Collect tapes, fit the judge, measure it on people held out, write network and card."""
    from engine.spotting.detections import Thresholds
    from training.judge import answers_to, fit
    from training.spot_flow import other_videos
    from training.synthetic_expressions import add_expressions
    from training.tapes import rows_of, tape_of_flow

    check_target(out, "--out")
    if clips:
        collect(clips, tapes, longest)
    tune, test = read_split(tapes, "tune"), read_split(tapes, "test")
    videos = [tape_of_flow(video) for video in other_videos("", flow)] if flow is not None else []
    people = [len({tape.person for tape in those}) for those in (tune, test)]
    data = f"{_minutes(tune):.1f} min of {people[0]} people and clips, {_minutes(videos):.1f} min of region flow"
    typer.echo(f"fitted to {data}; held out {_minutes(test):.1f} min of {people[1]}", err=True)

    def say(step: int, loss: float) -> None:
        if step % max(steps // 20, 1) == 0:
            typer.echo(f"step {step} of {steps}, loss {loss:.4f}", err=True)

    def fitted(those: Sequence[Tape]) -> list[JudgeNet]:
        return [fit(draw_from(those, videos), steps, seed + k, progress=say) for k in range(networks)]

    nets, rng = fitted(tune), np.random.default_rng(SEED_ADDED)
    more = [
        replace(add_expressions(tape, ADDED, rng), kind="added") for tape in test if tape.kind in FREE_OF_EXPRESSIONS.values()
    ]
    answered = [(tape, answers_to(nets, rows_of(tape.displacement, tape.mesh))) for tape in [*test, *more]]
    chosen = {name: Thresholds(**dict(zip(Thresholds.model_fields, four, strict=True))) for name, four in SENSITIVITIES.items()}
    scores: dict[str, float | str] = {
        f"{name}_{figure}": round(value, 4)
        for name, thresholds in chosen.items()
        for figure, value in measure(answered, thresholds).items()
    }
    typer.echo("\n".join(f"{name} {value:.3f}" for name, value in scores.items()))
    calibration = calibrate(answered, chosen["high"])
    protocol: dict[str, float | str] = {"protocol": f"{people[1]} people and clips held out", "seed": float(seed)}
    if everyone:
        nets, protocol["shipped"] = fitted([*tune, *test]), "networks fitted the same way to the people held out too"
    card = ship(nets, out, thresholds=chosen, calibration=calibration, scores=protocol | scores, data=data)
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
