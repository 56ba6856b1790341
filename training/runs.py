"""A training run's folder: the recipe, the fitted parameters, and the losses.

recipe.json     the recipe as it was used
fitted.pt       parameters of the committee (PyTorch state)
losses.csv      stage (pre-training or fitting), member, epoch, loss
data.json       maps per database and class that it was fitted to, their digest (`FlowMaps.digest`), and what fitted it
start-*.pt      pre-trained starts (`training.pretrain.saved_start`); a finished run no longer needs them
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from engine.errors import ApexError, ConfigError, OutputError, WeightsError
from engine.models.committee import Committee, assemble
from training.datasets import CLASSES, FlowMaps
from training.provenance import made_here
from training.recipe import Recipe

Losses = Sequence[tuple[str, int, int, float]]
"""(stage, member, epoch, mean loss) of each epoch."""


def begin_run(folder: Path) -> None:
    """Make the folder, before the work whose result it is for. OutputError where nothing can be written there, or where it
    holds a finished run."""
    if (folder / "fitted.pt").exists():
        raise OutputError(f"{folder} holds a finished run already; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
    except OSError as cause:
        raise OutputError(f"the run cannot be written to {folder}: {cause.strerror}") from cause


def save_run(folder: Path, recipe: Recipe, network: Committee, data: FlowMaps, losses: Losses, *, device: str = "cpu") -> None:
    """Write the folder; device is the name of what fitted the network. OutputError where it cannot be written."""
    counts: dict[str, dict[str, int]] = {}
    for database, label in zip(data.databases, data.labels, strict=True):
        classes = counts.setdefault(database, dict.fromkeys(CLASSES, 0))
        classes[CLASSES[label]] += 1
    facts = {
        **{"maps": len(data), "subjects": len(set(data.subjects)), "data": data.digest()},
        **{"absent": list(data.absent), "databases": counts, "made_by": made_here(device)},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / "data.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        with (folder / "losses.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("stage", "member", "epoch", "loss"), *losses])
        torch.save(network.state_dict(), folder / "fitted.pt")
    except (OSError, RuntimeError) as cause:
        raise OutputError(f"the run cannot be written to {folder}: {getattr(cause, 'strerror', None) or cause}") from cause


def load_run(folder: Path) -> tuple[Recipe, Committee, dict[str, Any]]:
    """The recipe, the fitted committee in evaluation mode, and what it was fitted to."""
    try:
        recipe = Recipe.model_validate_json((folder / "recipe.json").read_bytes())
        facts: dict[str, Any] = json.loads((folder / "data.json").read_bytes())
        fitted = io.BytesIO((folder / "fitted.pt").read_bytes())
    except OSError as cause:
        raise ConfigError(f"{folder} is not the folder of a finished training run: no readable {cause.filename}") from cause
    except (ValidationError, ValueError) as cause:
        raise ConfigError(f"the run in {folder} cannot be read: {str(cause).splitlines()[0]}") from cause
    try:
        state = torch.load(fitted, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as cause:
        raise WeightsError(f"{folder / 'fitted.pt'} is damaged; fit again") from cause
    try:
        model = recipe.model
        kernel = {"centres": recipe.kernel.centres, "share": recipe.kernel.share} if recipe.kernel else None
        network = assemble(model.name, model.options, model.members, kernel, len(CLASSES))
        network.load_state_dict(state)
    except (ApexError, KeyError, RuntimeError) as cause:
        raise WeightsError(f"the parameters in {folder} do not fit the network of its recipe: {cause}") from cause
    return recipe, network.eval(), facts
