"""Fit the judge of expressions (`engine.spotting.judge`) that is shipped: to videos of people, rendered clips and region flow.

    python -m lab.recipes.fit_judge --clips DIR --tapes runs/tapes --flow DIR --out engine/weights/judge.onnx

Each video becomes tapes once (`collect_tapes`); a later call goes on with those that are there. People of the split "test" are
held out: nothing is fitted to them, and what is printed and written on the card is measured on them. People without a split are
divided by a hash of their name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from apexstream.commands import check_target
from engine.intervals import Interval, overlap
from engine.spotting.detections import Thresholds, detect
from engine.spotting.features import HZ
from engine.spotting.judge import JudgeCard, Sensitivity
from engine.types import F32
from lab.command import run
from lab.recipes.collect_tapes import FREE_OF_EXPRESSIONS, collect, minutes, read_split
from training.spotting import score

if TYPE_CHECKING:
    from training.judge import JudgeNet
    from training.tapes import Tape
    from training.windows import MixedWindows

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
    out = {}
    for kind in dict.fromkeys(tape.kind for tape, _ in answered):
        mine = [(tape, answers) for tape, answers in answered if tape.kind == kind]
        if kind not in FREE_OF_EXPRESSIONS.values():
            pairs = ((_intervals(answers, thresholds), _truth(tape)) for tape, answers in mine)
            out[f"{kind}_f1"] = score(pairs).f1
        else:
            found = sum(len(_intervals(answers, thresholds)) for _, answers in mine)
            out[f"{kind}_false_a_minute"] = found / max(minutes([tape for tape, _ in mine]), 1e-9)
    return out


def _truth(tape: Tape) -> list[Interval]:
    return [Interval(one.onset, one.offset + 1) for one in tape.known]


def _intervals(answers: F32, thresholds: Thresholds) -> list[Interval]:
    return [Interval(one.start * HZ, one.end * HZ + 1) for one in detect(answers, thresholds)]


def calibrate(answered: Sequence[tuple[Tape, F32]], thresholds: Thresholds) -> tuple[float, float]:
    """Slope and shift from the logit of a stretch's answer to that of the chance that it overlaps a known expression, by the
    likeliest fit (Platt 1999) over held-out tapes; (1, 0) where there are too few stretches."""
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
    from engine.weights import sha256_of
    from training.judge import write_onnx

    write_onnx(net, out)
    card = JudgeCard(name=out.stem, licence=LICENCE, sha256=sha256_of(out), **known)
    out.with_suffix(".json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return card


def held_out_figures(
    nets: Sequence[JudgeNet], test: Sequence[Tape]
) -> tuple[dict[Sensitivity, Thresholds], dict[str, float], tuple[float, float]]:
    """Thresholds by sensitivity, what networks reach with them on held-out tapes, and the calibration of their answers."""
    from training.judge import answers_to
    from training.synthetic_expressions import add_expressions
    from training.tapes import rows_of

    rng = np.random.default_rng(SEED_ADDED)
    more = [
        replace(add_expressions(tape, ADDED, rng), kind="added") for tape in test if tape.kind in FREE_OF_EXPRESSIONS.values()
    ]
    answered = [(tape, answers_to(nets, rows_of(tape.displacement, tape.mesh))) for tape in [*test, *more]]
    chosen = {name: Thresholds(**dict(zip(Thresholds.model_fields, four, strict=True))) for name, four in SENSITIVITIES.items()}
    scores = {
        f"{name}_{figure}": round(value, 4)
        for name, thresholds in chosen.items()
        for figure, value in measure(answered, thresholds).items()
    }
    return chosen, scores, calibrate(answered, chosen["high"])


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
    from training.judge import fit
    from training.spot_flow import other_videos
    from training.tapes import tape_of_flow

    check_target(out, "--out")
    if clips:
        collect(clips, tapes, longest)
    tune, test = read_split(tapes, "tune"), read_split(tapes, "test")
    videos = [tape_of_flow(video) for video in other_videos("", flow)] if flow is not None else []
    people = [len({tape.person for tape in those}) for those in (tune, test)]
    data = f"{minutes(tune):.1f} min of {people[0]} people and clips, {minutes(videos):.1f} min of region flow"
    typer.echo(f"fitted to {data}; held out {minutes(test):.1f} min of {people[1]}", err=True)

    def progress(step: int, loss: float) -> None:
        if step % max(steps // 20, 1) == 0:
            typer.echo(f"step {step} of {steps}, loss {loss:.4f}", err=True)

    def fitted(those: Sequence[Tape]) -> list[JudgeNet]:
        return [fit(draw_from(those, videos), steps, seed + k, progress=progress) for k in range(networks)]

    nets = fitted(tune)
    chosen, scores, calibration = held_out_figures(nets, test)
    typer.echo("\n".join(f"{name} {value:.3f}" for name, value in scores.items()))
    protocol: dict[str, float | str] = {"protocol": f"{people[1]} people and clips held out", "seed": float(seed)}
    if everyone:
        nets, protocol["shipped"] = fitted([*tune, *test]), "networks fitted the same way to the people held out too"
    card = ship(nets, out, thresholds=chosen, calibration=calibration, scores=protocol | scores, data=data)
    typer.echo(f"{out}: {card.name}@sha256:{card.sha256[:12]}")


if __name__ == "__main__":
    run(main)
