"""`apexstream evaluate`: judge a recipe on faces it never saw, report it, and go on where a stopped run was."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apexstream.commands import say
from apexstream.commands.options import ClusterOption, DeviceOption, on_cluster

if TYPE_CHECKING:
    from rich.table import Table

    from training.datasets import FlowMaps
    from training.report import Assessment


PrecisionOption = Annotated[
    float,
    typer.Option(
        min=0.01,
        max=0.99,
        help="Share of the said answers that shall be right; what is `uncertain` is chosen for it on other subjects.",
    ),
]
GroupsOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Leave out this many groups of subjects instead of each subject: for networks too slow for one fit a subject. "
        "Labelled so everywhere; not comparable with published figures.",
    ),
]
SelectOnTestOption = Annotated[
    bool,
    typer.Option(
        "--select-on-test",
        help="Show the leak: also give the figure of the epoch that is best on the very subject judged, as many papers do. "
        "It stands beside the honest figure, labelled, and is not a valid score.",
    ),
]


def evaluate(
    *,
    config: Annotated[Path, typer.Option(help="The recipe, a TOML file such as configs/train/ahmsa-3db.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of flow maps: the published ones (htnet-3db), or made by prepare.")],
    out: Annotated[Path, typer.Option(help="Folder for folds.jsonl, which a later call goes on with, and the report.")],
    seeds: Annotated[
        int, typer.Option(min=1, help="How many times, each with a seed of its own: the recipe's, then upwards.")
    ] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Folds at once on a CPU, each on one thread; a GPU fits all at once.")] = 1,
    device: DeviceOption = "auto",
    precision: PrecisionOption = 0.75,
    groups: GroupsOption = None,
    select_on_test: SelectOnTestOption = False,
    cluster: ClusterOption = None,
) -> None:
    """Judge a recipe on faces it never saw: each subject by networks fitted to all others, at the last epoch.

    UF1 and UAR come from one pooled confusion matrix. OUT gets report.html (open it in a browser), pictures/, summary.json (for
    export --evaluation), predictions.csv, recipe.json, run.json (commit and versions) and folds.jsonl. Where all folds are in
    folds.jsonl already, the report is made again from them in seconds.
    """
    from rich.console import Console

    import training.page  # noqa: F401 - what it needs is missed before the fitting, not after
    from apexstream.display import stages_bar
    from training import datasets, fold_record, loso
    from training.device import CPU, choose_device
    from training.pretrain import check_network
    from training.recipe import read_recipe
    from training.report import assess

    recipe, place = read_recipe(config), CPU if cluster is not None else choose_device(device)
    check_network(recipe)
    maps = datasets.load(data)
    console = Console(stderr=True)
    console.print(maps.description(), highlight=False)
    record, chosen = out / "folds.jsonl", range(recipe.seed, recipe.seed + seeds)
    judge = partial(loso.evaluate, recipe, maps, record, seeds=chosen, groups=groups, select_on_test=select_on_test)
    try:
        results = judge(
            jobs=jobs,
            stacked_on=None if place == CPU else place,
            progress=stages_bar(console),
            **on_cluster(cluster, record, device),
        )
    except KeyboardInterrupt:
        say(f"stopped; finished folds are kept, the same command goes on from {record}", err=True)
        raise typer.Exit(1) from None
    header, _ = fold_record.read_record(record)
    found = assess(header, results, maps, precision=precision, groups=groups)
    page = _written(found, maps, out, fold_record.makers(record, results))
    _show(found.summary)
    say(f"report: {page}")


def _written(found: Assessment, maps: FlowMaps, out: Path, makers: list[dict[str, Any]]) -> Path:
    """All files of the report; the page's path."""
    from training import report
    from training.page import write_page
    from training.provenance import write_provenance

    report.write_summary(found.summary, out / "summary.json")
    report.write_predictions(found, out / "predictions.csv")
    report.write_recipe(found.summary, out / "recipe.json")
    return write_page(out, found, maps, write_provenance(out / "run.json", makers))


def _show(summary: dict[str, Any]) -> None:
    from rich.console import Console

    from training.report import without_maps

    say(summary["protocol"])
    for table in _tables(summary):
        Console().print(table)
    for sentence in without_maps(summary):
        say(sentence)
    say(_confidence(summary))


def _tables(summary: dict[str, Any]) -> Iterator[Table]:
    from rich.table import Table

    from training.report import result_rows

    scores = Table("", "UF1", "UAR")
    for title, how, part in result_rows(summary):
        for name, figures in {"all": part, **part["databases"]}.items():
            scores.add_row(
                f"{title}\n{how}" if name == "all" else f"  {name}", _figure(figures["uf1"]), _figure(figures["uar"])
            )
        scores.add_section()
    yield scores
    names = summary["classes"]
    table = Table("", "UF1", "UAR", *names, title="each seed, and recall of each class")
    for seed, parts in summary["seeds"].items():
        s = parts["all"]
        recalls = (f"{s['recall'][name]:.3f}" for name in names)
        table.add_row(f"seed {seed}", f"{s['uf1']:.4f}", f"{s['uar']:.4f}", *recalls)
    yield table
    runs = [parts["all"]["confusion"] for parts in summary["seeds"].values()]
    mean = "" if len(runs) == 1 else ", mean over the seeds"
    pooled = Table("truth \\ answer", *names, title=f"pooled confusion matrix{mean}")
    for i, name in enumerate(names):
        row = (sum(run[i][j] for run in runs) / len(runs) for j in range(len(names)))
        pooled.add_row(name, *(f"{count:g}" for count in row))
    yield pooled


def _figure(value: dict[str, float | None]) -> str:
    return f"{value['mean']:.4f}" + ("" if value["spread"] is None else f" ± {value['spread']:.4f}")


def _confidence(summary: dict[str, Any]) -> str:
    from training.report import verdict

    sure = summary["confidence"]
    perfect = sure["perfect"]
    error = f"calibration error {sure['error']['mean']:.4f}, {verdict(sure)}: a perfectly calibrated model shows "
    band = f"{perfect['mean']:.4f}, at the 95th percentile {perfect['p95']:.4f}; temperature {sure['temperature']:.3f}"
    if not sure["precision_reached"]:
        asked = f"{sure['precision_asked']:.1%}"
        return f"{error}{band}\nno threshold from 0.5 up makes {asked} of the said answers right, so nothing is said"
    answered = f"uncertain below {sure['uncertain_below']:.3f}: on other subjects {sure['said']:.1%} is said, "
    return f"{error}{band}\n{answered}{sure['right_when_said']:.1%} of it right ({sure['precision_asked']:.1%} asked)"
