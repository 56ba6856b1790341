from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.spotting.features import HZ, MESH_FEATURES, MIRRORED_REGIONS, REGIONS, WIDTH
from engine.spotting.judge import ANSWERS, DELAY, EARLY_DELAY
from training.judge import (
    MICRO,
    WARM_UP,
    WINDOW,
    JudgeNet,
    Known,
    Window,
    answers_to,
    fit,
    is_micro,
    mirrored,
    window,
    write_onnx,
)
from training.tapes import rows_of

WARM = round(HZ)


def test_the_targets_of_a_window() -> None:
    made = window(np.zeros((100, WIDTH), np.float32), [Known(40.0, 60.2, micro=False)])
    marked = {name: np.flatnonzero(made.answers[:, k]).tolist() for k, name in enumerate(ANSWERS)}
    assert marked["expression"] == list(range(40 + DELAY, 61 + DELAY))
    assert marked["onset"] == [39 + DELAY, 40 + DELAY, 41 + DELAY] and marked["offset"] == [
        59 + DELAY,
        60 + DELAY,
        61 + DELAY,
    ]
    assert marked["early"] == list(range(40 + EARLY_DELAY, 61 + EARLY_DELAY)) and marked["micro"] == []
    assert np.allclose(made.weights[:WARM], WARM_UP) and (made.weights[WARM:] == 1).all()


def test_rows_in_and_next_to_a_micro_expression_weigh_more() -> None:
    made = window(np.zeros((100, WIDTH), np.float32), [Known(40, 50, micro=True)], quiet=0.5)
    assert np.flatnonzero(made.answers[:, 3]).tolist() == list(range(40 + DELAY, 51 + DELAY))
    assert made.weights[40 + DELAY] == MICRO and made.weights[40 + DELAY - 5] == pytest.approx(0.5 * MICRO)
    assert made.weights[99] == 0.5


def test_an_expression_that_reaches_into_the_window_is_marked_there() -> None:
    made = window(np.zeros((60, WIDTH), np.float32), [Known(-30, 5, micro=False), Known(50, 90, micro=False)])
    assert np.flatnonzero(made.answers[:, 0]).tolist() == list(range(6 + DELAY))
    assert not made.answers[:, 1][: DELAY + 10].any()


@pytest.mark.parametrize(("length", "micro"), [(0.5, True), (0.5 + 1 / 30, False), (0.2, True)])
def test_half_a_second_divides_the_kinds(length: float, micro: bool) -> None:
    assert is_micro(2.0, 2.0 + length) is micro


def test_the_mirror_swaps_sides_and_turns_u_yaw_and_gaze() -> None:
    rng = np.random.default_rng(0)
    displacement = rng.normal(0, 0.5, (60, 2 * len(REGIONS))).astype(np.float32)
    mesh = rng.normal(0, 0.3, (60, len(MESH_FEATURES))).astype(np.float32)
    turned = displacement.reshape(60, -1, 2)[:, list(MIRRORED_REGIONS)] * np.array([-1, 1], np.float32)
    turned_mesh = mesh.copy()
    turned_mesh[:, [MESH_FEATURES.index("yaw"), MESH_FEATURES.index("look_aside")]] *= -1
    rows = rows_of(displacement, mesh)
    assert np.abs(mirrored(rows) - rows_of(turned.reshape(60, -1), turned_mesh)).max() < 1e-4
    assert np.array_equal(mirrored(mirrored(rows)), rows)


def pulses(rng: np.random.Generator) -> Window:
    """Rows whose first ten numbers rise in an expression."""
    rows = rng.normal(0, 0.1, (WINDOW - 20, WIDTH)).astype(np.float32)
    known = []
    for at in range(40, WINDOW - 80, 90):
        first = at + int(rng.integers(0, 20))
        known.append(Known(first, first + 20, micro=False))
        rows[first : first + 21, :10] += 1.5
    return window(rows, known)


def test_fitting_learns_a_simple_pattern_and_does_not_change_its_start() -> None:
    losses: list[float] = []
    first = fit(pulses, 12, seed=1)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    net = fit(pulses, 30, seed=2, net=first, progress=lambda step, loss: losses.append(loss))
    assert len(losses) == 30 and np.mean(losses[-5:]) < 0.5 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    drawn = pulses(np.random.default_rng(9))
    found = answers_to(net, drawn.rows)[:, 0]
    truth = drawn.answers[DELAY:, 0] > 0
    assert found[: len(truth)][truth].mean() > 0.6 and found[: len(truth)][~truth].mean() < 0.3


def test_the_seed_decides_a_fit() -> None:
    one, other, third = (fit(pulses, 2, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_answers_are_shifted_to_their_moment() -> None:
    """With a network that copies its rows, the answers come from DELAY rows later."""

    class Copies(JudgeNet):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows[..., :5]

    rows = np.random.default_rng(0).normal(size=(51, WIDTH)).astype(np.float32)
    found = answers_to(Copies(), rows)
    ahead = 1 / (1 + np.exp(-rows[:, :5]))
    assert found.shape == (51, 5)
    assert np.allclose(found[:-DELAY, :4], ahead[DELAY:, :4], atol=1e-6)
    assert np.allclose(found[:-EARLY_DELAY, 4], ahead[EARLY_DELAY:, 4], atol=1e-6)


def test_the_written_network_answers_as_the_fitted_one(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net = JudgeNet().eval()
    write_onnx(net, tmp_path / "judge.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "judge.onnx"), providers=["CPUExecutionProvider"])
    for count in (4, 38, 262):
        rows = np.random.default_rng(count).normal(size=(1, count, WIDTH)).astype(np.float32)
        (found,) = session.run(["answers"], {"rows": rows})
        with torch.no_grad():
            wanted = torch.sigmoid(net(torch.from_numpy(rows))).numpy()
        assert found.shape == (1, count, 5) and np.abs(found - wanted).max() < 1e-5
