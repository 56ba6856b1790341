"""The networks, one architecture a file; `build` makes any of them by name. Needs PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from torch import nn


class Architecture(NamedTuple):
    """The class of a network; side is the rows and columns of the maps it takes, unless its option `side` says otherwise."""

    module: str
    class_name: str
    side: int


ARCHITECTURES = {
    "ahmsa": Architecture("engine.models.ahmsa", "AhmsaNet", 28),
    "htnet": Architecture("engine.models.htnet", "HTNet", 28),
    "hfa": Architecture("engine.models.hfa", "HfaNet", 224),
}
"""Every network by the name that settings, recipes, cards and `build` know it by: a new one is its module and a line here."""


def architecture(name: str) -> Architecture:
    """The architecture of a name. Raises ConfigError where there is none."""
    if name not in ARCHITECTURES:
        raise ConfigError(f"no architecture is called {name!r}; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def build(name: str, num_classes: int = 3, **options: Any) -> nn.Module:
    """Make an untrained network of architecture `name`: maps [B, 3, H, W] in 0..1 -> logits [B, num_classes].

    options are the architecture's own (see its class). Raises ConfigError for a name or an option that does not exist or a
    value that cannot be, and BackendError where PyTorch is not installed.
    """
    chosen = architecture(name)
    if num_classes < 2:
        raise ConfigError(f"a network needs at least two classes, not {num_classes}")
    try:
        network = getattr(import_module(chosen.module), chosen.class_name)
    except ModuleNotFoundError as missing:
        raise BackendError("building a network needs PyTorch; install apexstream[train]") from missing
    try:
        made: nn.Module = network(num_classes, **options)
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as wrong:
        raise ConfigError(f"{name} cannot be built with these options: {wrong}") from wrong
    return made


__all__ = ["ARCHITECTURES", "Architecture", "architecture", "build"]
