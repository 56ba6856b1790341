"""From a fitted committee to a file that every backend runs: ONNX, checked against PyTorch before it exists, and its card."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from engine.errors import OutputError, WeightsError
from engine.geometry import INPUTS
from engine.models.committee import Committee, assemble, kernel_of, passes
from engine.runtime import load
from engine.types import F32
from engine.weights import Card, sha256_of
from training.datasets import CLASSES
from training.lean import lean
from training.recipe import Recipe

TOLERANCE = 1e-5
"""Greatest difference of a probability between ONNX Runtime and PyTorch. Measured on real maps and on noise: below 4e-7 for
AHMSA-Net's committees and HFA-Net, 4.2e-6 for HTNet, whose layers are up to 4096 wide."""


def export_onnx(network: Committee, recipe: Recipe, out: Path, *, probes: F32 | None = None) -> float:
    """Write the committee as ONNX ('maps' [B, 3, H, W] -> 'probabilities' [B, K]) and return the greatest difference found.

    The file holds each parameter under its PyTorch name, and name and options of the architecture, so that it can be rebuilt.
    probes [N, 3, H, W] are compared besides noise. Raises WeightsError where the network is not the recipe's; else as
    `write_checked` does.
    """
    _check_is_of(network, recipe)
    tried = np.random.default_rng(0).random((16, *INPUTS[recipe.model.input]), np.float32)
    if probes is not None:
        tried = np.concatenate((tried, probes))
    return write_checked(to_onnx(network, recipe), network, out, probes=tried)


def write_checked(model: onnx.ModelProto, network: Committee, out: Path, *, probes: F32) -> float:
    """Write the model once ONNX Runtime and the rebuilt network answer the probes [N, 3, H, W] as the PyTorch network does.

    Returns the greatest difference of a probability. Raises WeightsError where it exceeds TOLERANCE, OutputError where the
    file cannot be written; either way what was at `out` stays as it was.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
            draft = Path(folder) / out.name
            draft.write_bytes(model.SerializeToString())
            worst = _difference(network.eval(), draft, probes)
            if worst > TOLERANCE:
                told = f"its answers differ from PyTorch's by {worst:.1e} (allowed {TOLERANCE:.0e})"
                raise WeightsError(f"{out} was not written: {told}")
            draft.replace(out)
    except OSError as cause:
        raise OutputError(f"{out} cannot be written: {cause.strerror}") from cause
    return worst


def to_onnx(network: Committee, recipe: Recipe) -> onnx.ModelProto:
    """The committee as an ONNX model that describes itself, unchecked."""
    model = _graph(lean(network.eval()), INPUTS[recipe.model.input])
    description = {
        "network": recipe.model.name,
        "options": recipe.model.options,
        "members": recipe.model.members,
        "classes": list(CLASSES),
        "kernel": kernel_of(network),
        "input_shape": list(INPUTS[recipe.model.input]),
        "recipe": recipe.name,
    }
    onnx.helper.set_model_props(model, {"apexstream": json.dumps(description)})
    return model


def _check_is_of(network: Committee, recipe: Recipe) -> None:
    model = recipe.model
    expected = assemble(model.name, model.options, model.members, kernel_of(network), len(CLASSES))
    same = shapes(expected) == shapes(network)
    if not same or (recipe.kernel is None) != (network.kernel is None):
        raise WeightsError(f"the network to be exported is not {model.members} x {model.name} of the recipe {recipe.name}")


def shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    """The shape of everything in a network by name."""
    return {name: value.shape for name, value in network.state_dict().items()}


def write_card(weights: Path, recipe: Recipe, facts: dict[str, Any], kernel: dict[str, Any] | None = None) -> Card:
    """Write the card beside an exported file and return it; kernel as `engine.models.committee.kernel_of` gives it.

    facts: data, licence, temperature, uncertain_below, scores, as in `engine.weights.Card`; the rest follows from recipe and
    file.
    """
    made = {
        "name": weights.stem,
        "network": recipe.model.name,
        "options": recipe.model.options,
        "members": recipe.model.members,
        "classes": CLASSES,
        "kernel": kernel,
        "input": recipe.model.input,
        "input_shape": INPUTS[recipe.model.input],
        "recipe": recipe.name,
        "sha256": sha256_of(weights),
    }
    checked = Card.model_validate({**made, **facts})
    path = weights.with_suffix(".json")
    draft = path.with_suffix(".json.part")
    try:
        draft.write_text(checked.model_dump_json(indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as cause:
        draft.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {cause.strerror}") from cause
    return checked


def _graph(network: torch.nn.Module, shape: tuple[int, int, int]) -> onnx.ModelProto:
    example = (torch.rand(3, *shape),)
    batch = torch.export.Dim("batch", min=1, max=65536)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            example,
            dynamo=True,
            optimize=False,  # keeps each parameter as it is, under its own name
            input_names=["maps"],
            output_names=["probabilities"],
            dynamic_shapes={"maps": {0: batch}},
            verbose=False,
        )
    if program is None:
        raise WeightsError("PyTorch made no ONNX program of the network")
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes on where each node came from: paths of this machine, as large as the parameters."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for field in ("value_info", "metadata_props", "doc_string"):
        graph.ClearField(field)
    model.ClearField("metadata_props")
    return model


def _difference(network: Committee, path: Path, probes: F32) -> float:
    batches = [*passes(torch.from_numpy(probes)), torch.from_numpy(probes[:1])]
    runners = [load(path, backend="ort"), load(path, backend="eager")]
    found: list[float] = []
    with torch.inference_mode():
        for maps in batches:
            expected = network(maps).numpy()
            if not np.isfinite(expected).all():
                raise WeightsError("the network's own answers are not finite; fit it again")
            found += [float(np.abs(runner(maps.numpy()) - expected).max()) for runner in runners]
    return max(found)
