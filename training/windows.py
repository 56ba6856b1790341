"""Windows for fitting the judge, drawn from tapes: draws for `training.judge.fit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.spotting.features import FLOW_WIDTH, REGIONS
from engine.spotting.judge import DELAY
from engine.types import F32
from training.judge import SCALE, WARM_UP, WINDOW, Known, Window, window
from training.synthetic_expressions import add_expressions, hold_expression
from training.tapes import Tape, rows_of

FREE_OF_EXPRESSIONS = ("speech", "quiet")
"""Kinds of tapes to which expressions are added."""

PACE = (0.8, 1.3)  # people speak and blink faster or slower
SHORT_SHARE = 0.2  # of the tapes to which expressions are added: drawn as short clips


class FlowWindows:
    """Draws windows of tapes whose expressions are known: 70 % from tapes with expressions, and 70 % of those next to one."""

    def __init__(self, tapes: Sequence[Tape]) -> None:
        self._tapes = [(tape, rows_of(tape.displacement, tape.mesh)) for tape in tapes]
        self._with = [k for k, tape in enumerate(tapes) if tape.known] or list(range(len(tapes)))

    def __call__(self, rng: np.random.Generator) -> Window:
        """One window."""
        k = self._with[rng.integers(len(self._with))] if rng.random() < 0.7 else int(rng.integers(len(self._tapes)))
        tape, rows = self._tapes[k]
        most = max(len(rows) - WINDOW, 0)
        at = int(rng.integers(0, most + 1))
        if tape.known and rng.random() < 0.7:
            onset = tape.known[rng.integers(len(tape.known))].onset
            at = int(np.clip(onset - rng.integers(20, WINDOW - 60), 0, most))
        part = rows[at : at + WINDOW].copy()
        part[:, : FLOW_WIDTH - len(REGIONS)] *= rng.uniform(*SCALE)
        return window(part, _within(tape.known, at, len(part)))


class LiveWindows:
    """Draws windows of tapes with mesh features, with expressions added to those of people who show none.

    Some windows lack the mesh features, so that the network does not depend on them. quiet is the weight of speech outside of
    expressions, see `training.judge.window`.
    """

    def __init__(self, tapes: Sequence[Tape], real: Sequence[F32], quiet: float = 1.0) -> None:
        self._tapes, self._real, self._quiet = list(tapes), list(real), quiet
        often = np.array([np.clip(len(tape.displacement) / 200, 1, 4) for tape in tapes])
        self._share = often / often.sum()

    def __call__(self, rng: np.random.Generator) -> Window:
        """One window."""
        tape = self._tapes[rng.choice(len(self._tapes), p=self._share)]
        free = tape.kind in FREE_OF_EXPRESSIONS
        if free:
            tape = _at_other_pace(tape, rng)
        at = int(rng.integers(0, max(len(tape.displacement) - WINDOW, 0) + 1))
        stop = at + WINDOW
        part = replace(
            tape,
            displacement=tape.displacement[at:stop],
            mesh=None if tape.mesh is None or rng.random() < 0.15 else tape.mesh[at:stop],
            known=_within(tape.known, at, min(stop, len(tape.displacement)) - at),
        )
        short = free and rng.random() < SHORT_SHARE
        if short:
            part = hold_expression(part, rng)
        elif free:
            part = add_expressions(part, rng.choice([0, 0.3, 0.8], p=[0.3, 0.3, 0.4]), rng, self._real)
        if free and rng.random() < 0.3:
            noise = rng.normal(0, rng.uniform(0, 0.08), part.displacement.shape)
            part = replace(part, displacement=part.displacement + noise.astype(np.float32))
        rows = rows_of(part.displacement * np.float32(rng.uniform(0.8, 1.25)), part.mesh)
        if short:
            rows = np.concatenate([rows, np.repeat(rows[-1:], DELAY, axis=0)])  # as live analysis ends
        return window(rows, part.known, quiet=self._quiet if tape.kind == "speech" else 1.0, warm_up=1.0 if short else WARM_UP)


class MixedWindows:
    """Draws from several draws, each with its share."""

    def __init__(self, parts: Sequence[tuple[FlowWindows | LiveWindows, float]]) -> None:
        self._parts = [part for part, _ in parts]
        shares = np.array([share for _, share in parts])
        self._shares = shares / shares.sum()

    def __call__(self, rng: np.random.Generator) -> Window:
        """One window."""
        return self._parts[rng.choice(len(self._parts), p=self._shares)](rng)


def _at_other_pace(tape: Tape, rng: np.random.Generator) -> Tape:
    """About a window of a tape without known expressions, at another pace."""
    pace = rng.uniform(*PACE)
    count = min(int(np.ceil((WINDOW + 1) * pace)), len(tape.displacement))
    first = int(rng.integers(0, len(tape.displacement) - count + 1))
    at = np.arange(0, count - 1 + 1e-9, pace)

    def paced(values: F32) -> F32:
        part = values[first : first + count]
        return np.stack([np.interp(at, np.arange(count), column) for column in part.T], 1).astype(np.float32)

    return replace(tape, displacement=paced(tape.displacement), mesh=None if tape.mesh is None else paced(tape.mesh))


def _within(known: Sequence[Known], at: int, count: int) -> tuple[Known, ...]:
    """Known expressions that reach into the count rows from row at on, in rows from there."""
    shifted = (replace(one, onset=one.onset - at, offset=one.offset - at) for one in known)
    return tuple(one for one in shifted if one.offset > 0 and one.onset < count)
