"""`apexstream train`: fit a recipe's networks to all maps of a data set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Option(help="The recipe, a TOML file such as configs/train/ahmsa-3db.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of flow maps: the published ones (htnet-3db), or made by prepare.")],
    out: Annotated[Path, typer.Option(help="Folder for the run; must not hold one already.")],
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's own seed.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
) -> None:
    """Fit a network on a configured data set, all its maps, to the recipe's last epoch.

    Pre-trained starts are kept in OUT: after a stop, the same command goes on with the network it was at.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from engine.errors import OutputError
    from training import datasets
    from training.fit import fit
    from training.pretrain import check_network, keep
    from training.recipe import epochs, pretrained_members, read_recipe
    from training.runs import save_run

    recipe = read_recipe(config)
    check_network(recipe)
    if (out / "fitted.pt").exists():
        raise OutputError(f"{out} holds a finished run already; name another folder")
    maps = datasets.load(data)
    console = Console(stderr=True)
    console.print(maps.told(), highlight=False)
    torch.set_num_threads(threads)
    losses: list[tuple[str, int, int, float]] = []
    with Progress(console=console) as bar:
        task = bar.add_task("simulating" if recipe.pretrain else "fitting", total=epochs(recipe))

        def told(stage: str, member: int, epoch: int, loss: float) -> None:
            losses.append((stage, member, epoch, round(loss, 5)))
            bar.update(task, advance=1, description=f"{stage} network {member + 1} of {recipe.model.members}, loss {loss:.3f}")

        used = recipe if seed is None else recipe.model_copy(update={"seed": seed})
        starts = [
            keep(out, used, used.seed, member, partial(told, "pre-training", member))
            for member in range(pretrained_members(used))
        ]
        network = fit(used, maps, starts=starts, progress=told)
    save_run(out, used, network, maps, losses)
    typer.echo(f"fitted {recipe.model.members} x {recipe.model.name} to {len(maps)} maps: {out}")
