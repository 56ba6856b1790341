"""The networks, one architecture a file; `build` makes any of them by name. Needs PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

_CLASSES = {"ahmsa": "AhmsaNet", "htnet": "HTNet", "hfa": "HfaNet"}

NAMES = tuple(_CLASSES)
"""The architectures `build` knows."""

SIDES = {"ahmsa": 28, "htnet": 28, "hfa": 224}
"""Rows and columns of the maps that each takes, unless its option `side` says otherwise."""


def build(name: str, num_classes: int = 3, **options: Any) -> nn.Module:
    """Make an untrained network of architecture `name`: maps [B, 3, H, W] in 0..1 -> logits [B, num_classes].

    options are the architecture's own (see its class). Raises ConfigError for a name or an option that does not exist or a
    value that cannot be, and BackendError where PyTorch is not installed.
    """
    if name not in NAMES:
        raise ConfigError(f"no architecture is called {name!r}; this version builds {', '.join(NAMES)}")
    if num_classes < 2:
        raise ConfigError(f"a network needs at least two classes, not {num_classes}")
    try:
        network = getattr(import_module(f"engine.models.{name}"), _CLASSES[name])
    except ModuleNotFoundError as missing:
        from engine.errors import BackendError

        raise BackendError("building a network needs PyTorch; install apexstream[train]") from missing
    try:
        made: nn.Module = network(num_classes, **options)
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as wrong:
        raise ConfigError(f"{name} cannot be built with these options: {wrong}") from wrong
    return made


__all__ = ["NAMES", "SIDES", "build"]
