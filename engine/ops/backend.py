"""Which backend computes an operator: one rule for all of them.

An operator has a readable reference, a CPU path and a place for a GPU path. Each GPU module says through `refusal()` why it
cannot run here, or None when it can.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

from engine.errors import BackendError

Backend = Literal["auto", "reference", "cpu", "gpu"]
Chosen = Literal["reference", "cpu", "gpu"]


def choose(asked: str, gpu_refusal: str | None) -> Chosen:
    """The backend that runs when `asked` was asked for; "auto" takes the GPU where there is one, else the CPU.

    gpu_refusal is the reason why the GPU cannot run, None when it can. Raises BackendError for a GPU that cannot run and for
    a name that is not a backend.
    """
    if asked not in get_args(Backend):
        raise BackendError(f"the backends are {', '.join(get_args(Backend))}; {asked!r} is none of them")
    if asked == "auto":
        return "gpu" if gpu_refusal is None else "cpu"
    if asked == "gpu" and gpu_refusal is not None:
        raise BackendError(f'backend "gpu" cannot run here: {gpu_refusal}; ask for "auto" or "cpu"')
    return cast(Chosen, asked)
