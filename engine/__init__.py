"""Arrays in, values out: everything between a frame and an expression event, without I/O, threads or clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.pipeline import Pipeline

__all__ = ["Pipeline"]


def __getattr__(name: str) -> Any:
    """`from engine import Pipeline`, without loading the models' libraries for those who only want a type or an error."""
    if name == "Pipeline":
        from engine.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module 'engine' has no attribute {name!r}")
