"""`apexstream train`: fit a recipe's networks to all maps of a data set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import say
from apexstream.commands.options import DeviceOption

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from engine.models.committee import Committee
    from training.datasets import FlowMaps
    from training.recipe import Recipe
    from training.runs import Losses


def train(
    *,
    config: Annotated[Path, typer.Option(help="The recipe, a TOML file such as configs/train/ahmsa-3db.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of flow maps: the published ones (htnet-3db), or made by prepare.")],
    out: Annotated[Path, typer.Option(help="Folder for the run; must not hold one already.")],
    seed: Annotated[int | None, typer.Option(min=0, max=10**12, help="Instead of the recipe's own seed.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    device: DeviceOption = "auto",
) -> None:
    """Fit a network on a configured data set, all its maps, to the recipe's last epoch.

    Pre-trained starts are kept in OUT, so that after a stop the same command does not make them again; what was fitted to
    the maps until then is fitted again.
    """
    import torch
    from rich.console import Console

    from training import datasets
    from training.device import choose_device, device_name
    from training.pretrain import check_network
    from training.recipe import read_recipe
    from training.runs import begin_run, save_run

    recipe, place = read_recipe(config), choose_device(device)
    check_network(recipe)
    begin_run(out)
    maps = datasets.load(data)
    console = Console(stderr=True)
    console.print(maps.description(), highlight=False)
    torch.set_num_threads(threads)
    used = recipe if seed is None else recipe.model_copy(update={"seed": seed})
    try:
        network, losses = _fitted(used, maps, out, place, console)
    except KeyboardInterrupt:
        say(f"stopped; pre-trained starts are kept in {out}, the same command fits again from them", err=True)
        raise typer.Exit(1) from None
    save_run(out, used, network, maps, losses, device=device_name(place))
    say(f"fitted {recipe.model.members} x {recipe.model.name} to {len(maps)} maps: {out}")


def _fitted(recipe: Recipe, maps: FlowMaps, out: Path, device: torch.device, console: Console) -> tuple[Committee, Losses]:
    """The recipe's networks fitted to maps on the device, with a bar; pre-trained starts are kept in out."""
    from rich.progress import Progress

    from training.pretrain import saved_start
    from training.recipe import epochs, pretrained_members
    from training.stacked.folds import fit_on

    losses: list[tuple[str, int, int, float]] = []
    with Progress(console=console) as bar:
        task = bar.add_task("simulating" if recipe.pretrain else "fitting", total=epochs(recipe))

        def progress(stage: str, member: int, epoch: int, loss: float) -> None:
            losses.append((stage, member, epoch, round(loss, 5)))
            bar.update(task, advance=1, description=f"{stage} network {member + 1} of {recipe.model.members}, loss {loss:.3f}")

        members = range(pretrained_members(recipe))
        starts = [
            saved_start(out, recipe, recipe.seed, member, partial(progress, "pre-training", member), device=device)
            for member in members
        ]
        return fit_on(device, recipe, maps, starts=starts, progress=progress), losses
