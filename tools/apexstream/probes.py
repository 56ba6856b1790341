"""What `apexstream doctor` tries out: each probe loads and runs one part and returns a detail in a line, or raises."""

from __future__ import annotations

import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from engine.errors import ApexError


def gpu() -> str:
    """The GPU by name and architecture, or why there is none."""
    from engine.runtime import gpu as device

    try:
        found = device.find()
    except ApexError as none:
        return str(none)
    return f"{found.name}, {found.sm}"


def cuda() -> str:
    """The GPU that PyTorch sees, or why it sees none."""
    if find_spec("torch") is None:
        return "PyTorch is not installed; analysis does not need it"
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    return f"none: PyTorch {torch.__version__} {'sees no GPU' if torch.version.cuda else 'is built for the CPU'}"


def kernel_cache() -> str:
    """Where Triton keeps compiled kernels for the next process, or that it cannot."""
    home = Path(os.environ.get("TRITON_HOME") or Path.home())
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or home / ".triton" / "cache")
    try:
        writable(next(parent for parent in (folder, *folder.parents) if parent.exists()))
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror}), so the GPU's kernels cannot be compiled; set TRITON_CACHE_DIR"
    return f"kept in {folder} (TRITON_CACHE_DIR), compiled once for each kind of GPU and size of picture"


def h264() -> str:
    """The H.264 decoder."""
    import av

    decoder = av.Codec("h264", "r")
    versions = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"{decoder.long_name}, libavcodec {versions}"


def face_model() -> str:
    """Where the face model is; it is read and its hash checked."""
    from engine.mesh import bundle

    where = bundle.place()
    bundle.read()
    return f"{where.path} ({where.why}), content as expected"


def face_mesh() -> str:
    """The face mesh, run on an empty picture."""
    import numpy as np

    from engine.faces.landmarks import FaceLocator
    from engine.types import Frame

    started = time.perf_counter()
    locator = FaceLocator()
    try:
        backend, faces = locator.backend, locator.locate(Frame(0, 0.0, np.full((256, 256, 3), 128, np.uint8)))
    finally:
        locator.close()
    if faces:
        raise RuntimeError(f"it sees {len(faces)} faces in an empty picture")
    return f"{backend} loads and runs it ({time.perf_counter() - started:.1f} s)"


def dlib_detector() -> str:
    """dlib's face detector, run on an empty picture."""
    import dlib
    import numpy as np

    found = dlib.get_frontal_face_detector()(np.full((128, 128), 128, np.uint8))
    if len(found):
        raise RuntimeError(f"it sees {len(found)} faces in an empty picture")
    return f"dlib {dlib.__version__} loads and runs"


def weights() -> str:
    """The shipped network, its hash checked."""
    from engine.weights import load_card

    card = load_card()
    return f"{card.model_id}, content as its card says; licence: {card.licence}"


def runtime() -> str:
    """The runtime of the network, timed on one map."""
    import numpy as np
    from platformdirs import user_data_path

    from engine.runtime import load
    from engine.weights import default_weights

    runner = load(default_weights(), cache=user_data_path("apexstream", appauthor=False) / "engines")
    runner(np.full((1, *runner.input_shape), 0.5, np.float32))
    started = time.perf_counter()
    answer = runner(np.full((1, *runner.input_shape), 0.5, np.float32))
    if not np.isclose(answer.sum(), 1, atol=1e-3):
        raise RuntimeError(f"the network's probabilities add up to {answer.sum():.3f}")
    why = "; ".join(f"{name} not: {reason}" for name, reason in runner.refusals.items()) or "the first choice of auto"
    line = f"{runner.backend} on {runner.device} ({1000 * (time.perf_counter() - started):.1f} ms a map), {why}"
    return "; ".join((line, *runner.notes))


def flow() -> str:
    """TV-L1, timed on one pair of crops."""
    import numpy as np

    from engine.ops.tvl1 import cpu, prepare, tvl1

    chosen = prepare()
    why = f", because {cpu.refusal()}" if chosen == "reference" else ""
    picture = np.random.default_rng(0).integers(0, 255, (128, 128), dtype=np.uint8)
    started = time.perf_counter()
    tvl1(picture, picture)
    return f"{chosen} ({1000 * (time.perf_counter() - started):.1f} ms a pair of 128 px crops){why}"


def writable(folder: Path) -> str:
    """The folder, after a file was written into it. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")
    return str(folder)
