"""Facial micro-expressions, recognized from video: `open_video` reads frames from a file, `Pipeline` turns them into events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.pipeline import Pipeline
    from stream.sources.file import open_video

__all__ = ["Pipeline", "open_video"]


def __getattr__(name: str) -> Any:
    """Import what is exported when it is first used: `apexstream --help` needs neither models nor codecs."""
    if name == "Pipeline":
        from engine.pipeline import Pipeline

        return Pipeline
    if name == "open_video":
        from stream.sources.file import open_video

        return open_video
    raise AttributeError(f"module 'apexstream' has no attribute {name!r}")
