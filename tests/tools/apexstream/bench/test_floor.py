"""The floor that a GPU's time is held against."""

from __future__ import annotations

import dataclasses

import pytest

from apexstream.bench.floor import DEVICES, Device, device_named, floor, work
from engine.ops.tvl1.method import METHOD


def test_memory_counts_two_pictures_in_and_two_components_out() -> None:
    moved, _ = work(64, 128, 128)
    assert moved == 64 * 128 * 128 * 16


def test_arithmetic_grows_with_pairs_and_iterations() -> None:
    _, one = work(1, 128, 128)
    assert work(64, 128, 128)[1] == 64 * one
    once, none = (work(1, 128, 128, dataclasses.replace(METHOD, iterations=n, levels=1, warps=1))[1] for n in (1, 0))
    assert 40 <= (once - none) / 128**2 <= 60


def test_the_greater_one_binds() -> None:
    slow_memory, slow_arithmetic = Device(1e9, 1e15), Device(1e15, 1e9)
    moved, operations = work(2, 64, 64)
    assert floor(slow_memory, 2, 64, 64).seconds == pytest.approx(moved / 1e9)
    assert floor(slow_arithmetic, 2, 64, 64).seconds == pytest.approx(operations / 1e9)


def test_devices_are_found_by_the_drivers_name() -> None:
    assert device_named("NVIDIA H200") == DEVICES["H200"]
    assert device_named("NVIDIA L40S") == DEVICES["L40S"]
    assert device_named("NVIDIA GeForce RTX 4090") == DEVICES["RTX 4090"]
    assert device_named("Voodoo2") is None
