"""From crops to a network's input, many moments of many streams at once on the GPU.

CPU equivalent: `engine.recognition.flowmap`.

The same steps, each named as its CPU equivalent: brightness matched, flow, the head's motion taken out, strain, the map of
28 x 28 cells, the cells that the network takes. What goes to the device are the crops and the mesh's points; the rest is
arithmetic on tensors there, in float64 where the fit needs it, and nothing comes back in between.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from engine.errors import ArrayError
from engine.geometry import CROP_SIDE, MAP_SIDE, input_grid, keypoints, keypoints_to_map
from engine.mesh import MESH_POINTS
from engine.ops import device
from engine.ops.backend import Backend, choose
from engine.ops.strain import strain_batch
from engine.ops.tvl1 import gpu, tvl1_batch
from engine.ops.tvl1.checks import check_pair
from engine.recognition.likeness import PATCH_SIDE, PATCH_STEP, SMOOTH_PATCH, face_window
from engine.recognition.residual import FAR, FAR_SHARE, NEAR, blurring
from engine.registration.align import HEAD, TRACKED, VOTES
from engine.registration.head import CANVAS, MARGIN, RIDGE, ROUNDS
from engine.types import F32


class FlowMaps(NamedTuple):
    """Of N moments: the network's inputs [N, 3, H, W], the face's own flows [N, 2, 128, 128] in pixels, and how well each flow
    explains the change [N] (`likeness.explained`)."""

    inputs: Any
    flow: Any
    alike: Any


def network_inputs(kind: str, before: Tensor, after: Tensor, landmarks: F32, *, backend: Backend = "auto") -> FlowMaps:
    """Crops before and after [N, 128, 128], grey 0..255, and the mesh at the second [N, 478, 3] in crop pixels -> what a
    network is given that takes a kind of `geometry.INPUTS`, as tensors on one device.

    The device is the GPU where the GPU computes, else that of `before`. Raises ArrayError for what does not fit, ConfigError
    for another kind, BackendError for a backend that cannot run and for a GPU that fails on the way.
    """
    if landmarks.shape != (len(before), MESH_POINTS, 3) or not np.isfinite(landmarks).all():
        wanted = f"a mesh of {MESH_POINTS} finite points for each of {len(before)} crops is expected"
        raise ArrayError(f"{wanted}, not {landmarks.shape}")
    if tuple(before.shape[1:]) != (CROP_SIDE, CROP_SIDE):
        raise ArrayError(f"crops are [N, {CROP_SIDE}, {CROP_SIDE}]; an array of shape {tuple(before.shape)} came")
    check_pair(before, after, many=True)
    grid = input_grid(kind, np.stack([keypoints_to_map(keypoints(mesh)) for mesh in landmarks]))
    if choose(backend, gpu.refusal()) != "gpu":
        return _maps_of(before, after, landmarks, grid, partial(tvl1_batch, backend=backend))
    with device.translated(f"Preparing {len(before)} maps"):
        return _maps_of(before.to(device.current_device()), after.to(device.current_device()), landmarks, grid, gpu.solve_batch)


def from_arrays(kind: str, before: F32, after: F32, landmarks: F32) -> FlowMaps:
    """`network_inputs` by the GPU for arrays in host memory, and brought back there. Raises as that does."""
    found = network_inputs(kind, torch.from_numpy(before), torch.from_numpy(after), landmarks, backend="gpu")
    with device.translated(f"Bringing {len(before)} maps from the GPU"):
        return FlowMaps(*(part.cpu().numpy() for part in found))


def _maps_of(before: Tensor, after: Tensor, landmarks: F32, grid: F32, solve: Callable[[Tensor, Tensor], Tensor]) -> FlowMaps:
    before, after = before.to(torch.float32), after.to(before.device, torch.float32)
    after = like(after, before)
    flow = solve(before, after)
    alike = explained(before.to(flow.device), after.to(flow.device), flow)
    flow = take_out_head(flow, torch.from_numpy(landmarks).to(flow.device))
    return FlowMaps(sample(whole_maps(flow), torch.tensor(grid, device=flow.device)), flow, alike)


def explained(before: Tensor, after: Tensor, flow: Tensor) -> Tensor:
    """How well flows [N, 2, H, W] explain the change between pictures [N, H, W]: [N]; CPU equivalent: likeness.explained."""
    height, width = flow.shape[2:]
    rows, columns = (torch.arange(length, device=flow.device, dtype=torch.float32) for length in (height, width))
    x, y = (columns + flow[:, 0]) * (2 / (width - 1)) - 1, (rows[:, None] + flow[:, 1]) * (2 / (height - 1)) - 1
    undone = torch.nn.functional.grid_sample(after[:, None], torch.stack([x, y], -1), align_corners=True)[:, 0]
    before, undone = before.double(), undone.double()
    mean_b, mean_u, square_b, square_u, product = map(_patches, (before, undone, before**2, undone**2, before * undone))
    spread = ((square_b - mean_b**2).clamp_min(0) * (square_u - mean_u**2).clamp_min(0)).sqrt()
    found = torch.where(spread > SMOOTH_PATCH, (product - mean_b * mean_u) / spread.clamp_min(SMOOTH_PATCH), 1.0)
    return found.quantile(0.1, dim=1)


def _patches(pictures: Tensor) -> Tensor:
    """Means [N, P] of the patches of pictures [N, H, W]; CPU equivalent: likeness._patches."""
    clear = pictures[:, None, PATCH_STEP // 2 : -1, PATCH_STEP // 2 : -1]
    return torch.nn.functional.avg_pool2d(clear, PATCH_SIDE, stride=PATCH_STEP).flatten(1)


def like(pictures: Tensor, models: Tensor) -> Tensor:
    """Pictures [N, H, W] with the brightness and contrast of the models; CPU equivalent: likeness.like."""
    window = _on(pictures, face_window(pictures.shape[1], pictures.shape[2]))
    window = window / window.sum()
    mean_p, mean_m = (_over(p * window) for p in (pictures, models))
    spread_p, spread_m = (_over(window * (p - mean) ** 2) for p, mean in ((pictures, mean_p), (models, mean_m)))
    gain = (spread_m / spread_p.clamp_min(1e-6)).sqrt().clamp(0.5, 2.0)
    return ((pictures - mean_p) * gain + mean_m).clamp(0, 255)


def take_out_head(flow: Tensor, landmarks: Tensor) -> Tensor:
    """Flows [N, 2, 128, 128] less the head's motion, meshes [N, 478, 3]; CPU equivalent: residual.take_out_head."""
    points = landmarks[:, TRACKED].double()
    level = points[:, HEAD, 2].mean(1, keepdim=True)
    smooth = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(flow, (4, 4, 4, 4), mode="reflect"), 9, stride=1)
    moved = sample(smooth, points[:, None, :, :2].float())[:, :, 0].transpose(1, 2).double()
    inside = ((points[..., :2] >= 0) & (points[..., :2] <= CROP_SIDE - 1)).all(-1)
    trust = torch.as_tensor(VOTES, device=flow.device) * inside
    terms = _fitted(_design(points[..., :2], points[..., 2] - level), moved, trust)
    along = torch.arange(CROP_SIDE, device=flow.device, dtype=torch.float64)
    places = torch.stack(torch.meshgrid(along, along, indexing="xy"), -1).reshape(1, -1, 2)
    depth = relief(landmarks).flatten(1).double() - level
    rest = _design(places.expand(len(flow), -1, -1), depth) @ terms[:, None, :, None]
    return (flow - rest[..., 0].transpose(1, 2).reshape(flow.shape)).float()


