"""Flow, strain and network inputs from the GPU beside their readable equivalents, and what it does with bad input.

Where Triton interprets the kernels on the CPU the pictures are tiny and the iterations few: that shows the numbers of the same
code in seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from apexstream.bench.on_gpu.check import Check, Entry, Job, SkippedError
from apexstream.bench.on_gpu.pictures import moved_pairs, scattered_meshes
from engine.errors import ArrayError
from engine.geometry import CROP_SIDE
from engine.ops import device
from engine.ops.strain import gpu as strain_gpu
from engine.ops.strain import reference as strain_reference
from engine.ops.tvl1 import gpu, reference, tvl1_batch
from engine.ops.tvl1.method import METHOD, Method

FULL = dataclasses.replace(METHOD, settled=0.0)
"""The kernels run every iteration; so does the reference that they are compared with."""
FLOW_MEAN, FLOW_GREATEST = 1e-4, 0.02
"""Pixels, from the reference in float32; an H200 was measured at .008 at one pixel of 128 x 128, from the one in float64."""
STRAIN = 1e-5
"""No unit; an H200 was measured at 3e-8."""
INPUTS_APART = 0.02
"""Of the inputs' range 0..1: the CPU ends its iterations early, the GPU does not."""
MOMENTS = 8


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is compared."""

    side: int
    pairs: int
    method: Method
    batches: tuple[int, ...]
    shapes: tuple[tuple[int, int], ...]


def extent() -> Extent:
    """As much as the device does in seconds."""
    if device.interpreted():
        return Extent(16, 1, dataclasses.replace(FULL, iterations=2), (2,), ((1, 1), (5, 9)))
    return Extent(CROP_SIDE, 15, FULL, (1, 2, 3, 33, 64, 512), ((1, 1), (1, 40), (7, 1), (31, 22), (90, 201), (480, 640)))


def flow_of_faces(job: Job) -> Entry:
    """Motions of every kind, beside the reference."""
    much = extent()
    fixed, moving = moved_pairs(much.pairs, much.side)
    found = gpu.solve_arrays(fixed, moving, much.method)
    return _flow_apart(found, [reference.solve(*pair, much.method) for pair in zip(fixed, moving, strict=True)])


def flow_of_sizes(job: Job) -> Entry:
    """Pictures of other sizes, a pixel to a whole frame."""
    much, found, wanted = extent(), [], []
    for height, width in much.shapes:
        fixed, moving = (part[:, :height, :width].copy() for part in moved_pairs(1, max(height, width)))
        found.append(gpu.solve_arrays(fixed, moving, much.method)[0].ravel())
        wanted.append(reference.solve(fixed[0], moving[0], much.method).ravel())
    return {"sizes": [f"{h} x {w}" for h, w in much.shapes], **_flow_apart(np.concatenate(found), np.concatenate(wanted))}


def _flow_apart(found: Any, wanted: Any) -> Entry:
    apart = np.abs(np.asarray(found, np.float64) - np.asarray(wanted, np.float64))
    mean, greatest = float(apart.mean()), float(apart.max())
    return {"mean_px": mean, "greatest_px": greatest, "right": mean < FLOW_MEAN and greatest < FLOW_GREATEST}


def batch_sizes(job: Job) -> Entry:
    """A pair's flow in batches of several sizes, beside the pair alone; the second time, to the bit."""
    much = extent()
    fixed, moving = moved_pairs(max(much.batches), much.side // 4)
    alone = gpu.solve_arrays(fixed[:1], moving[:1], much.method)[0]
    apart, unsteady = {}, []
    for number in much.batches:
        first, second = (gpu.solve_arrays(fixed[:number], moving[:number], much.method) for _ in range(2))
        apart[str(number)] = float(np.abs(first[0] - alone).max())
        unsteady += [] if np.array_equal(first, second) else [number]
    return {"greatest_px": apart, "unsteady": unsteady, "right": not unsteady and max(apart.values()) < FLOW_MEAN}


def bad_input(job: Job) -> Entry:
    """What is no pair of pictures is refused with a sentence, and good pictures are solved as before afterwards."""
    fixed, moving = moved_pairs(2, 6)
    hole = fixed.copy()
    hole[1, 3, 3] = np.nan
    bad: dict[str, tuple[Any, Any]] = {
        "not a number": (hole, moving),
        "infinite": (np.where(np.isnan(hole), np.inf, hole).astype(np.float32), moving),
        "out of range": (fixed * 300, moving),
        "two sizes": (fixed, moving[:, :-1]),
        "no pictures": (fixed[:0], moving[:0]),
        "one picture": (fixed[0], moving[0]),
        "another type": (fixed.astype(np.int64), moving),
    }
    method = extent().method
    before = gpu.solve_arrays(fixed, moving, method)
    accepted = [name for name, pair in bad.items() if not _refused(partial(tvl1_batch, *pair, backend="gpu"))]
    same = bool(np.array_equal(before, gpu.solve_arrays(fixed, moving, method)))
    return {"refused": len(bad) - len(accepted), "accepted": accepted, "same_afterwards": same, "right": same and not accepted}


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except ArrayError:
        return True
    return False


def strain_of_flows(job: Job) -> Entry:
    """Optical strain beside the reference."""
    much = extent()
    flows = np.random.default_rng(0).normal(0, 1, (much.pairs, 2, much.side, much.side + 3)).astype(np.float32)
    apart = max(float(np.abs(strain_gpu.magnitude(flow) - strain_reference.magnitude(flow)).max()) for flow in flows)
    return {"greatest": apart, "right": apart < STRAIN}


def inputs_of_networks(job: Job) -> Entry:
    """What networks are given, beside the same on the CPU."""
    if device.interpreted():
        raise SkippedError("crops are 128 x 128, which takes minutes where kernels are interpreted; the tests compare them")
    from engine.geometry import INPUTS, keypoints, keypoints_to_map
    from engine.ops.tvl1 import cpu, tvl1
    from engine.recognition.flowmap import network_input, whole_map
    from engine.recognition.flowmap_gpu import from_arrays
    from engine.recognition.likeness import like
    from engine.recognition.residual import take_out_head

    (before, after), meshes = moved_pairs(MOMENTS, CROP_SIDE), scattered_meshes(MOMENTS)
    how = "cpu" if cpu.refusal() is None else "reference"
    apart = dict.fromkeys(INPUTS, 0.0)
    maps = [
        whole_map(take_out_head(tvl1(one, like(two, one), backend=how), mesh))  # type: ignore[arg-type]
        for one, two, mesh in zip(before, after, meshes, strict=True)
    ]
    for kind in INPUTS:
        found = from_arrays(kind, before, after, meshes).inputs
        wanted = [network_input(kind, m, keypoints_to_map(keypoints(mesh))) for m, mesh in zip(maps, meshes, strict=True)]
        apart[kind] = float(np.abs(found - np.stack(wanted)).max())
    return {"greatest": apart, "right": max(apart.values()) < INPUTS_APART}


CHECKS = {
    "correctness": (
        Check("flow of faces", flow_of_faces, 30),
        Check("batch sizes", batch_sizes, 20),
        Check("bad input", bad_input),
        Check("strain", strain_of_flows),
        Check("flow of other sizes", flow_of_sizes, 30),
        Check("network inputs", inputs_of_networks, 20),
    )
}
