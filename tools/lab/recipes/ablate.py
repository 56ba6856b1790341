"""The AHMSA paper's ablations, repeated: how many levels, how many blocks a level, which batch.

    python -m lab.recipes.ablate --data DIR --out runs/ablations --summary training/records/ablations.json

Judged on the development subjects alone (half of each database's, `training.split.development_split`), in five groups of them,
at the last epoch, so that nothing here is chosen on the subjects that only the final figures may see. Every variant's folds are
kept; the same command goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from apexstream.commands import check_target
from lab.command import run
from training.recipe import Recipe

GROUPS = 5
"""How many groups of the development subjects take turns."""

Change = dict[str, dict[str, Any]]

BLOCKS = ((1, 1, 8), (2, 2, 2), (2, 2, 4), (2, 2, 8), (4, 4, 8), (8, 8, 8))
VARIANTS: dict[str, dict[str, Change]] = {
    "levels": {
        "1 (one patch of 28)": {"options": {"repeats": (8,), "patch": 28}},
        "2 (patches of 14)": {"options": {"repeats": (2, 8), "patch": 14}},
        "3 (patches of 7)": {"options": {"repeats": (2, 2, 8), "patch": 7}},
    },
    "blocks a level": {str(repeats): {"options": {"repeats": repeats}} for repeats in BLOCKS},
    "batch": {str(batch): {"fit": {"batch": batch}} for batch in (32, 64, 128, 256)},
}
"""What is varied: subject -> variant -> what of the recipe it sets."""


def varied(recipe: Recipe, change: Change) -> Recipe:
    """The recipe with options of its network or settings of its fitting replaced."""
    model = recipe.model.model_copy(update={"options": {**recipe.model.options, **change.get("options", {})}})
    fitted = recipe.fit.model_copy(update=change.get("fit", {}))
    return Recipe.model_validate(recipe.model_copy(update={"model": model, "fit": fitted}).model_dump(mode="json"))


def judged(recipe: Recipe, data: Any, record: Path, seeds: Sequence[int], jobs: int) -> dict[str, Any]:
    """One variant's scores over the seeds: mean and sample standard deviation of UF1 and UAR, parameters, seconds."""
    from engine.models import build
    from training.answers import gather
    from training.loso import evaluate

    network = build(recipe.model.name, 3, **recipe.model.options)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    results = evaluate(recipe, data, record, seeds=seeds, groups=GROUPS, jobs=jobs)
    scores = [answers.scores() for answers in gather(results, data)]
    out: dict[str, Any] = {"parameters": parameters, "seconds": round(sum(r.seconds for r in results))}
    for name in ("uf1", "uar"):
        values = [getattr(score, name) for score in scores]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        out[name] = {"mean": round(float(np.mean(values)), 4), "spread": None if spread is None else round(spread, 4)}
    return out


def table(summary: dict[str, dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    lines = ["| varied | variant | parameters | UF1 | UAR |", "| --- | --- | ---: | --- | --- |"]
    for subject, variants in summary.items():
        for name, found in variants.items():
            figures = (_figure(found[key]) for key in ("uf1", "uar"))
            lines.append(f"| {subject} | {name} | {found['parameters']:,} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _figure(value: dict[str, float | None]) -> str:
    return f"{value['mean']:.3f}" + ("" if value["spread"] is None else f" ± {value['spread']:.3f}")


def main(
    *,
    data: Annotated[Path, typer.Option(help="Folder of flow maps: the published ones (htnet-3db), or made by prepare.")],
    out: Annotated[Path, typer.Option(help="Folder for the folds of each variant, which a later call goes on with.")],
    config: Annotated[Path, typer.Option(help="The recipe that is varied.")] = Path("configs/train/ahmsa-ablation.toml"),
    summary: Annotated[Path | None, typer.Option(help="JSON file for the table.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many times each variant is judged.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Folds at once, each on one thread.")] = 1,
) -> None:
    """Repeat the AHMSA paper's ablations on the development subjects; prints a table."""
    from training import datasets
    from training.pretrain import check_network
    from training.recipe import read_recipe
    from training.split import DEVELOPMENT_SEED, DEVELOPMENT_SHARE, development_split

    if summary is not None:
        check_target(summary, "--summary")
    recipe = read_recipe(config)
    check_network(recipe)
    maps = datasets.load(data)
    maps = maps.take(development_split(maps.subjects, maps.databases, share=DEVELOPMENT_SHARE, seed=DEVELOPMENT_SEED))
    found: dict[str, dict[str, Any]] = {}
    for subject, variants in VARIANTS.items():
        for name, change in variants.items():
            tried = varied(recipe, change)
            folder = f"{subject}-{name}" if tried != recipe else "as-it-is"
            record = out / "".join(c if c.isalnum() else "-" for c in folder) / "folds.jsonl"
            found.setdefault(subject, {})[name] = judged(tried, maps, record, range(seeds), jobs)
            typer.echo(f"{subject}, {name}: {found[subject][name]}", err=True)
    typer.echo(table(found))
    if summary is not None:
        summary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