def _design(points: Tensor, depth: Tensor) -> Tensor:
    """[N, P, 2, 6] at crop points [N, P, 2] of depth [N, P]; CPU equivalent: head.head_design."""
    x, y = (points + (MARGIN - (CANVAS - 1) / 2)).unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    across = torch.stack([x, -y, one, zero, depth, zero], -1)
    return torch.stack([across, torch.stack([y, x, zero, one, zero, depth], -1)], -2)


def _fitted(design: Tensor, moved: Tensor, trust: Tensor, finest: float = 0.1) -> Tensor:
    """The terms [N, 6] of the robust fit of moved [N, P, 2]; CPU equivalent: head.fit_head."""
    flat, target, weight = design.flatten(1, 2), moved.flatten(1), trust
    ridge, silent = torch.as_tensor(RIDGE, device=design.device), trust[:, HEAD] <= 0
    terms = torch.zeros((len(design), 6, 1), dtype=design.dtype, device=design.device)
    for k in range(ROUNDS):
        weighted = (flat * weight.repeat_interleave(2, 1)[..., None]).transpose(1, 2)
        terms = torch.linalg.solve_ex(weighted @ flat + ridge, weighted @ target[..., None]).result  # never singular: no check
        residual = (target - (flat @ terms)[..., 0]).reshape(moved.shape).norm(dim=-1)
        own = residual[:, HEAD].masked_fill(silent, torch.nan).nanquantile(0.5, dim=1)
        scale = torch.where(own.isnan(), 1.0, 1.5 * own).clamp_min(max(finest, 0.5**k))
        weight = trust / (1 + (residual / (2 * scale[:, None])) ** 2) ** 2
    return terms[..., 0]


