"""`apexstream export`: a fitted run as an ONNX file with its card, checked against PyTorch before it is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from training.recipe import Recipe

LICENCE = "research only: SMIC, SAMM and CASME II are released for non-commercial research (LICENSE-WEIGHTS)"


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished `apexstream train`.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write; its card (.json) goes beside it.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="summary.json of the same recipe's evaluation: sets temperature, threshold and scores.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of flow maps on which both runtimes are compared too.")] = None,
) -> None:
    """Write a fitted network as ONNX; refused where ONNX Runtime and PyTorch do not agree."""
    import torch

    from engine.errors import ConfigError
    from engine.models.committee import described
    from training import datasets
    from training.export import export_onnx, write_card
    from training.runs import load_run

    if out.suffix != ".onnx":
        raise ConfigError(f"the exported file must end in .onnx, not {out.name}")
    recipe, network, told = load_run(run)
    judged = _judged(evaluation, recipe)
    network.temperature.fill_(judged["temperature"])
    torch.set_num_threads(1)
    probes = datasets.load(data).inputs(recipe.model.input) if data else None
    worst = export_onnx(network, recipe, out, probes=probes)
    held = ", ".join(f"{name} {sum(classes.values())}" for name, classes in told["databases"].items())
    facts = {"data": f"{told['maps']} flow maps of {told['subjects']} subjects ({held})", "licence": LICENCE}
    card = write_card(out, recipe, {**facts, **judged}, described(network))
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {card.model_id}, runtimes agree within {worst:.1e}")


def _judged(evaluation: Path | None, recipe: Recipe) -> dict[str, Any]:
    """Temperature, threshold and scores from an evaluation of the same recipe; neutral values without one."""
    from engine.errors import ConfigError
    from training.calibration import LEAST_THRESHOLD
    from training.report import read_summary

    if evaluation is None:
        return {"temperature": 1.0, "uncertain_below": LEAST_THRESHOLD, "scores": {"protocol": "not evaluated"}}
    summary = read_summary(evaluation)
    if summary["recipe"] != recipe.model_dump(mode="json"):
        raise ConfigError(f"{evaluation} judges another recipe than the run's; evaluate the run's own recipe")
    sure = summary["confidence"]
    if not sure["precision_reached"]:
        asked = f"{sure['precision_asked']:.1%} of the said answers right"
        raise ConfigError(f"{evaluation}: no threshold from 0.5 up makes {asked}; evaluate again with a lower --precision")
    return {"temperature": sure["temperature"], "uncertain_below": sure["uncertain_below"], "scores": _scores(summary)}


def _scores(summary: dict[str, Any]) -> dict[str, float | str]:
    """The honest figures of a summary, flat, for the card; what is not known (a spread over one seed) is left out."""
    sure = summary["confidence"]
    scores: dict[str, float | str | None] = {"protocol": summary["protocol"], "seeds": len(summary["seeds"])}
    for name in ("uf1", "uar"):
        scores |= {f"{name}_{key}": value for key, value in summary[name].items()}
        scores |= {f"{part}_{name}": figures[name]["mean"] for part, figures in summary["databases"].items()}
        scores |= {f"single_{name}_{key}": value for key, value in summary["single"][name].items()} if summary["single"] else {}
    scores |= {"said": sure["said"], "right_when_said": sure["right_when_said"], "precision_asked": sure["precision_asked"]}
    scores |= {"calibration_error": sure["error"]["mean"], "calibration_error_perfect_p95": sure["perfect"]["p95"]}
    return {name: value for name, value in scores.items() if value is not None}
