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
    from training.datasets import htnet_3db
    from training.export import export_onnx, write_card
    from training.runs import load_run

    if out.suffix != ".onnx":
        raise ConfigError(f"the exported file must end in .onnx, not {out.name}")
    recipe, network, told = load_run(run)
    judged = _judged(evaluation, recipe)
    network.temperature.fill_(judged["temperature"])
    torch.set_num_threads(1)
    probes = htnet_3db.load(data).regions() if data else None
    worst = export_onnx(network, recipe, out, probes=probes)
    held = ", ".join(f"{name} {sum(classes.values())}" for name, classes in told["databases"].items())
    facts = {"data": f"{told['maps']} flow maps of {told['subjects']} subjects ({held})", "licence": LICENCE}
    card = write_card(out, recipe, {**facts, **judged})
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {card.model_id}, runtimes agree within {worst:.1e}")


def _judged(evaluation: Path | None, recipe: Recipe) -> dict[str, Any]:
    """Temperature, threshold and scores from an evaluation of the same recipe; neutral values without one."""
    from engine.errors import ConfigError
    from training.report import UNCERTAIN_BELOW, read_summary

    if evaluation is None:
        return {"temperature": 1.0, "uncertain_below": UNCERTAIN_BELOW, "scores": {"protocol": "not evaluated"}}
    summary = read_summary(evaluation)
    if summary["recipe"] != recipe.model_dump(mode="json"):
        raise ConfigError(f"{evaluation} judges another recipe than the run's; evaluate the run's own recipe")
    scores: dict[str, float | str] = {"protocol": summary["protocol"], "seeds": len(summary["seeds"])}
    scores |= {f"{name}_{key}": value for name in ("uf1", "uar") for key, value in summary[name].items()}
    for name, part in next(iter(summary["seeds"].values())).items():
        scores |= {f"{name}_uf1": part["uf1"], f"{name}_uar": part["uar"]} if name != "all" else {}
    sure = summary["confidence"]
    scores |= {"said": sure["said"], "right_when_said": sure["right_when_said"]}
    return {"temperature": sure["temperature"], "uncertain_below": sure["uncertain_below"], "scores": scores}
