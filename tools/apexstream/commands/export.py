"""`apexstream export`: a fitted run as an ONNX file with its card, checked against PyTorch before it is written; compiled by
TensorRT beside it, where asked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from apexstream.commands import check_target, say

if TYPE_CHECKING:
    from training.recipe import Recipe

RESEARCH = {"smic": "SMIC", "samm": "SAMM", "casme2": "CASME II", "casme3": "CAS(ME)³"}
"""Databases that are released for non-commercial research, as they are written."""


def export(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished `apexstream train`; with --backend tensorrt also an .onnx file.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The .onnx file to write; its card (.json) goes beside it.", show_default=False)
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="summary.json of the same recipe's evaluation: sets temperature, threshold and scores.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of flow maps on which both runtimes are compared too.")] = None,
    backend: Annotated[
        Literal["onnx", "tensorrt"],
        typer.Option(help="tensorrt: also compile the network for this machine's GPU, beside the .onnx file."),
    ] = "onnx",
) -> None:
    """Write a fitted network as ONNX; refused where ONNX Runtime and PyTorch do not agree.

    With --backend tensorrt the network is compiled for the GPU of this machine too, and found beside its file from then on.
    An .onnx file in place of RUN is compiled as it is: apexstream export net.onnx --backend tensorrt
    """
    if backend == "tensorrt":
        _check_compiles()
    if run.suffix == ".onnx":
        if backend != "tensorrt" or out or evaluation or data:
            raise typer.BadParameter(f"{run} is exported already; give --backend tensorrt, and no other option, to compile it")
        say(_compiled(run))
        return
    if out is None:
        raise typer.BadParameter("say with --out which .onnx file to write")
    _write(run, out, evaluation, data)
    if backend == "tensorrt":
        say(_compiled(out))


def _check_compiles() -> None:
    """BackendError with the reason where TensorRT cannot compile here, before anything is written."""
    from engine.errors import BackendError
    from engine.runtime import refusal

    if reason := refusal("tensorrt"):
        advice = "run this on the machine with the GPU, or leave --backend out to write the .onnx file alone"
        raise BackendError(f"TensorRT cannot compile the network here: {reason}; {advice}")


def _compiled(weights: Path) -> str:
    """Compile the network of a file, the engine beside it, unless it is there; what came of it, in lines."""
    from engine.errors import BackendError, WeightsError
    from engine.runtime.trt import TrtRunner

    if not weights.is_file():
        raise WeightsError(f"there is no network file {weights}")
    runner = TrtRunner(weights, cache=weights.parent)
    path = weights.parent / runner.file_name(runner.precision)
    if not path.is_file():
        raise BackendError(f"the compiled network is not kept: {'; '.join(runner.notes)}")
    lines = (*runner.notes, f"{path}: {path.stat().st_size / 1e6:.1f} MB, for {runner.device}")
    return "\n".join(lines)


def _write(run: Path, out: Path, evaluation: Path | None, data: Path | None) -> None:
    import torch

    from engine.errors import ConfigError
    from engine.models.committee import kernel_of
    from training import datasets
    from training.export import export_onnx, write_card
    from training.runs import load_run

    if out.suffix != ".onnx":
        raise ConfigError(f"the exported file must end in .onnx, not {out.name}")
    for written in (out, out.with_suffix(".json")):
        check_target(written, "--out")
    recipe, network, fitted_to = load_run(run)
    judged = _judged(evaluation, recipe, fitted_to)
    network.temperature.fill_(judged["temperature"])
    torch.set_num_threads(1)
    probes = datasets.load(data).inputs(recipe.model.input) if data else None
    worst = export_onnx(network, recipe, out, probes=probes)
    held = ", ".join(f"{name} {sum(classes.values())}" for name, classes in fitted_to["databases"].items())
    facts = {
        "data": f"{fitted_to['maps']} flow maps of {fitted_to['subjects']} subjects ({held})",
        "licence": licence(fitted_to["databases"]),
    }
    card = write_card(out, recipe, {**facts, **judged}, kernel_of(network))
    say(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {card.model_id}, runtimes agree within {worst:.1e}")


def licence(databases: Collection[str]) -> str:
    """What a network may be used for that was fitted to these databases."""
    known = [title for name, title in RESEARCH.items() if name in databases]
    others = [name for name in databases if name not in RESEARCH]
    listed = " and ".join(filter(None, (", ".join(known[:-1]), *known[-1:])))
    released = f"{listed} {'are' if len(known) > 1 else 'is'} released for non-commercial research" if known else ""
    terms = f"the terms of {', '.join(others)} hold" if others else ""
    return f"research only: {'; '.join(filter(None, (released, terms)))} (LICENSE-WEIGHTS)"


def _judged(evaluation: Path | None, recipe: Recipe, fitted_to: dict[str, Any]) -> dict[str, Any]:
    """Temperature, threshold and scores from an evaluation of the same recipe on the same data; neutral values without one."""
    from engine.errors import ConfigError
    from training.calibration import LEAST_THRESHOLD
    from training.report import read_summary

    if evaluation is None:
        return {"temperature": 1.0, "uncertain_below": LEAST_THRESHOLD, "scores": {"protocol": "not evaluated"}}
    summary = read_summary(evaluation)
    _check_same(evaluation, summary, recipe, fitted_to)
    sure = summary["confidence"]
    if not sure["precision_reached"]:
        asked = f"{sure['precision_asked']:.1%} of the said answers right"
        raise ConfigError(f"{evaluation}: no threshold from 0.5 up makes {asked}; evaluate again with a lower --precision")
    return {"temperature": sure["temperature"], "uncertain_below": sure["uncertain_below"], "scores": _scores(summary)}


def _check_same(evaluation: Path, summary: dict[str, Any], recipe: Recipe, fitted_to: dict[str, Any]) -> None:
    """ConfigError where the evaluation is of another recipe than the run's, whatever the seed, or of other data."""
    from engine.errors import ConfigError
    from training.fold_record import with_defaults

    own, judged = recipe.model_dump(mode="json"), with_defaults(summary["recipe"])
    if not isinstance(judged, dict) or judged | {"seed": 0} != own | {"seed": 0}:
        raise ConfigError(f"{evaluation} judges another recipe than the run's; evaluate the run's own recipe")
    key = "data" if "data" in fitted_to else "maps"  # older runs keep the number of maps instead of a digest
    if summary.get(key) != fitted_to[key]:
        difference = f"{key} {summary.get(key)} rather than {fitted_to[key]}"
        raise ConfigError(f"{evaluation} judges other flow maps than the run was fitted to ({difference}); evaluate with those")


def _scores(summary: dict[str, Any]) -> dict[str, float | str]:
    """The honest figures of a summary, flat, for the card; what is not known (a spread over one seed) is left out."""
    sure = summary["confidence"]
    scores: dict[str, float | str | None] = {
        "protocol": summary["protocol"],
        "seeds": len(summary["seeds"]),
        "groups": summary["groups"],
    }
    for name in ("uf1", "uar"):
        scores |= {f"{name}_{key}": value for key, value in summary[name].items()}
        scores |= {f"{part}_{name}": figures[name]["mean"] for part, figures in summary["databases"].items()}
        scores |= {f"single_{name}_{key}": value for key, value in summary["single"][name].items()} if summary["single"] else {}
    scores |= {"said": sure["said"], "right_when_said": sure["right_when_said"], "precision_asked": sure["precision_asked"]}
    scores |= {"calibration_error": sure["error"]["mean"], "calibration_error_perfect_p95": sure["perfect"]["p95"]}
    return {name: value for name, value in scores.items() if value is not None}
