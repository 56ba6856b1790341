"""The network of the judge of expressions (`engine.spotting.judge`), and its fit to rows with known expressions.

Six causal dilated convolutions; answers about a moment come `engine.spotting.judge.DELAY` rows later, so the network looks
that far ahead. It is fitted to windows drawn by a `Draw`, with decoupled weight decay (AdamW), one cycle of the learning rate,
and an exponential mean of the last parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engine.spotting.features import FLOW_WIDTH, HZ, MESH_FEATURES, MIRRORED_REGIONS, REGIONS, WIDTH
from engine.spotting.judge import ANSWERS, DELAY, EARLY_DELAY, FOLD
from engine.types import F32, MICRO_LIMIT_S

CHANNELS = 40
DEPTH = 6
WINDOW = 384  # rows of a training window
WINDOWS = 16  # per step
RATE = 4e-3
DECAY = 0.02
DROPOUT = 0.15
POOL = 1 << 20  # random numbers that are reused, each time from another offset
POSITIVE = 2.0  # weight of rows within an expression
MICRO = 2.5  # weight of rows in and next to a micro-expression
WARM_UP = 0.2  # weight of a window's first second, in which the network has little context
AVERAGED = 0.4  # share of the steps whose parameters are averaged
MEAN_DECAY = 0.97  # of the exponential mean, per step
NOISE = 0.02
SCALE = (0.75, 1.3)  # range of the factor by which motions are scaled
EDGE = 1  # rows around an onset or offset that count as it


@dataclass(frozen=True)
class Known:
    """An expression in rows of thirty a second: first and last row, which may lie between rows, and whether it is micro."""

    onset: float
    offset: float
    micro: bool


@dataclass(frozen=True, eq=False)
class Window:
    """Rows [n, WIDTH], their target answers [n, 5] and weights [n]."""

    rows: F32
    answers: F32
    weights: F32


Draw = Callable[[np.random.Generator], Window]
"""Draws one window; ones shorter than WINDOW are padded."""


class _Dropout(nn.Module):
    """Dropout with masks cut out of one long mask: drawing each would take a fifth of a step on a CPU."""

    kept: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        scale = (torch.rand(POOL, generator=torch.Generator().manual_seed(0)) >= DROPOUT) / (1 - DROPOUT)
        self.register_buffer("kept", scale, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        at = int(torch.randint(POOL - x.numel(), (1,)))
        return x * self.kept[at : at + x.numel()].view_as(x)


class _Block(nn.Module):
    """A residual dilated convolution of three taps as one matrix product, which is faster on a CPU at this size."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self._dilation = dilation
        self.near = nn.Linear(3 * CHANNELS, CHANNELS)
        self.mix = nn.Linear(CHANNELS, CHANNELS)
        self.drop = _Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = x.shape[1]
        past = nn.functional.pad(x, (0, 0, 2 * self._dilation, 0))
        taps = torch.cat([past[:, :count], past[:, self._dilation : self._dilation + count], x], -1)
        out: torch.Tensor = x + self.mix(self.drop(nn.functional.gelu(self.near(taps))))
        return out


