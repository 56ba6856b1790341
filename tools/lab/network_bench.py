"""The network, one map at a time: ONNX Runtime in several settings against PyTorch eager, all in one run.

    python -m lab.network_bench [--weights FILE] [--rounds N] [--json]

`engine.runtime.ort` takes the settings that this table recommends. A round calls each of them five times, by turns in another
order, and leaves the first call out, so that each finds its own data in the processor's cache; a line's time is the median, its
ratio that of the medians. What the answers differ is the greatest difference of a probability from PyTorch's, over 64 maps of
noise.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import typer

from apexstream.bench.timing import timed
from engine.runtime import load
from engine.types import F32
from engine.weights import default_weights

Call = Callable[[F32], F32]

EAGER, OURS = "PyTorch eager, 1 thread", "as shipped: 1 thread, float32"
CALLS = 5


@dataclass(frozen=True)
class Row:
    """One setting: milliseconds a map, how often it fits in eager's, how far its answers are from eager's."""

    name: str
    ms: float
    ratio: float
    differs: float


def settings(weights: Path, scratch: Path) -> dict[str, Call]:
    """Everything compared, PyTorch first; scratch is a folder for the network in 8 bits."""
    import torch

    torch.set_num_threads(1)
    level = onnxruntime.GraphOptimizationLevel
    return {
        EAGER: load(weights, backend="eager"),
        OURS: load(weights, backend="ort"),
        "batch fixed at 1": _session(weights, fixed=True),
        "basic graph optimizations": _session(weights, level=level.ORT_ENABLE_BASIC),
        "no graph optimizations": _session(weights, level=level.ORT_DISABLE_ALL),
        "2 threads": _session(weights, threads=2, spinning=False),
        "2 threads, spinning": _session(weights, threads=2),
        "8 bits": _session(_in_8_bits(weights, scratch)),
    }


def measure(calls: dict[str, Call], shape: tuple[int, ...], rounds: int) -> list[Row]:
    """Each setting's row; shape is that of one map, the first setting is what the others are compared with."""
    noise = np.random.default_rng(0).random((64, *shape), np.float32)
    one = noise[:1]
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:  # none always after the same other
            times[name] += [timed(partial(calls[name], one), time.perf_counter)[0] for _ in range(CALLS)][1:]
    answers = {name: np.concatenate([call(noise[i : i + 1]) for i in range(len(noise))]) for name, call in calls.items()}
    medians = {name: float(np.median(taken)) for name, taken in times.items()}
    return [
        Row(name, 1000 * median, medians[names[0]] / median, float(np.abs(answers[name] - answers[names[0]]).max()))
        for name, median in medians.items()
    ]


def _session(weights: Path, *, threads: int = 1, spinning: bool = True, fixed: bool = False, level: Any = None) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    if fixed:
        options.add_free_dimension_override_by_name("batch", 1)
    if level is not None:
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])

    def call(maps: F32) -> F32:
        out: F32 = session.run(["probabilities"], {"maps": maps})[0]
        return out

    return call


def _in_8_bits(weights: Path, scratch: Path) -> Path:
    """The network with 8-bit weights and activations in its products, scaled at run time; what depends on parameters alone is
    computed first, since only stored weights are rounded."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    folded, rounded = scratch / "folded.onnx", scratch / "rounded.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath, options.log_severity_level = str(folded), 4
    onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
    quantize_dynamic(folded, rounded, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    return rounded


def main(
    weights: Annotated[Path | None, typer.Option(help="Exported network.", show_default="the shipped one")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds over all settings.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Time the network in several settings of ONNX Runtime beside PyTorch eager, one map at a time, on the CPU."""
    path = weights or default_weights()
    with tempfile.TemporaryDirectory() as scratch:
        shape = load(path, backend="ort").input_shape
        rows = measure(settings(path, Path(scratch)), shape, rounds)
    if not as_json:
        typer.echo(f"{'setting':<32} {'ms':>7} {'ratio':>6}  differs")
    for row in rows:
        line = f"{row.name:<32} {row.ms:7.3f} {row.ratio:6.1f}  {row.differs:.1e}"
        typer.echo(json.dumps(asdict(row)) if as_json else line)


if __name__ == "__main__":
    typer.run(main)
