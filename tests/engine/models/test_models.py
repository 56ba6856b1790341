from __future__ import annotations

import pytest
import torch

from engine.errors import ConfigError
from engine.models import NAMES, build


def test_every_name_builds_a_network_for_the_classes_asked_for() -> None:
    for name in NAMES:
        assert build(name, 4)(torch.rand(1, 3, 28, 28)).shape == (1, 4)


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'resnet'; this version builds ahmsa"):
        build("resnet")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="widht"):
        build("ahmsa", widht=32)


def test_one_class_is_no_choice() -> None:
    with pytest.raises(ConfigError, match="at least two classes"):
        build("ahmsa", 1)
