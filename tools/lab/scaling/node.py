"""One machine with cameras, frame by frame: what `apexstream live` does with its cores, processes and queues.

    camera    a frame each 1/fps s, the cameras out of step; a queue of 12 frames each, whose oldest is dropped when it is full
    analysis  one frame of a camera at a time; the first part of its time holds the lock of its process (Python runs one thread
              at a time), all of it a core
    core      first come, first served; a frame that has begun is not interrupted

Service times are independent draws from the measured distribution.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import simpy

from lab.scaling.figures import F64, sampled

SOURCES_A_PROCESS = 3
DRAWN_AT_ONCE = 4096


@dataclass(frozen=True)
class Machine:
    """A machine and what it is given. processes None: as `apexstream live --processes auto`."""

    cameras: int
    cores: int = 2
    fps: float = 30.0
    queued_frames: int = 12
    processes: int | None = None

    @property
    def used_processes(self) -> int:
        """Processes that share the cameras."""
        if self.processes is not None:
            return self.processes
        return max(1, min(self.cores, -(-self.cameras // SOURCES_A_PROCESS)))


@dataclass(frozen=True)
class NodeResult:
    """What came of a run: frames that arrived, those dropped, cores busy on average, the most frames that waited, and
    milliseconds from a frame's arrival to the end of its analysis."""

    frames: int
    dropped: int
    busy: float
    most_waiting: int
    delays_ms: F64

    @property
    def held(self) -> bool:
        """Whether no frame was dropped."""
        return not self.dropped


class _Run:
    def __init__(self, machine: Machine, quantiles_ms: F64, python_share: float, seconds: float, seed: int) -> None:
        self.machine, self._share, self._seconds = machine, python_share, seconds
        self._quantiles = quantiles_ms / 1000
        self.env = simpy.Environment()
        self._random = np.random.default_rng(seed)
        self._cores = simpy.Resource(self.env, machine.cores)
        self._drawn = iter(())  # type: Any
        self.frames = self.dropped = self.most_waiting = 0
        self.used = 0.0
        self.delays: list[float] = []
        locks = cycle([simpy.Resource(self.env, 1) for _ in range(machine.used_processes)])
        for phase in self._random.random(machine.cameras) / machine.fps:
            self.env.process(self._camera(float(phase), next(locks)))

    def _service_s(self) -> float:
        found = next(self._drawn, None)
        if found is None:
            self._drawn = iter(sampled(self._quantiles, self._random, DRAWN_AT_ONCE).tolist())
            found = next(self._drawn)
        return float(found)

    def _camera(self, phase: float, lock: simpy.Resource) -> Generator[Any, Any, None]:
        """Frames arrive; whenever none is being analysed, the analysis of the oldest that waits begins."""
        waiting: deque[float] = deque()
        idle = [self.env.event()]
        self.env.process(self._analysis(waiting, idle, lock))
        yield self.env.timeout(phase)
        while self.env.now < self._seconds:
            self.frames += 1
            waiting.append(self.env.now)
            if len(waiting) > self.machine.queued_frames:
                waiting.popleft()
                self.dropped += 1
            self.most_waiting = max(self.most_waiting, len(waiting))
            if not idle[0].triggered:
                idle[0].succeed()
            yield self.env.timeout(1 / self.machine.fps)

    def _analysis(self, waiting: deque[float], idle: list[simpy.Event], lock: simpy.Resource) -> Generator[Any, Any, None]:
        while True:
            if not waiting:
                idle[0] = self.env.event()
                yield idle[0]
            arrived, service = waiting.popleft(), self._service_s()
            with lock.request() as locked:
                yield locked
                core = self._cores.request()
                yield core
                yield self.env.timeout(self._share * service)
            yield self.env.timeout((1 - self._share) * service)
            self._cores.release(core)
            self.used += service
            self.delays.append(1000 * (self.env.now - arrived))


def simulate_node(
    machine: Machine, quantiles_ms: F64, *, python_share: float, seconds: float = 12.0, seed: int = 0
) -> NodeResult:
    """One run. quantiles_ms: of a frame's time on a core, evenly spaced; python_share: the part of it under the lock."""
    run = _Run(machine, quantiles_ms, python_share, seconds, seed)
    run.env.run(until=seconds)
    return NodeResult(run.frames, run.dropped, run.used / seconds, run.most_waiting, np.array(run.delays))
