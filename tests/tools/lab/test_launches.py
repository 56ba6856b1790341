from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.models import build
from engine.recognition import flowmap_gpu
from lab import launches
from lab.launches import GPU, HostTripError, Launches, count, inputs_row, moved


def test_every_step_is_counted() -> None:
    flow, inputs, network = count(60)
    assert flow.by_name["relax"] >= 1 and sum(flow.by_name.values()) == flow.launches
    assert {"match", "compare", "fit", "place", "subtract", "read", "magnitude"} <= inputs.by_name.keys()
    assert inputs.launches <= 25, "a step was added: docs/performance.md says how many there are"
    assert network.launches == sum(network.by_name.values())
    assert moved(3)["to the GPU"] == moved(4)["to the GPU"] == 4 * 4 * (2 * 128 * 128 + 478 * 3)


@pytest.mark.parametrize(
    "trip",
    [
        lambda mesh: mesh + torch.zeros(3),
        lambda mesh: mesh * float(mesh.sum()),
        lambda mesh: mesh[mesh > 0],
        lambda mesh: mesh.to(GPU) + torch.tensor([1.0, 2.0, 3.0]).to(GPU),
        lambda mesh: mesh.cpu(),
        lambda mesh: mesh if bool((mesh > 0).all()) else -mesh,
    ],
    ids=["other device", "value", "mask", "table from the host", "copied", "condition"],
)
def test_a_step_that_touches_the_host_is_found(trip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    relief = flowmap_gpu.relief

    def with_trip(mesh: torch.Tensor, table: Any) -> torch.Tensor:
        trip(mesh)
        return relief(mesh, table)

    monkeypatch.setattr(flowmap_gpu, "relief", with_trip)
    with pytest.raises((HostTripError, RuntimeError, NotImplementedError)):
        inputs_row("whole", 2)


@pytest.mark.parametrize(("name", "side"), [("ahmsa", 28), ("htnet", 28), ("hfa", 224)])
def test_no_network_touches_the_host(name: str, side: int) -> None:
    network = build(name).eval().to(GPU)
    maps = torch.empty((2, 3, side, side), device=GPU)
    with torch.no_grad(), Launches():
        assert network(maps).shape == (2, 3)


def test_the_command_prints_launches_and_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    launches.main(moments=2)
    out = capsys.readouterr().out
    assert "TV-L1" in out and "network" in out and "MB to the GPU" in out
    launches.main(moments=2, as_json=True)
    assert '"launches"' in capsys.readouterr().out
