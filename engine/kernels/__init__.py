"""Inner loops of the registration in machine code, which numba compiles once and keeps on disk.

    heads       the robust fit of the head's motion         equivalent: registration.head.fit_by_numpy
    patches     patches found again in another picture      equivalent: registration.patches.Patches.find_by_opencv
    sampling    a picture through an affine map             equivalents: registration.warp.sample_by_opencv, shrink_by_opencv

`machine_code` is None where numba is missing; the equivalents answer then, in more than twice the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Compiled = Callable[..., Any]


@dataclass(frozen=True)
class MachineCode:
    """Each function compiled for one signature, which its file states."""

    fit: Compiled
    level: Compiled
    follow: Compiled
    sample: Compiled
    average: Compiled


@lru_cache(maxsize=1)
def refusal() -> str | None:
    """Why nothing can be compiled here, None where it can."""
    try:
        from numba import config
    except (ImportError, OSError) as error:  # OSError: LLVM's library cannot be loaded
        return f"numba cannot be used ({error}); reinstall it with: pip install --force-reinstall numba"
    if getattr(config, "DISABLE_JIT", False):  # set while numba is imported, so its types do not know it
        return "numba's compiler is switched off; unset NUMBA_DISABLE_JIT"
    return None


@lru_cache(maxsize=1)
def machine_code() -> MachineCode | None:
    """The machine code, None where nothing can be compiled; the first call compiles it (seconds) or loads it."""
    if refusal() is not None:
        return None
    from engine.kernels import heads, patches, sampling
    from engine.kernels.machine import SUMS, compiled

    return MachineCode(
        fit=compiled(heads.fit, heads.FIT, SUMS),
        level=compiled(patches.levelled, patches.LEVELLED, SUMS),
        follow=compiled(patches.follow, patches.FOLLOW, SUMS),
        sample=compiled(sampling.sampled, sampling.SAMPLED, SUMS),
        average=compiled(sampling.averaged, sampling.AVERAGED, SUMS),
    )