class JudgeNet(nn.Module):
    """Rows [B, n, WIDTH], n even -> logits [B, n, 5] by `engine.spotting.judge.ANSWERS`."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(FOLD * WIDTH, CHANNELS)
        self.blocks = nn.ModuleList(_Block(2**k) for k in range(DEPTH))
        self.leave = nn.Linear(CHANNELS, len(ANSWERS) * FOLD)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = self.enter(rows.reshape(rows.shape[0], -1, FOLD * WIDTH))
        for block in self.blocks:
            x = block(x)
        y: torch.Tensor = self.leave(nn.functional.gelu(x))
        return y.reshape(rows.shape[0], -1, len(ANSWERS))


def is_micro(onset_s: float, offset_s: float) -> bool:
    """Whether an expression from onset to offset is a micro-expression."""
    return offset_s - onset_s <= MICRO_LIMIT_S + 1e-6


def window(rows: F32, known: Sequence[Known], *, quiet: float = 1.0, warm_up: float = WARM_UP) -> Window:
    """A window over rows with known expressions; quiet is the weight of rows without an expression, warm_up that of the first
    second."""
    count = len(rows)
    answers = np.zeros((count + DELAY, len(ANSWERS)), np.float32)
    weights = np.ones(count + DELAY, np.float32)
    for one in known:
        first, last = round(one.onset), round(one.offset)
        _set(answers, first + DELAY, last + DELAY, 0)
        _set(answers, first + DELAY - EDGE, first + DELAY + EDGE, 1)
        _set(answers, last + DELAY - EDGE, last + DELAY + EDGE, 2)
        _set(answers, first + EARLY_DELAY, last + EARLY_DELAY, 4)
        if one.micro:
            _set(answers, first + DELAY, last + DELAY, 3)
            weights[max(first - 5 + DELAY, 0) : max(last + 6 + DELAY, 0)] = MICRO
    weights[answers[:, 0] == 0] *= quiet
    weights[: round(HZ)] *= warm_up
    return Window(rows, answers[:count], weights[:count])


def _set(answers: F32, first: int, last: int, answer: int) -> None:
    answers[max(first, 0) : max(last + 1, 0), answer] = 1


def _mirror() -> tuple[NDArray[np.intp], F32]:
    """Which column [WIDTH] each of a mirrored row comes from, and its sign [WIDTH]."""
    count, order, columns = len(REGIONS), list(MIRRORED_REGIONS), np.arange(WIDTH, dtype=np.intp)
    columns[: 8 * count] = columns[: 8 * count].reshape(4, count, 2)[:, order].ravel()
    columns[8 * count : FLOW_WIDTH] = columns[8 * count : FLOW_WIDTH][order]
    sign = np.ones(WIDTH, np.float32)
    sign[: 8 * count : 2] = -1
    for name in ("yaw", "look_aside"):
        at = FLOW_WIDTH + MESH_FEATURES.index(name)
        sign[[at, at + len(MESH_FEATURES)]] = -1
    return columns, sign


MIRROR_FROM, MIRROR_SIGN = _mirror()


def mirrored(rows: F32) -> F32:
    """Rows [n, WIDTH] of the mirrored face."""
    return rows[:, MIRROR_FROM] * MIRROR_SIGN


def fit(
    draw: Draw,
    steps: int,
    seed: int,
    net: JudgeNet | None = None,
    rate: float = RATE,
    *,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> JudgeNet:
    """A network fitted for so many steps to windows drawn with seed, from a copy of net where one is given.

    progress is called with the step done and its loss.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    fitted = JudgeNet()
    if net is not None:
        fitted.load_state_dict(net.state_dict())
    fitted.train()
    optimizer = torch.optim.AdamW(fitted.parameters(), rate, weight_decay=DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    positive = torch.tensor(POSITIVE)
    noise = np.float32(NOISE) * rng.standard_normal(POOL, np.float32)
    mean: list[torch.Tensor] = []
    for step in range(steps):
        rows, answers, weights = _batch(draw, rng, noise)
        losses = nn.functional.binary_cross_entropy_with_logits(fitted(rows), answers, pos_weight=positive, reduction="none")
        loss = (losses * weights[..., None]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(fitted.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step >= (1 - AVERAGED) * steps:
            mean = mean or [p.detach().clone() for p in fitted.parameters()]
            for m, p in zip(mean, fitted.parameters(), strict=True):
                m.lerp_(p.detach(), 1 - MEAN_DECAY)
        progress(step + 1, float(loss.detach()))
    with torch.no_grad():
        for p, m in zip(fitted.parameters(), mean, strict=bool(mean)):
            p.copy_(m)
    return fitted.eval()


def _batch(draw: Draw, rng: np.random.Generator, noise: F32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows [WINDOWS, WINDOW, WIDTH], answers [.., 5] and weights [..]: half of the windows mirrored, each with a part of
    noise [POOL], shorter ones padded with zeros of weight 0."""
    rows = np.zeros((WINDOWS, WINDOW, WIDTH), np.float32)
    answers = np.zeros((WINDOWS, WINDOW, len(ANSWERS)), np.float32)
    weights = np.zeros((WINDOWS, WINDOW), np.float32)
    for k in range(WINDOWS):
        one = draw(rng)
        count = len(one.rows)
        seen = mirrored(one.rows) if rng.random() < 0.5 else one.rows
        at = int(rng.integers(POOL - one.rows.size))
        np.add(seen, noise[at : at + one.rows.size].reshape(seen.shape), out=rows[k, :count])
        answers[k, :count], weights[k, :count] = one.answers, one.weights
    return torch.from_numpy(rows), torch.from_numpy(answers), torch.from_numpy(weights)


def answers_to(net: JudgeNet | Sequence[JudgeNet], rows: F32) -> F32:
    """Answers [n, 5] of a network, or the mean of several, about each of rows [n, WIDTH], without the delay."""
    count = len(rows)
    more = DELAY + (count + DELAY) % FOLD
    with torch.no_grad():
        padded = torch.from_numpy(np.pad(rows, ((0, more), (0, 0)), mode="edge"))[None]
        out = np.mean([torch.sigmoid(one(padded))[0].numpy() for one in _several(net)], axis=0)
    shifted = out[DELAY : DELAY + count].copy()
    shifted[:, 4] = out[EARLY_DELAY : EARLY_DELAY + count, 4]
    return np.asarray(shifted, np.float32)


class _Answering(nn.Module):
    def __init__(self, nets: Sequence[JudgeNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.sigmoid(net(rows)) for net in self.nets]).mean(0)


def _several(net: JudgeNet | Sequence[JudgeNet]) -> list[JudgeNet]:
    return [net] if isinstance(net, JudgeNet) else list(net)


def write_onnx(net: JudgeNet | Sequence[JudgeNet], path: Path) -> None:
    """A network, or the mean of several, as ONNX: rows [1, n, WIDTH] float32 -> answers [1, n, 5], any even n."""
    example = torch.zeros(1, 2 * FOLD * DELAY, WIDTH)
    length = torch.export.Dim("half", min=2)
    program = torch.onnx.export(
        _Answering(_several(net)).eval(),
        (example,),
        input_names=["rows"],
        output_names=["answers"],
        dynamic_shapes=({1: 2 * length},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(path))
