"""Data sets of onset-apex flow maps, all read into `FlowMaps` by `load`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import InputError
from engine.recognition.flowmap import network_input
from engine.types import F32

CLASSES = ("negative", "positive", "surprise")
"""The composite database's classes; a label is an index into them."""


@dataclass(frozen=True, eq=False)
class FlowMaps:
    """N labelled flow maps.

    maps [N, 3, 28, 28] float32 (u, v, strain) in 0..1; keypoints [N, 5, 2] float32, (x, y) in map cells (see
    `engine.recognition.flowmap`); labels [N] of CLASSES; names, databases and subjects per map, a subject written
    "database/subject". absent lists what the table names but the folder does not hold.
    """

    maps: F32
    keypoints: F32
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]
    databases: tuple[str, ...]
    subjects: tuple[str, ...]
    absent: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def told(self) -> str:
        """What the set holds, in one line."""
        held = f"{len(self)} maps of {len(set(self.subjects))} subjects"
        if not self.absent:
            return held
        more = " ..." if len(self.absent) > 5 else ""
        return f"{held}; named but absent: {len(self.absent)} ({', '.join(self.absent[:5])}{more})"

    def inputs(self, kind: str) -> F32:
        """[N, 3, H, W], what live analysis would feed a network that takes this kind of `engine.geometry.INPUTS`."""
        return np.stack([network_input(kind, m, k) for m, k in zip(self.maps, self.keypoints, strict=True)])

    def take(self, indices: npt.ArrayLike) -> FlowMaps:
        """The maps at indices [n], in that order."""
        chosen = np.asarray(indices, np.int64)

        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[i] for i in chosen)

        arrays = (self.maps[chosen], self.keypoints[chosen], self.labels[chosen])
        return FlowMaps(*arrays, pick(self.names), pick(self.databases), pick(self.subjects), self.absent)


def load(folder: str | Path) -> FlowMaps:
    """The flow maps in a folder: the composite database's published ones (`htnet_3db`), or prepared databases (`prepared`).

    Raises InputError where the folder is neither, or is damaged.
    """
    from training.datasets import htnet_3db, prepared

    root = Path(folder)
    if (root / htnet_3db.TABLE).exists():
        return htnet_3db.load(root)
    if prepared.is_prepared(root):
        return prepared.load(root)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; a folder of flow maps is expected")
    raise InputError(
        f"{root} holds no flow maps: neither the published ones ({htnet_3db.TABLE}) nor databases made by `apexstream prepare`"
    )
