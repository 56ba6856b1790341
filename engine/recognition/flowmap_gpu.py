"""From crops to a network's input, many moments of many streams at once on the GPU.

CPU equivalent: `engine.recognition.flowmap`.

    crops, meshes -> brightness matched -> flow -> how well it explains the change
                  -> the head's motion taken out -> strain -> cells -> scaled and read as the network takes them

What goes to the device are the crops and the mesh's points, in one copy; all tables are there already. The steps of a batch of
one size are one CUDA graph (`engine.ops.graphs`), nothing comes back in between, and the results stay on the device, where a
network may take them. Triton's interpreter runs the same kernels on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.errors import ArrayError
from engine.geometry import (
    CROP_SIDE,
    EYE_CORNERS,
    INPUTS,
    LIP_CORNERS,
    MAP_SIDE,
    NOSE_TIP,
    keypoints_to_map,
    linear_grid,
)
from engine.mesh import MESH_POINTS
from engine.ops import device
from engine.ops.backend import choose
from engine.ops.graphs import Buffers, Recorded, Store, room_for
from engine.ops.strain import gpu as strain
from engine.ops.tvl1 import gpu
from engine.ops.tvl1.checks import check_pair
from engine.ops.tvl1.method import METHOD
from engine.recognition import tables
from engine.registration.head import CANVAS, MARGIN, RIDGE, ROUNDS
from engine.registration.regions import HEAD_POINTS, TRACKED, VOTES
from engine.types import F32

AT_ONCE = 64
"""Moments that are computed together; more are taken in turns."""
KEPT = 8
"""Batches whose buffers are kept."""
MIDDLE = (CANVAS - 1) / 2 - MARGIN
"""Where the model of the head's motion has its origin, in crop pixels, x and y."""
PIXELS = CROP_SIDE * CROP_SIDE
ACROSS = (CROP_SIDE - tables.PATCH_STEP // 2 - 1 - tables.PATCH_SIDE) // tables.PATCH_STEP + 1
"""Patches that are compared, in a row."""
BLOCK = 1024
"""Pixels of one program."""

Network = Callable[[Tensor], Tensor]
"""A network that takes inputs [N, 3, H, W] on the device to probabilities [N, K] there."""


class FlowMaps(NamedTuple):
    """Of N moments: the network's inputs [N, 3, H, W], the face's own flows [N, 2, 128, 128] in pixels, how well each flow
    explains the change [N] (`likeness.explained`; not a number for crops that hold such), and the network's answers [N, K],
    None without a network."""

    inputs: Any
    flow: Any
    alike: Any
    probabilities: Any = None


def network_inputs(kind: str, before: Tensor, after: Tensor, landmarks: F32 | Tensor) -> FlowMaps:
    """Crops before and after [N, 128, 128], grey 0..255, uint8 or float32, and the mesh at the second [N, 478, 3] in crop
    pixels -> what a network is given that takes a kind of `geometry.INPUTS`, as tensors on the GPU.

    Crops and meshes lie on the GPU or in host memory, from where they are copied. Values that lie on the GPU are not read back
    to be checked. Raises ArrayError for what does not fit, ConfigError for another kind, BackendError without a GPU and for one
    that fails on the way.
    """
    choose("gpu", gpu.refusal())
    mesh = torch.as_tensor(landmarks)
    if mesh.shape != (len(before), MESH_POINTS, 3) or not (mesh.is_cuda or bool(mesh.isfinite().all())):
        wanted = f"a mesh of {MESH_POINTS} finite points for each of {len(before)} crops is expected"
        raise ArrayError(f"{wanted}, not {tuple(mesh.shape)}")
    if tuple(before.shape[1:]) != (CROP_SIDE, CROP_SIDE):
        raise ArrayError(f"crops are [N, {CROP_SIDE}, {CROP_SIDE}]; an array of shape {tuple(before.shape)} came")
    check_pair(before, after, many=True, values=not (before.is_cuda or after.is_cuda))
    return _computed(kind, before, after, mesh)


def from_arrays(kind: str, before: F32, after: F32, landmarks: F32, network: Network | None = None) -> FlowMaps:
    """`network_inputs` for arrays in host memory whose values are known to fit, the network's answers to them, and all of it
    brought back. Raises BackendError for a GPU that fails, or a network."""
    found = _computed(kind, *map(torch.from_numpy, (before, after, landmarks)))
    if network is not None:
        found = found._replace(probabilities=network(found.inputs))
    with device.translated(f"Bringing {len(before)} maps from the GPU"):
        return FlowMaps(*(None if part is None else part.cpu().numpy() for part in found))


def _computed(kind: str, before: Tensor, after: Tensor, mesh: Tensor) -> FlowMaps:
    with device.translated(f"Preparing {len(before)} maps"):
        where = before.device if before.is_cuda else device.current_device()
        found = [
            _run(kind, where, part) for part in zip(*(torch.split(one, AT_ONCE) for one in (before, after, mesh)), strict=True)
        ]
        return found[0] if len(found) == 1 else FlowMaps(*map(torch.cat, list(zip(*found, strict=True))[:3]))


def _run(kind: str, where: torch.device, given: tuple[Tensor, ...]) -> FlowMaps:
    room = room_for(len(given[0]))
    return _idle.run((kind, room, where), where, lambda: Moments(kind, room, where), lambda moments: moments(given))


class Moments:
    """Buffers for up to `room` moments on one device, and the work on them as one graph."""

    def __init__(self, kind: str, room: int, where: torch.device, table: Tables | None = None) -> None:
        self.kind, self.room = kind, room
        self.tables = table or tables_on(kind, where)
        self.given = Buffers([(room, CROP_SIDE, CROP_SIDE)] * 2 + [(room, MESH_POINTS, 3)], where)
        self.flows = gpu.Batch((room, CROP_SIDE, CROP_SIDE), METHOD, where)
        self.recorded: Recorded[FlowMaps] = Recorded(where)

    def __call__(self, given: tuple[Tensor, ...]) -> FlowMaps:
        """Crops before and after [n, 128, 128] and meshes [n, 478, 3], n up to `room`."""
        self.given.fill(given)
        inputs, flow, alike, _ = self.recorded(self.work)
        number = len(given[0])
        return FlowMaps(inputs[:number].clone(), flow[:number].clone(), alike[:number].clone())

    def work(self) -> FlowMaps:
        """All steps, on what the buffers hold."""
        before, after, mesh = self.given.parts
        after = matched(before, after, self.tables)
        flow = self.flows.launch(before, after)
        alike = explained(before, after, flow)
        flow = take_out_head(flow, mesh, self.tables)
        return FlowMaps(read_out(self.kind, cells(flow, self.tables), mesh, self.tables), flow, alike)


_idle: Store[Moments] = Store(KEPT)


class Tables(NamedTuple):
    """What never changes, on one device."""

    limits: tuple[float, float]
    """The range that keypoints are moved into before an input is read (`geometry.linear_grid`)."""
    window: Tensor
    """[128 * 128]: how much each pixel counts where brightness is compared; the sum is 1."""
    tracked: Tensor
    votes: Tensor
    rows: Tensor
    """[128, 256]: the blurs of a column of mesh points, near and far, side by side."""
    columns: Tensor
    """[128, 256]: those of a row; its far ones with the share that they count."""
    means: Tensor
    """[28, 128]: `tables.averaging`."""
    keypoints: Tensor
    """[478 * 3, 10]: keypoints in cells as sums over the mesh's coordinates, to which `keypoints_at` [10] is added."""
    keypoints_at: Tensor
    slopes: Tensor
    """[10, H * W * 2]: the places where an input is read as sums over the keypoints' coordinates, to which `rest` is added."""
    rest: Tensor

    @classmethod
    def made(cls, kind: str, where: torch.device) -> Tables:
        """Those for a kind of `geometry.INPUTS`. Raises ConfigError for another."""
        middle, slopes, limits = linear_grid(kind)
        near, far = tables.blurring(tables.NEAR), tables.blurring(tables.FAR)
        window = tables.face_window(CROP_SIDE, CROP_SIDE).ravel()

        def there(values: Any, kind: Any = np.float32) -> Tensor:
            return torch.tensor(np.asarray(values, kind), device=where)

        weights, shift = _keypoints()
        return cls(
            limits=limits,
            window=there(window / window.sum()),
            tracked=there(TRACKED, np.int32),
            votes=there(VOTES, np.float64),
            rows=there(np.hstack((near, far))),
            columns=there(np.hstack((near.T, tables.FAR_SHARE * far.T))),
            means=there(tables.averaging(CROP_SIDE)),
            keypoints=there(weights),
            keypoints_at=there(shift),
            slopes=there(slopes),
            rest=there(middle - slopes.sum(0) * ((MAP_SIDE - 1) / 2)),
        )


@lru_cache(maxsize=8)
def tables_on(kind: str, where: torch.device) -> Tables:
    """`Tables.made`, once for each device."""
    return Tables.made(kind, where)


def _keypoints() -> tuple[F32, F32]:
    """Keypoints [10], in cells, as a linear function of a mesh [478 * 3]: the matrix [478 * 3, 10], and what is added."""
    shift = keypoints_to_map(np.zeros(1, np.float32))
    cells_per_pixel = keypoints_to_map(np.ones(1, np.float32)) - shift
    weights = np.zeros((MESH_POINTS, 3, 5, 2), np.float32)
    for number, points in enumerate((*EYE_CORNERS, (NOSE_TIP,), *((point,) for point in LIP_CORNERS))):
        for axis in (0, 1):
            weights[list(points), axis, number, axis] = cells_per_pixel / len(points)
    return weights.reshape(-1, 10), np.repeat(shift, 10)


def matched(before: Tensor, after: Tensor, table: Tables) -> Tensor:
    """`after` [N, 128, 128] with the brightness and contrast of `before`; CPU equivalent: likeness.like."""
    from engine.recognition import triton_kernels as kernels

    out = torch.empty_like(after)
    kernels.match[(len(after),)](
        before, after, table.window, out, PIXELS, tables.LEAST_GAIN, tables.MOST_GAIN, BLOCK, enable_fp_fusion=True
    )
    return out


def explained(before: Tensor, after: Tensor, flow: Tensor) -> Tensor:
    """How well flows [N, 2, 128, 128] explain the change between crops [N, 128, 128]: [N]; CPU equivalent:
    likeness.explained."""
    from engine.recognition import triton_kernels as kernels

    patches = ACROSS * ACROSS
    found = torch.empty((len(flow), patches), device=flow.device)
    kernels.compare[(len(flow) * patches,)](
        before, after, flow, found,
        CROP_SIDE, ACROSS, tables.PATCH_SIDE, tables.PATCH_STEP, tables.SMOOTH_PATCH, room_for(tables.PATCH_SIDE),
        enable_fp_fusion=True,
    )  # fmt: skip
    ordered = found.sort(dim=1).values
    rank = 0.1 * (patches - 1)
    low, high = ordered[:, int(rank)], ordered[:, int(rank) + 1]
    return torch.add(low, high - low, alpha=rank - int(rank))


def take_out_head(flow: Tensor, mesh: Tensor, table: Tables) -> Tensor:
    """Flows [N, 2, 128, 128] less the head's motion, meshes [N, 478, 3]; CPU equivalent: residual.take_out_head."""
    from engine.recognition import triton_kernels as kernels

    number = len(flow)
    terms = torch.empty((number, 7), dtype=torch.float64, device=flow.device)
    linear, _, shift, _, turn, _ = np.diag(RIDGE).tolist()
    kernels.fit[(number,)](
        flow, mesh, table.tracked, table.votes, terms,
        MESH_POINTS, len(TRACKED), len(HEAD_POINTS), CROP_SIDE, tables.READ_AROUND, MIDDLE,
        ROUNDS, linear, shift, turn, 0.1, room_for(len(TRACKED)), enable_fp_fusion=True,
    )  # fmt: skip
    own = torch.empty_like(flow)
    sums = relief(mesh, table)
    kernels.subtract[(number, PIXELS // BLOCK)](flow, terms, sums, own, CROP_SIDE, MIDDLE, BLOCK, enable_fp_fusion=True)
    return own


def relief(mesh: Tensor, table: Tables) -> Tensor:
    """From meshes [N, 478, 3] two fields [N, 2, 128, 128], the second over the first the depth at every crop pixel.

    CPU equivalent: residual.relief.
    """
    from engine.recognition import triton_kernels as kernels

    fields = 2 * len(mesh)
    sums = torch.zeros((fields, CROP_SIDE, CROP_SIDE), device=mesh.device)
    kernels.place[(len(mesh),)](mesh, sums, MESH_POINTS, CROP_SIDE, room_for(MESH_POINTS), enable_fp_fusion=True)
    along = (sums.view(-1, CROP_SIDE) @ table.columns).view(fields, CROP_SIDE, 2, CROP_SIDE)
    stacked = along.transpose(1, 2).reshape(fields, 2 * CROP_SIDE, CROP_SIDE)
    return torch.bmm(table.rows.expand(fields, -1, -1), stacked).view(-1, 2, CROP_SIDE, CROP_SIDE)


def cells(flow: Tensor, table: Tables) -> Tensor:
    """Flows [N, 2, 128, 128] -> (u, v, strain) averaged over cells [N, 3, 28, 28]; CPU equivalent: flowmap.whole_map, before
    its scaling."""
    channels = torch.cat((flow, strain.magnitude_batch(flow)[:, None]), 1)
    along = (channels.view(-1, CROP_SIDE) @ table.means.T).view(-1, CROP_SIDE, MAP_SIDE)
    return torch.bmm(table.means.expand(len(along), -1, -1), along).view(-1, 3, MAP_SIDE, MAP_SIDE)


def read_out(kind: str, averaged: Tensor, mesh: Tensor, table: Tables) -> Tensor:
    """Cells [N, 3, 28, 28] scaled to 0..1 and read as a kind of input asks, by meshes [N, 478, 3]: [N, 3, H, W].

    CPU equivalents: the end of flowmap.whole_map, geometry.input_grid, flowmap.sample.
    """
    from engine.recognition import triton_kernels as kernels

    inputs = torch.empty((len(mesh), *INPUTS[kind]), device=mesh.device)
    count = INPUTS[kind][1] * INPUTS[kind][2]
    keypoints = torch.addmm(table.keypoints_at, mesh.flatten(1), table.keypoints).clamp(*table.limits)
    places = torch.addmm(table.rest, keypoints, table.slopes)
    kernels.read[(3 * len(mesh), -(-count // BLOCK))](
        averaged, places, inputs, count, MAP_SIDE, BLOCK, room_for(MAP_SIDE * MAP_SIDE), enable_fp_fusion=True
    )
    return inputs