def relief(landmarks: Tensor) -> Tensor:
    """Depth at every crop pixel [N, 128, 128] from meshes [N, 478, 3]; CPU equivalent: residual.relief."""
    column, row = landmarks[..., :2].round().long().clamp(0, CROP_SIDE - 1).unbind(-1)
    number = torch.arange(len(landmarks), device=landmarks.device)[:, None].expand_as(row)
    sums = torch.zeros((2, len(landmarks), CROP_SIDE, CROP_SIDE), device=landmarks.device)  # of weights, of depths
    sums[0].index_put_((number, row, column), torch.ones_like(landmarks[..., 2]), accumulate=True)
    sums[1].index_put_((number, row, column), landmarks[..., 2].contiguous(), accumulate=True)
    near, far = (_on(landmarks, blurring(sigma)) for sigma in (NEAR, FAR))
    both = near @ sums @ near.T + FAR_SHARE * (far @ sums @ far.T)
    return both[1] / both[0].clamp_min(1e-12)


def whole_maps(flow: Tensor) -> Tensor:
    """Flows [N, 2, H, W] -> maps [N, 3, 28, 28]; CPU equivalent: flowmap.whole_map."""
    rows, columns = (_on(flow, _averaging(length)) for length in flow.shape[2:])
    cells = rows @ torch.cat([flow, strain_batch(flow)[:, None]], 1) @ columns.T
    low, high = cells.amin((2, 3), keepdim=True), cells.amax((2, 3), keepdim=True)
    flat = high - low <= 1e-6 * torch.maximum(low.abs(), high.abs()).clamp_min(1.0)
    return torch.where(flat, 0.0, (cells - low) / (high - low).clamp_min(1e-30))


def sample(maps: Tensor, grid: Tensor) -> Tensor:
    """Maps [N, C, H, W] read bilinearly at positions [N, h, w, 2] of (x, y) in cells -> [N, C, h, w].

    CPU equivalent: flowmap.sample.
    """
    height, width = maps.shape[2:]
    last = torch.tensor([width - 1, height - 1], device=maps.device, dtype=grid.dtype)
    scaled = torch.minimum(grid.clamp_min(0), last) * (2 / last) - 1
    return torch.nn.functional.grid_sample(maps, scaled, mode="bilinear", padding_mode="border", align_corners=True)


def _over(weighted: Tensor) -> Tensor:
    return weighted.sum((1, 2), keepdim=True)


def _on(tensor: Tensor, values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=tensor.device)


@lru_cache(maxsize=4)
def _averaging(length: int) -> F32:
    """[28, length]: the means over the cells of a line of pixels."""
    means = cv2.resize(np.eye(length, dtype=np.float32), (length, MAP_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.float32)
