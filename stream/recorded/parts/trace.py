"""The steps of a part in a file, so that the part can be joined on another machine.

Steps are pickled, which only files of the same program are to be read from. Many at once: they share what does not change from
frame to frame, such as a face's mesh between two looks of the network.
"""

from __future__ import annotations

import io
import os
import pickle
import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.errors import InputError
from stream.files import replacing, write_errors
from stream.recorded.passage import Step, Steps

TOGETHER = 64
"""Steps that are pickled together."""
END = bytes(8)
"""The length that stands for the end."""
LEVEL = 1
"""Of zlib: more takes longer and gains little."""


def write_trace(path: Path, steps: Iterable[Step]) -> None:
    """Write the steps; the file is there, safe on the disk, once they are complete. Raises OutputError, and what the steps
    raise."""
    drawn = iter(steps)
    with ExitStack() as opened:
        with write_errors(path):
            file = opened.enter_context(opened.enter_context(replacing(path)).open("wb"))
        while together := list(islice(drawn, TOGETHER)):
            packed = zlib.compress(_pickled(together), LEVEL)
            with write_errors(path):
                file.write(len(packed).to_bytes(8) + packed)
        with write_errors(path):
            file.write(END)
            file.flush()
            os.fsync(file.fileno())
            opened.close()


def is_trace(path: Path) -> bool:
    """Whether there is a file of steps that is complete."""
    try:
        with path.open("rb") as file:
            file.seek(-len(END), os.SEEK_END)
            return file.read() == END
    except OSError:
        return False


def read_trace(path: Path) -> Steps:
    """The steps in a file. Raises InputError where there is none or it is damaged."""
    try:
        with path.open("rb") as file:
            while (head := file.read(8)) != END:
                yield from pickle.loads(zlib.decompress(file.read(int.from_bytes(head))))
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(f"{path}, what was found in a part of the video, cannot be read: {error}") from error


def _pickled(steps: list[Step]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(steps)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Keeps an array that repeats one value as that value and its shape."""

    def __init__(self, file: IO[bytes], protocol: int) -> None:
        super().__init__(file, protocol)

    def reducer_override(self, value: Any) -> Any:
        """How to make such an array again."""
        if type(value) is np.ndarray and value.size > 1 and not any(value.strides):
            return np.broadcast_to, (value[(0,) * value.ndim], value.shape)
        return NotImplemented
