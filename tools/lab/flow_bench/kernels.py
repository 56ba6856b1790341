"""TV-L1's Triton kernels as a GPU runs them, on a machine without one: compiled for it, disassembled and counted.

python -m lab.flow_bench.kernels [--pairs 64] [--side 128] [--capability 90] [--processors 132] [--json]
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import torch
import triton
import typer
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from engine.ops.tvl1 import gpu, tiling, triton_kernels, triton_relax
from engine.ops.tvl1.method import METHOD, sizes
from lab.command import run

PROGRAMS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
PUBLIC = ("smooth", "descend", "expand", "relax")


@dataclass(frozen=True)
class Kernel:
    """One compiled version: registers of a thread, bytes of shared memory of a program and of local memory (what did not fit
    into registers) of a thread, instructions in all, and those of the innermost loop with the most roots, by their names."""

    name: str
    constants: dict[str, float]
    launches: int
    programs: int
    threads: int
    registers: int
    shared: int
    local: int
    instructions: int
    loop: dict[str, int]


class _Driver:
    """In place of a GPU's driver: names the GPU to compile for, and starts nothing."""

    utils = None

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device


class Recorder:
    """In place of a kernel: compiles each launch and keeps what was compiled."""

    def __init__(self, kernel: Any, found: dict[int, tuple[Any, Kernel]]) -> None:
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*given: object, **named: Any) -> None:
            compiled = self.kernel.run(*given, grid=grid, warmup=True, **named)
            before = self.found[id(compiled)][1] if id(compiled) in self.found else None
            launches = 1 + (before.launches if before else 0)
            constants = {name: value for name, value in named.items() if name.isupper()}
            counted = before or counts(self.kernel.__name__, compiled, constants, prod(grid))
            self.found[id(compiled)] = compiled, Kernel(**{**asdict(counted), "launches": launches})

        return launch


def counts(name: str, compiled: Any, constants: dict[str, float], programs: int) -> Kernel:
    """What a compiled kernel needs."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = dict(re.findall(r"(REG|STACK):(\d+)", _output("cuobjdump", "-res-usage", file.name)))
        lines = _output("nvdisasm", "-c", file.name).splitlines()
    instructions, loops = _loops(lines)
    return Kernel(
        name, constants, 1, programs, 32 * compiled.metadata.num_warps, int(usage["REG"]), compiled.metadata.shared,
        int(usage["STACK"]), len(instructions), dict(max(loops, key=_roots, default=Counter()).most_common()),
    )  # fmt: skip


def _roots(loop: Counter[str]) -> int:
    """How many square roots and the like: the loop with the most of them iterates TV-L1."""
    return loop["MUFU"]


def _output(program: str, *arguments: str) -> str:
    return subprocess.run([PROGRAMS / program, *arguments], capture_output=True, text=True, check=True).stdout


def _loops(lines: list[str]) -> tuple[list[str], list[Counter[str]]]:
    """The instructions' names, and those of each innermost loop, from a disassembly."""
    names: list[str] = []
    labels: dict[str, int] = {}
    spans = []
    for line in lines:
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(names)
        elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9]+)(.*);", line):
            names.append(instruction[1])
            target = re.search(r"`\((\.L_x_\d+)\)", instruction[2])
            if instruction[1] == "BRA" and target and target[1] in labels:
                spans.append((labels[target[1]], len(names)))
    inner = [one for one in spans if one[1] - one[0] > 1 and not any(_within(other, one) for other in spans)]
    return names, [Counter(names[begin:end]) for begin, end in inner]


def _within(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one != other and one[1] - one[0] > 1 and other[0] <= one[0] and one[1] <= other[1]


def compiled_for(capability: int, pairs: int, cuts: dict[tuple[int, int], tiling.Tiling]) -> list[Kernel]:
    """Every kernel that levels of a pyramid need, cut so, the picture's own size first, for a GPU of a compute capability."""
    driver.set_active(_Driver(capability))
    found: dict[int, tuple[Any, Kernel]] = {}
    kept: list[tuple[ModuleType, str, Any]] = []
    for module in (triton_kernels, triton_relax):
        for name in PUBLIC:
            if isinstance(kernel := getattr(module, name, None), JITFunction):
                kept.append((module, name, kernel))
                setattr(module, name, Recorder(kernel, found))
    try:
        gpu.Part(pairs, list(cuts), list(cuts.values()), METHOD, torch.device("cpu")).launch()
    finally:
        for module, name, kernel in kept:
            setattr(module, name, kernel)
    return [kernel for _, kernel in found.values()]


def table(kernels: list[Kernel]) -> str:
    """The kernels as a markdown table."""
    head = (
        "| kernel | launches | programs | threads | registers | shared, bytes | spilled, bytes | instructions | an iteration |"
    )
    rows = []
    for one in kernels:
        patch = one.constants.get("PATCH")
        name = f"{one.name}, {patch:g} x {patch:g} pixels a thread" if patch else one.name
        loop = f"{sum(one.loop.values())}: " + ", ".join(f"{count} {what}" for what, count in one.loop.items()) if patch else ""
        values = (one.launches, one.programs, one.threads, one.registers, one.shared, one.local, one.instructions, loop)
        rows.append(f"| {name} | " + " | ".join(map(str, values)) + " |")
    return "\n".join([head, "| --- |" + " ---: |" * 7 + " --- |", *rows])


def main(
    *,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of pictures of a batch.")] = 64,
    side: Annotated[int, typer.Option(min=1, help="Pixels of a picture's side.")] = 128,
    capability: Annotated[int, typer.Option(min=80, help="Compute capability of the GPU, without the dot.")] = 90,
    processors: Annotated[int, typer.Option(min=1, help="Multiprocessors of the GPU.")] = tiling.PROCESSORS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compile and count the kernels of a batch, and say how its levels are cut and how long that takes by the model."""
    cuts = {level: tiling.tile(level, METHOD, pairs, processors=processors) for level in sizes(side, side)}
    model = [tiling.cycles(cut, METHOD, pairs, processors) for cut in cuts.values()]
    kernels = compiled_for(capability, pairs, cuts)
    if as_json:
        typer.echo(json.dumps({"kernels": [asdict(kernel) for kernel in kernels], "iterations_cycles": model}, indent=2))
        return
    typer.echo(table(kernels))
    typer.echo("\n| level | tiles | pixels of a tile | halo, pixels | iterations of a warp's launches | cycles, by the model |")
    typer.echo("| --- | ---: | ---: | ---: | --- | ---: |")
    for (height, width), cut, cycles in zip(cuts, cuts.values(), model, strict=True):
        pixels = f"{cut.columns * cut.side} x {cut.rows * cut.side}"
        launches = " + ".join(map(str, cut.launches))
        typer.echo(
            f"| {width} x {height} | {cut.down * cut.across} | {pixels} | {cut.halo * cut.side} | {launches} | {cycles:.0f} |"
        )


if __name__ == "__main__":
    run(main)
