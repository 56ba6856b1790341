"""Locators for the tests of faces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.config import LandmarkSettings
from engine.faces.landmarks import FaceLocator
from tests.faces import MakeLocator


@pytest.fixture
def locator() -> Iterator[MakeLocator]:
    """Makes locators with settings, and frees them."""
    made: list[FaceLocator] = []

    def make(**settings: object) -> FaceLocator:
        made.append(FaceLocator(LandmarkSettings.model_validate(settings)))
        return made[-1]

    yield make
    for one in made:
        one.close()
