"""A network's file is first opened in a separate process within limits of time and memory.

Opening includes constant folding, which cannot be interrupted: a kilobyte of constants and matrix products can take any amount
of time and memory. Networks that are shipped with apexstream are not tried.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from engine.errors import WeightsError
from engine.runtime.graph import check_graph
from engine.weights import default_weights

CPU_S = 10
"""CPU time; an ensemble of 7 MB with 1,400 constant operations takes 0.5 s, the start of Python included."""
MEMORY_BYTES = 4 << 30
"""Address space; that ensemble needs 0.7 GB, with Python and its libraries."""
TIMEOUT_S = 6 * CPU_S
"""Wall-clock limit, for machines that are busy with other work."""
OUT_OF_MEMORY = (b"bad_alloc", b"Failed to allocate", b"MemoryError")

_SCRIPT = """
import contextlib
import sys
path, cpu_s, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
try:
    import resource
except ImportError:
    pass
else:
    for limit, wanted in ((resource.RLIMIT_CPU, cpu_s), (resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limit)[1]
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of addresses
            resource.setrlimit(limit, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 2  # folding warns of failed allocations and continues without
try:
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
except Exception as error:
    print(repr(error), file=sys.stderr)
"""


def try_opening(weights: Path | None) -> None:
    """Raise WeightsError where ONNX Runtime needs more than `CPU_S` or `MEMORY_BYTES` to open a file, or crashes.

    Shipped weights (None) are not tried. Whether the file is a network at all shows when it is opened next, as does everything
    where no process can be started.
    """
    if weights is None or not weights.is_file() or weights.resolve().parent == default_weights().resolve().parent:
        return
    check_graph(weights)
    command = [sys.executable, "-P", "-c", _SCRIPT, str(weights), str(CPU_S), str(MEMORY_BYTES)]
    devnull = subprocess.DEVNULL
    try:
        tried = subprocess.run(command, stdin=devnull, stdout=devnull, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
        refused = tried.returncode < 0 or any(word in tried.stderr for word in OUT_OF_MEMORY)
    except subprocess.TimeoutExpired:
        refused = True
    except OSError:
        return
    if refused:
        raise WeightsError(
            f"{weights} cannot be opened within {CPU_S} s and {MEMORY_BYTES >> 30} GiB; save it with its constants folded"
        )
