"""A network's file opened once in a process of its own, within limits, before this process opens it.

To open a file is to work out all that depends on its parameters alone, and no library can be stopped in the middle of that: a
kilobyte of constants and matrix products takes as much time and memory as its author likes. Networks that come with apexstream
are not tried.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from engine.errors import WeightsError
from engine.runtime.graph import check_graph
from engine.weights import default_weights

CPU_S = 10
"""Of one core; a committee of 7 MB with 1,400 operations on parameters takes 0.5 s, the start of Python among them."""
MEMORY_BYTES = 4 << 30
"""Of addresses; that committee needs 0.7 GB, with Python and its libraries."""
PATIENCE_S = 6 * CPU_S
"""In which the process is to be done on a machine that has other work, too."""
NO_MEMORY = (b"bad_alloc", b"Failed to allocate", b"MemoryError")

_TRIAL = """
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
        with contextlib.suppress(ValueError, OSError):  # macOS bounds no addresses
            resource.setrlimit(limit, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 2  # where memory is refused, folding warns and goes on without
try:
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
except Exception as error:
    print(repr(error), file=sys.stderr)
"""


def try_opening(weights: Path | None) -> None:
    """Raise WeightsError where ONNX Runtime needs more than `CPU_S` or `MEMORY_BYTES` to open a file, or crashes.

    None, for shipped weights, is not tried. Whether it is a network at all is left to whoever opens it next, and so is
    everything where no process can be started.
    """
    if weights is None or not weights.is_file() or weights.resolve().parent == default_weights().resolve().parent:
        return
    check_graph(weights)
    command = [sys.executable, "-P", "-c", _TRIAL, str(weights), str(CPU_S), str(MEMORY_BYTES)]
    quiet = subprocess.DEVNULL
    try:
        tried = subprocess.run(command, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False)
        refused = tried.returncode < 0 or any(word in tried.stderr for word in NO_MEMORY)
    except subprocess.TimeoutExpired:
        refused = True
    except OSError:
        return
    if refused:
        raise WeightsError(
            f"{weights} cannot be opened within {CPU_S} s and {MEMORY_BYTES >> 30} GiB; save it with what depends on its "
            "parameters alone worked out"
        )
