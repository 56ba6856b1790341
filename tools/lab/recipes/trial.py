"""Which of these recipes is the best? Judged on the development subjects alone, so that the final figures stay honest.

    python -m lab.recipes.trial one.toml other.toml --data DIR --out runs/trials

The development subjects (half of each database's, `training.split.development_split`) are left out in groups, each judged by
networks fitted to everybody else; the other half is fitted to and never judged. Choose among recipes by what this prints, and
only then take `apexstream evaluate` of the one chosen. The likelihood is less noisy than UF1: two seeds of one recipe differ
by about .01 in UF1 and .003 in likelihood. Every recipe's folds are kept; the same command goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from engine.errors import ConfigError
from lab.command import run

if TYPE_CHECKING:
    from training.answers import F64, Answers, Labels


def likelihood(logits: F64, truth: Labels) -> float:
    """Mean negative log likelihood of the true classes [N] under logits [N, K], at the temperature that suits them best."""
    from training.calibration import fit_temperature, probabilities

    chances = probabilities(logits, fit_temperature(logits, truth))
    return float(-np.log(chances[np.arange(len(truth)), truth]).mean())


def row(name: str, seeds: Sequence[Answers]) -> str:
    """One recipe's figures as a line of the table."""
    cells = [name]
    alone = [(a, a.members[:, m]) for a in seeds if a.members is not None for m in range(a.members.shape[1])]
    for runs in ([(a, a.logits) for a in seeds], alone):
        scores = [a.scores(logits) for a, logits in runs]
        cells += [_figure([s.uf1 for s in scores]), _figure([s.uar for s in scores])]
        cells.append(_figure([likelihood(logits, a.truth) for a, logits in runs]))
    return f"| {' | '.join(cells)} |"


def _figure(values: Sequence[float]) -> str:
    if not values:
        return "not kept"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


HEAD = """| recipe | UF1 | UAR | NLL | one network: UF1 | UAR | NLL |
| --- | --- | --- | --- | --- | --- | --- |"""


def main(
    *,
    recipes: Annotated[list[Path], typer.Argument(help="Recipes, TOML files such as those in configs/train.")],
    data: Annotated[Path, typer.Option(help="Folder of flow maps: the published ones (htnet-3db), or made by prepare.")],
    out: Annotated[Path, typer.Option(help="Folder for the folds of each recipe, which a later call goes on with.")],
    groups: Annotated[int, typer.Option(min=2, help="How many groups of the development subjects take turns.")] = 10,
    seeds: Annotated[int, typer.Option(min=1, help="How many times each recipe is judged.")] = 2,
    jobs: Annotated[int, typer.Option(min=1, help="Folds at once, each on one thread.")] = 1,
    stacked: Annotated[bool, typer.Option("--stacked", help="Fit all folds together on this CPU, as a GPU would.")] = False,
) -> None:
    """Compare recipes on the development subjects; prints a table, and a line as each recipe is done."""
    from rich.console import Console

    from apexstream.display import stages_bar
    from training import datasets
    from training.answers import gather
    from training.device import CPU
    from training.loso import evaluate
    from training.pretrain import check_network
    from training.recipe import read_recipe

    read = [read_recipe(path) for path in recipes]
    names = [path.stem for path in recipes]
    if len(set(names)) < len(names):
        raise ConfigError(f"two of the recipes are files of the same name ({', '.join(names)}); rename one")
    for recipe in read:
        check_network(recipe)
    maps = datasets.load(data)
    typer.echo(maps.description(), err=True)
    rows, console = [], Console(stderr=True)
    for name, recipe in zip(names, read, strict=True):
        folder, chosen = out / name, range(recipe.seed, recipe.seed + seeds)
        judge = partial(evaluate, recipe, maps, folder / "folds.jsonl", groups=groups, development=True)
        place = CPU if stacked else None
        results = judge(seeds=chosen, jobs=jobs, stacked_on=place, progress=stages_bar(console))
        rows.append(row(name, gather(results, maps)))
        typer.echo(rows[-1], err=True)
    typer.echo("\n".join((HEAD, *rows)))


if __name__ == "__main__":
    run(main)
